//! Which subnets the node's gateway bridge has.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_core::NodeId;
use overlay_kernel::Namespace;
use overlay_kernel::link::routed;
use overlay_node::GatewayBridge;
use serde::{Deserialize, Serialize};

use crate::events::Events;
use crate::{DriverEvent, StartError};

/// What was chosen before, or else subnets that the host has no route to, which are written down: who is restarted finds containers' addresses in
/// them. Nodes of one machine begin at different ones.
pub(crate) fn choose(
    dir: &Path,
    node: NodeId,
    host: Option<&Namespace>,
    events: &Events,
) -> Result<GatewayBridge, StartError> {
    let path = dir.join("gateway.json");
    let failed = |source| StartError::Dir { dir: dir.to_owned(), source };
    match fs::read(&path) {
        Ok(bytes) => match read(&bytes) {
            Ok(chosen) => return Ok(chosen),
            Err(error) => {
                let aside = dir.join("gateway.json.unread");
                fs::rename(&path, &aside).map_err(failed)?;
                let (what, aside) = (path.display().to_string(), aside.display());
                let reason =
                    format!("{error}; it is kept as {aside}, and other subnets are chosen for the gateway bridge");
                events.tell(DriverEvent::Unreadable { what, reason });
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let taken = host.map(routed).transpose().map_err(StartError::Routes)?.unwrap_or_default();
    let chosen = GatewayBridge { v4: Some(free(node, &taken).ok_or(StartError::NoSubnet)?), v6: unique(node, &taken) };
    write(&path, &chosen).map_err(failed)?;
    Ok(chosen)
}

/// 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20, as container runtimes choose them.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let large = (17..32).filter_map(|second| Ipv4Net::new([172, second, 0, 0].into(), 16).ok());
    let small = (0..16).filter_map(|third| Ipv4Net::new([192, 168, 16 * third, 0].into(), 20).ok());
    large.chain(small)
}

fn free(node: NodeId, taken: &BTreeSet<IpNet>) -> Option<Ipv4Net> {
    let all: Vec<_> = candidates().collect();
    let [first, ..] = node.to_bytes();
    let is_free = |net: &Ipv4Net| !taken.iter().any(|other| overlap(&IpNet::V4(*net), other));
    all.iter().cycle().skip(usize::from(first) % all.len()).take(all.len()).copied().find(is_free)
}

/// A unique local subnet (RFC 4193) made of the node's id. Without one containers reach the outside by IPv4 alone.
fn unique(node: NodeId, taken: &BTreeSet<IpNet>) -> Option<Ipv6Net> {
    let [a, b, c, d, e, ..] = node.to_bytes();
    let bytes = [0xfd, a, b, c, d, e, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let net = Ipv6Net::new(bytes.into(), 64).ok()?;
    (!taken.iter().any(|other| overlap(&IpNet::V6(net), other))).then_some(net)
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// As it is written down.
#[derive(Serialize)]
struct Written {
    version: u64,
    #[serde(flatten)]
    bridge: GatewayBridge,
}

/// What is read of it first: all else may be otherwise in another version.
#[derive(Deserialize)]
struct Numbered {
    version: u64,
}

const VERSION: u64 = 1;

fn read(bytes: &[u8]) -> Result<GatewayBridge, String> {
    match serde_json::from_slice(bytes).map_err(|error| error.to_string())? {
        Numbered { version: VERSION } => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        Numbered { version } => Err(format!("its version is {version}, this node reads {VERSION}")),
    }
}

fn write(path: &Path, chosen: &GatewayBridge) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(&Written { version: VERSION, bridge: *chosen })?)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has_routes_to_is_not_chosen() {
        let node = NodeId::from_bytes([0; 16]);
        let taken = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<BTreeSet<IpNet>>();
        let chosen = |nets: &[&str]| free(node, &taken(nets)).map(|net| net.to_string());
        assert_eq!(chosen(&[]).as_deref(), Some("172.17.0.0/16"));
        assert_eq!(chosen(&["172.17.0.0/16", "172.18.3.0/24"]).as_deref(), Some("172.19.0.0/16"));
        assert_eq!(chosen(&["172.16.0.0/12"]).as_deref(), Some("192.168.0.0/20"));
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.0.0/16"]), None);
        assert_eq!(unique(node, &taken(&["fd00::/8"])), None);
        assert_eq!(
            free(NodeId::from_bytes([3; 16]), &taken(&[])).map(|net| net.to_string()).as_deref(),
            Some("172.20.0.0/16")
        );
    }

    #[test]
    fn what_was_chosen_stays_whatever_routes_there_are() {
        let dir = std::env::temp_dir().join(format!("overlay-gateway-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let events = Events::new(NodeId::from_bytes([1; 16]));
        let mut told = events.listen();
        let first = choose(&dir, NodeId::from_bytes([1; 16]), None, &events).unwrap();
        assert_eq!(choose(&dir, NodeId::from_bytes([2; 16]), None, &events).unwrap(), first);
        assert!(told.try_recv().is_err());
        let later = br#"{"version":2,"v4":{"net":"172.30.0.0/16"}}"#;
        assert_eq!(read(later), Err("its version is 2, this node reads 1".to_owned()));
        for unread in [&b"{\"v4\":"[..], br#"{"v4":"172.30.0.0/16","v6":null}"#, later] {
            fs::write(dir.join("gateway.json"), unread).unwrap(); // broken off by another hand, or of another release
            let chosen = choose(&dir, NodeId::from_bytes([2; 16]), None, &events).unwrap();
            assert!(chosen != first && chosen.v4.map(|net| net.to_string()).as_deref() != Some("172.30.0.0/16"));
            assert!(matches!(told.try_recv(), Ok(DriverEvent::Unreadable { .. })));
            assert_eq!(fs::read(dir.join("gateway.json.unread")).unwrap(), unread);
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
