//! What a segment's devices in a sandbox are called, and their Ethernet addresses: the same on every node.
//!
//! A kernel backend makes them; others name them to say what is allowed at which.

use overlay_core::{EndpointId, IfName, Mac, Refusal, Vni};

/// The segment's bridge, or the tap that has the gateway's addresses where frames are carried in user space: `br-VNI`.
///
/// # Errors
/// None: every VNI fits.
pub fn bridge(vni: Vni) -> Result<IfName, Refusal> {
    name(format!("br-{vni}"))
}

/// The segment's end of its tunnels: `vx-VNI`.
///
/// # Errors
/// None: every VNI fits.
pub fn tunnel(vni: Vni) -> Result<IfName, Refusal> {
    name(format!("vx-{vni}"))
}

/// The near end of an endpoint's pair, or the tap by which a virtual machine's frames are carried in user space: `p-` and the id's first 12 characters.
///
/// # Errors
/// None: every id fits.
pub fn port(endpoint: EndpointId) -> Result<IfName, Refusal> {
    name(format!("p-{}", endpoint.short()))
}

/// The small bridge between a virtual machine's tap and that of who carries its frames: `b-` and the id's first 12 characters.
///
/// # Errors
/// None: every id fits.
pub fn joint(endpoint: EndpointId) -> Result<IfName, Refusal> {
    name(format!("b-{}", endpoint.short()))
}

fn name(text: String) -> Result<IfName, Refusal> {
    IfName::new(&text).map_err(|error| Refusal::new("link", text, error.to_string()))
}

/// The bridge's, so the gateway's: endpoints that move keep what they know of it.
pub const fn gateway_mac(vni: Vni) -> Mac {
    mac(0x02, vni)
}

/// That of the bridge's ports, which send nothing by themselves. A VXLAN device drops what claims to come from its own
/// address, so it must not be the gateway's.
pub const fn port_mac(vni: Vni) -> Mac {
    mac(0x06, vni)
}

/// Locally administered: `6f:76` is "ov".
const fn mac(first: u8, vni: Vni) -> Mac {
    let [_, a, b, c] = vni.get().to_be_bytes();
    Mac::new([first, 0x6f, 0x76, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit_and_addresses_tell_segments_apart() {
        let (one, last) = (Vni::MIN, Vni::MAX);
        assert_eq!(tunnel(last).map(|name| name.to_string()), Ok("vx-16777215".to_owned()));
        assert_eq!(port(EndpointId::from_bytes([0xff; 16])).unwrap().as_str().len(), 14);
        assert_eq!(gateway_mac(last).to_string(), "02:6f:76:ff:ff:ff");
        assert_eq!(port_mac(one).to_string(), "06:6f:76:00:00:01");
        assert!(gateway_mac(one).is_station() && port_mac(one).is_local());
    }
}
