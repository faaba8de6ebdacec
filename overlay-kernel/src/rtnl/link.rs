//! Links as they are read (`struct ifinfomsg`, `linux/if_link.h`).

use std::net::IpAddr;

use overlay_core::{DontFragment, IfName, Mac};

use crate::link::{MacvlanMode, Tap};
use crate::netlink::{Attribute, Attributes, Flags, Malformed, Message, Requests};

use super::{AF_INET, AF_INET6};

/// A link of one namespace, in the kernel's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    pub(crate) index: u32,
    /// `None` for a name that ours never have.
    pub(crate) name: Option<IfName>,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    pub(crate) up: bool,
    /// Up, and with a carrier.
    pub(crate) running: bool,
    pub(crate) group: u32,
    pub(crate) altnames: Vec<String>,
    /// The bridge it is a port of.
    pub(crate) master: Option<u32>,
    /// The other end or parent, in the namespace that `link_netns` says.
    pub(crate) link: Option<u32>,
    /// The id here of the namespace of the other end, parent or socket; `None` for this one.
    pub(crate) link_netns: Option<i32>,
    pub(crate) data: Data,
    pub(crate) port: Port,
    pub(crate) ipv4_forwarding: bool,
    pub(crate) ipv4_localnet: bool,
    pub(crate) accept_ra: bool,
    pub(crate) link_local: bool,
    /// Whether the namespace has IPv6 at all.
    pub(crate) ipv6: bool,
    /// Whether IPv6 is switched off on the device (`disable_ipv6`).
    pub(crate) ipv6_off: bool,
}

/// What its kind alone has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Bridge { multicast_snooping: bool },
    Dummy,
    Veth,
    Vxlan(Vxlan),
    Macvlan { mode: Option<MacvlanMode> },
    Tap(Tap),
    Other(String),
}

impl Default for Data {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

/// Attributes of a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Vxlan {
    pub(crate) vni: u32,
    pub(crate) local: Option<IpAddr>,
    pub(crate) device: Option<u32>,
    pub(crate) port: u16,
    pub(crate) source_ports: (u16, u16),
    pub(crate) ttl: u8,
    pub(crate) ttl_inherit: bool,
    pub(crate) dont_fragment: DontFragment,
    pub(crate) udp_checksum: bool,
    pub(crate) zero_checksum_v6: bool,
    pub(crate) learning: bool,
    pub(crate) proxy: bool,
}

/// Attributes of a bridge's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Port {
    pub(crate) learning: bool,
    pub(crate) flood: bool,
    pub(crate) isolated: bool,
    pub(crate) neigh_suppress: bool,
}

/// Asks for all links.
pub(crate) fn dump() -> Requests {
    Requests::one(RTM_GETLINK, Flags::NONE, |body| {
        body.raw(&[0; HEAD]);
    })
}

/// Asks for the link of this name.
pub(crate) fn by_name(name: IfName) -> Requests {
    Requests::one(RTM_GETLINK, Flags::NONE, |body| {
        body.raw(&[0; HEAD]).text(IFLA_IFNAME, name.as_str());
    })
}

/// Asks for the link of this index.
pub(crate) fn by_index(index: u32) -> Requests {
    let [a, b, c, d] = index.to_ne_bytes();
    Requests::one(RTM_GETLINK, Flags::NONE, |body| {
        body.raw(&[0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]);
    })
}

/// Reads a link; nothing for other messages.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Found>, Malformed> {
    if message.kind != RTM_NEWLINK {
        return Ok(None);
    }
    let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = message.head::<HEAD>()?;
    let flags = u32::from_ne_bytes([e, f, g, h]);
    let (up, running) = (flags & IFF_UP != 0, flags & IFF_RUNNING != 0);
    let mut found = Found { index: u32::from_ne_bytes([a, b, c, d]), up, running, ..Found::default() };
    for attribute in message.attributes(HEAD)? {
        take(&mut found, &attribute?)?;
    }
    Ok(Some(found))
}

fn take(found: &mut Found, attribute: &Attribute<'_>) -> Result<(), Malformed> {
    match attribute.kind {
        IFLA_IFNAME => found.name = attribute.text().ok().and_then(|name| IfName::new(name).ok()),
        IFLA_MTU => found.mtu = attribute.u32()?,
        IFLA_ADDRESS => found.mac = attribute.array().ok().map(Mac::new),
        IFLA_GROUP => found.group = attribute.u32()?,
        IFLA_MASTER => found.master = Some(attribute.u32()?),
        IFLA_LINK => found.link = Some(attribute.u32()?).filter(|index| *index != 0),
        IFLA_LINK_NETNSID => found.link_netns = Some(attribute.u32()?.cast_signed()),
        IFLA_LINKINFO => info(found, attribute.nested())?,
        IFLA_PROP_LIST => {
            for property in attribute.nested() {
                let property = property?;
                if property.kind == IFLA_ALT_IFNAME {
                    found.altnames.extend(property.text().ok().map(ToOwned::to_owned)); // ours are text
                }
            }
        }
        IFLA_AF_SPEC => {
            for family in attribute.nested() {
                let family = family?;
                match u8::try_from(family.kind) {
                    Ok(AF_INET) => inet(found, family.nested())?,
                    Ok(AF_INET6) => inet6(found, family.nested())?,
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn info(found: &mut Found, attributes: Attributes<'_>) -> Result<(), Malformed> {
    let kind = attributes.clone().find(IFLA_INFO_KIND)?.map(|kind| kind.text()).transpose()?.unwrap_or_default();
    let data = attributes.clone().find(IFLA_INFO_DATA)?.map_or(Attributes::new(&[]), |data| data.nested());
    found.data = match kind {
        "bridge" => Data::Bridge { multicast_snooping: flag(data, IFLA_BR_MCAST_SNOOPING)? },
        "dummy" => Data::Dummy,
        "veth" => Data::Veth,
        "vxlan" => Data::Vxlan(vxlan(data)?),
        "macvlan" => Data::Macvlan { mode: macvlan(data)? },
        "tun" => tap(data)?.map_or_else(|| Data::Other("tun".to_owned()), Data::Tap),
        other => Data::Other(other.to_owned()),
    };
    let master = attributes.clone().find(IFLA_INFO_SLAVE_KIND)?.map(|kind| kind.text()).transpose()?;
    if let Some(port) = attributes.find(IFLA_INFO_SLAVE_DATA)?.filter(|_| master == Some("bridge")) {
        found.port = Port {
            learning: flag(port.nested(), IFLA_BRPORT_LEARNING)?,
            flood: flag(port.nested(), IFLA_BRPORT_UNICAST_FLOOD)?,
            isolated: flag(port.nested(), IFLA_BRPORT_ISOLATED)?,
            neigh_suppress: flag(port.nested(), IFLA_BRPORT_NEIGH_SUPPRESS)?,
        };
    }
    Ok(())
}

fn vxlan(data: Attributes<'_>) -> Result<Vxlan, Malformed> {
    let mut vxlan = Vxlan::default();
    for attribute in data {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_VXLAN_ID => vxlan.vni = attribute.u32()?,
            IFLA_VXLAN_LINK => vxlan.device = Some(attribute.u32()?),
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => vxlan.local = Some(attribute.ip()?),
            IFLA_VXLAN_TTL => vxlan.ttl = attribute.u8()?,
            IFLA_VXLAN_TTL_INHERIT => vxlan.ttl_inherit = attribute.u8()? != 0,
            IFLA_VXLAN_LEARNING => vxlan.learning = attribute.u8()? != 0,
            IFLA_VXLAN_PROXY => vxlan.proxy = attribute.u8()? != 0,
            IFLA_VXLAN_PORT => vxlan.port = attribute.be16()?,
            IFLA_VXLAN_PORT_RANGE => {
                let [a, b, c, d] = attribute.array()?;
                vxlan.source_ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            }
            IFLA_VXLAN_UDP_CSUM => vxlan.udp_checksum = attribute.u8()? != 0,
            IFLA_VXLAN_UDP_ZERO_CSUM6_TX => vxlan.zero_checksum_v6 = attribute.u8()? != 0,
            IFLA_VXLAN_DF => {
                vxlan.dont_fragment = match attribute.u8()? {
                    0 => DontFragment::Unset,
                    1 => DontFragment::Set,
                    _ => DontFragment::Inherit,
                }
            }
            _ => {}
        }
    }
    Ok(vxlan)
}

fn macvlan(data: Attributes<'_>) -> Result<Option<MacvlanMode>, Malformed> {
    let mode = data.find(IFLA_MACVLAN_MODE)?.map(|mode| mode.u32()).transpose()?;
    Ok(match mode {
        Some(1) => Some(MacvlanMode::Private),
        Some(2) => Some(MacvlanMode::Vepa),
        Some(4) => Some(MacvlanMode::Bridge),
        Some(8) => Some(MacvlanMode::Passthru),
        _ => None,
    })
}

/// `None` for a device of the other type, which carries IP packets.
fn tap(data: Attributes<'_>) -> Result<Option<Tap>, Malformed> {
    let kind = data.clone().find(IFLA_TUN_TYPE)?.map(|kind| kind.u8()).transpose()?;
    if kind != Some(TUN_TYPE_TAP) {
        return Ok(None);
    }
    let id = |kind| data.clone().find(kind)?.map(|id| id.u32()).transpose();
    let (owner, group) = (id(IFLA_TUN_OWNER)?, id(IFLA_TUN_GROUP)?);
    Ok(Some(Tap { multi_queue: flag(data, IFLA_TUN_MULTI_QUEUE)?, owner, group }))
}

/// IPv4's settings of the device: an array of 32-bit numbers.
fn inet(found: &mut Found, attributes: Attributes<'_>) -> Result<(), Malformed> {
    if let Some(settings) = attributes.find(IFLA_INET_CONF)? {
        found.ipv4_forwarding = number(settings.value, IPV4_DEVCONF_FORWARDING - 1) != 0;
        found.ipv4_localnet = number(settings.value, IPV4_DEVCONF_ROUTE_LOCALNET - 1) != 0;
    }
    Ok(())
}

fn inet6(found: &mut Found, attributes: Attributes<'_>) -> Result<(), Malformed> {
    found.ipv6 = true;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_INET6_CONF => {
                found.accept_ra = number(attribute.value, DEVCONF_ACCEPT_RA) != 0;
                found.ipv6_off = number(attribute.value, DEVCONF_DISABLE_IPV6) != 0;
            }
            IFLA_INET6_ADDR_GEN_MODE => found.link_local = attribute.u8()? != IN6_ADDR_GEN_MODE_NONE,
            _ => {}
        }
    }
    Ok(())
}

/// The number at a place of an array; 0 behind its end, where an older kernel has no such setting.
fn number(array: &[u8], at: usize) -> u32 {
    let bytes = array.get(at * 4..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn flag(attributes: Attributes<'_>, kind: u16) -> Result<bool, Malformed> {
    Ok(attributes.find(kind)?.map(|flag| flag.u8()).transpose()?.is_some_and(|flag| flag != 0))
}

pub(super) const HEAD: usize = 16; // struct ifinfomsg
pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
pub(super) const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 1 << 6;

pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINK: u16 = 5;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_GROUP: u16 = 27;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
const IFLA_LINK_NETNSID: u16 = 37;
pub(super) const IFLA_PROP_LIST: u16 = 52;
pub(super) const IFLA_ALT_IFNAME: u16 = 53;

pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
pub(super) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(super) const IFLA_INFO_SLAVE_DATA: u16 = 5;

pub(super) const IFLA_BR_MCAST_SNOOPING: u16 = 23;
pub(super) const IFLA_BRPORT_LEARNING: u16 = 8;
pub(super) const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
pub(super) const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
pub(super) const IFLA_BRPORT_ISOLATED: u16 = 33;

pub(super) const IFLA_VXLAN_ID: u16 = 1;
pub(super) const IFLA_VXLAN_LINK: u16 = 3;
pub(super) const IFLA_VXLAN_LOCAL: u16 = 4;
pub(super) const IFLA_VXLAN_TTL: u16 = 5;
pub(super) const IFLA_VXLAN_LEARNING: u16 = 7;
pub(super) const IFLA_VXLAN_PORT_RANGE: u16 = 10;
pub(super) const IFLA_VXLAN_PROXY: u16 = 11;
pub(super) const IFLA_VXLAN_PORT: u16 = 15;
pub(super) const IFLA_VXLAN_LOCAL6: u16 = 17;
pub(super) const IFLA_VXLAN_UDP_CSUM: u16 = 18;
pub(super) const IFLA_VXLAN_UDP_ZERO_CSUM6_TX: u16 = 19;
pub(super) const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
pub(super) const IFLA_VXLAN_TTL_INHERIT: u16 = 28;
pub(super) const IFLA_VXLAN_DF: u16 = 29;

pub(super) const IFLA_MACVLAN_MODE: u16 = 1;

const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_GROUP: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const TUN_TYPE_TAP: u8 = 2; // IFF_TAP, linux/if_tun.h

pub(super) const IFLA_INET_CONF: u16 = 1;
pub(super) const IPV4_DEVCONF_FORWARDING: usize = 1; // counted from 1, the array from 0
pub(super) const IPV4_DEVCONF_PROMOTE_SECONDARIES: usize = 20;
pub(super) const IPV4_DEVCONF_ROUTE_LOCALNET: usize = 26;
const IFLA_INET6_CONF: u16 = 2;
const DEVCONF_ACCEPT_RA: usize = 3;
const DEVCONF_DISABLE_IPV6: usize = 26; // linux/ipv6.h
pub(super) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
pub(super) const IN6_ADDR_GEN_MODE_EUI64: u8 = 0;
pub(super) const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Messages;

    #[test]
    fn a_tun_device_that_carries_ip_packets_is_no_tap() {
        let read = |kind: u8| {
            let device = Requests::one(RTM_NEWLINK, Flags::NONE, |body| {
                body.raw(&[0; HEAD]).nest(IFLA_LINKINFO, |body| {
                    body.text(IFLA_INFO_KIND, "tun").nest(IFLA_INFO_DATA, |body| {
                        body.u8(IFLA_TUN_TYPE, kind).u32(IFLA_TUN_GROUP, 7).u8(IFLA_TUN_MULTI_QUEUE, 1);
                    });
                });
            });
            let mut bytes = Vec::new();
            device.copy_all(&mut bytes);
            parse(&Messages::new(&bytes).next().unwrap().unwrap()).unwrap().unwrap().data
        };
        assert_eq!(read(1), Data::Other("tun".to_owned()));
        assert_eq!(read(2), Data::Tap(Tap { multi_queue: true, owner: None, group: Some(7) }));
    }

    #[test]
    fn a_port_of_another_masters_kind_is_not_read_as_a_bridges() {
        let bond = Requests::one(RTM_NEWLINK, Flags::NONE, |body| {
            body.raw(&[0; HEAD]).nest(IFLA_LINKINFO, |body| {
                body.text(IFLA_INFO_SLAVE_KIND, "bond").nest(IFLA_INFO_SLAVE_DATA, |body| {
                    // IFLA_BOND_SLAVE_AD_PARTNER_OPER_PORT_STATE, IFLA_BOND_SLAVE_PRIO
                    body.attribute(8, &[1, 0]).u32(9, 7);
                });
            });
        });
        let mut bytes = Vec::new();
        bond.copy_all(&mut bytes);
        let found = parse(&Messages::new(&bytes).next().unwrap().unwrap()).unwrap().unwrap();
        assert_eq!(found.port, Port::default());
    }
}
