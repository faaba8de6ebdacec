//! Proptest strategies for the values of this crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::{
    Encapsulation, EndpointId, Esp, Icv, IfName, IpFamily, Mac, Mtu, Name, NetworkId, NodeId, Owner, Port, PortRange,
    Protocol, Vni,
};

/// Every VNI.
pub fn vni() -> impl Strategy<Value = Vni> {
    (1_u32..1 << 24).prop_filter_map("in range", |vni| Vni::new(vni).ok())
}

/// Every address that one station may have.
pub fn station() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(|[first, rest @ ..]| {
        let [b, c, d, e, f] = rest;
        Mac::new([first & !1, b, c, d, e, f.max(1)])
    })
}

/// Every Ethernet address.
pub fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac::new)
}

/// Every MTU.
pub fn mtu() -> impl Strategy<Value = Mtu> {
    (68_u32..=65_535).prop_filter_map("in range", |mtu| Mtu::new(mtu).ok())
}

/// Every port.
pub fn port() -> impl Strategy<Value = Port> {
    (1_u16..).prop_filter_map("in range", |port| Port::new(port).ok())
}

/// Every range of ports.
pub fn port_range() -> impl Strategy<Value = PortRange> {
    (port(), port()).prop_filter_map("in order", |(a, b)| PortRange::new(a.min(b), a.max(b)).ok())
}

/// Every protocol.
pub fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

/// Both families.
pub fn ip_family() -> impl Strategy<Value = IpFamily> {
    prop_oneof![Just(IpFamily::V4), Just(IpFamily::V6)]
}

/// Addresses of one family, any at all.
pub fn ip(family: IpFamily) -> BoxedStrategy<IpAddr> {
    match family {
        IpFamily::V4 => any::<Ipv4Addr>().prop_map(IpAddr::V4).boxed(),
        IpFamily::V6 => any::<Ipv6Addr>().prop_map(IpAddr::V6).boxed(),
    }
}

/// Every encapsulation.
pub fn encapsulation() -> impl Strategy<Value = Encapsulation> {
    let icv = prop_oneof![Just(Icv::Octets8), Just(Icv::Octets12), Just(Icv::Octets16)];
    let esp = (icv, any::<bool>()).prop_map(|(icv, udp_encapsulated)| Esp { icv, udp_encapsulated });
    (ip_family(), proptest::option::of(esp)).prop_map(|(underlay, esp)| Encapsulation { underlay, esp })
}

/// Names of all shapes, up to 63 characters.
pub fn name() -> impl Strategy<Value = Name> {
    "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?".prop_filter_map("a name", |text| Name::new(&text).ok())
}

/// Interface names such as people give.
pub fn if_name() -> impl Strategy<Value = IfName> {
    "[a-z][a-z0-9._-]{0,14}".prop_filter_map("an interface's name", |text| IfName::new(&text).ok())
}

/// Owners.
pub fn owner() -> impl Strategy<Value = Owner> {
    (name(), name()).prop_map(|(cluster, instance)| Owner::new(cluster, instance))
}

/// Every node's id.
pub fn node_id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_map(NodeId::from_bytes)
}

/// Every network's id.
pub fn network_id() -> impl Strategy<Value = NetworkId> {
    any::<[u8; 16]>().prop_map(NetworkId::from_bytes)
}

/// Every endpoint's id.
pub fn endpoint_id() -> impl Strategy<Value = EndpointId> {
    any::<[u8; 16]>().prop_map(EndpointId::from_bytes)
}
