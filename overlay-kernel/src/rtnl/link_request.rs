//! Links as they are asked for (`linux/if_link.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use overlay_core::{DontFragment, IfName, IpFamily, Mac, Mtu, Ttl};

use crate::link::{BridgePort, Kind, Link, MacvlanMode, Vxlan};
use crate::netlink::{Body, Flags, Requests};

use super::link::*;
use super::{AF_INET, AF_INET6};

/// A device to make: its name, where, what, and the owner's mark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New<'a> {
    pub(crate) name: IfName,
    /// The namespace, where it is not that of the socket that asks.
    pub(crate) netns: Option<BorrowedFd<'a>>,
    pub(crate) link: &'a Link,
    pub(crate) group: u32,
}

impl New<'_> {
    fn write(&self, body: &mut Body<'_>) {
        body.text(IFLA_IFNAME, self.name.as_str())
            .u32(IFLA_MTU, self.link.mtu.get())
            .attribute(IFLA_ADDRESS, &self.link.mac.octets())
            .u32(IFLA_GROUP, self.group);
        if let Some(netns) = self.netns {
            body.u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
        }
    }
}

/// Makes a device. `base` is the index of the interface it stands on, in the namespace of the socket that asks. `None`
/// for a kind that cannot be made so: a pair, a tap, a stray.
pub(crate) fn create(new: New<'_>, base: Option<u32>) -> Option<Requests> {
    let kind = match &new.link.kind {
        Kind::Bridge { .. } => "bridge",
        Kind::Dummy => "dummy",
        Kind::Vxlan(_) => "vxlan",
        Kind::Macvlan { .. } => "macvlan",
        Kind::Veth { .. } | Kind::Tap(_) | Kind::Stray(_) => return None,
    };
    Some(Requests::one(RTM_NEWLINK, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        body.raw(&[0; HEAD]);
        new.write(body);
        if let (Some(base), Kind::Macvlan { .. }) = (base, &new.link.kind) {
            body.u32(IFLA_LINK, base);
        }
        body.nest(IFLA_LINKINFO, |body| {
            body.text(IFLA_INFO_KIND, kind).nest(IFLA_INFO_DATA, |body| data(body, &new.link.kind, base));
        });
    }))
}

/// Makes a device of this index that is there and does nothing.
pub(crate) fn stand_in(index: u32, name: IfName, group: u32) -> Requests {
    Requests::one(RTM_NEWLINK, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        body.raw(&head(index, 0, 0)).text(IFLA_IFNAME, name.as_str()).u32(IFLA_GROUP, group);
        body.nest(IFLA_LINKINFO, |body| {
            body.text(IFLA_INFO_KIND, "bridge");
        });
    })
}

/// Makes a pair.
pub(crate) fn create_pair(near: New<'_>, far: New<'_>) -> Requests {
    Requests::one(RTM_NEWLINK, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        body.raw(&[0; HEAD]);
        near.write(body);
        body.nest(IFLA_LINKINFO, |body| {
            body.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |body| {
                body.nest(VETH_INFO_PEER, |body| {
                    body.raw(&[0; HEAD]);
                    far.write(body);
                });
            });
        });
    })
}

fn data(body: &mut Body<'_>, kind: &Kind, base: Option<u32>) {
    match kind {
        Kind::Bridge { multicast_snooping } => {
            body.u8(IFLA_BR_MCAST_SNOOPING, (*multicast_snooping).into());
        }
        Kind::Macvlan { mode, .. } => {
            body.u32(
                IFLA_MACVLAN_MODE,
                match mode {
                    MacvlanMode::Private => 1,
                    MacvlanMode::Vepa => 2,
                    MacvlanMode::Bridge => 4,
                    MacvlanMode::Passthru => 8,
                },
            );
        }
        Kind::Vxlan(vxlan) => tunnel(body, vxlan, base),
        Kind::Dummy | Kind::Veth { .. } | Kind::Tap(_) | Kind::Stray(_) => {}
    }
}

fn tunnel(body: &mut Body<'_>, vxlan: &Vxlan, base: Option<u32>) {
    let local = if vxlan.local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
    let (ttl, inherit) = match vxlan.ttl {
        Ttl::Auto => (0, false),
        Ttl::Inherit => (0, true),
        Ttl::Hops(hops) => (hops.get(), false),
    };
    let [a, b] = vxlan.source_ports.first().get().to_be_bytes();
    let [c, d] = vxlan.source_ports.last().get().to_be_bytes();
    body.u32(IFLA_VXLAN_ID, vxlan.vni.get())
        .ip(local, vxlan.local)
        .be16(IFLA_VXLAN_PORT, vxlan.port.get())
        .attribute(IFLA_VXLAN_PORT_RANGE, &[a, b, c, d])
        .u8(IFLA_VXLAN_TTL, ttl)
        .u8(IFLA_VXLAN_LEARNING, vxlan.learning.into())
        .u8(IFLA_VXLAN_PROXY, vxlan.proxy.into());
    if inherit {
        body.flag(IFLA_VXLAN_TTL_INHERIT);
    }
    if let Some(base) = base {
        body.u32(IFLA_VXLAN_LINK, base);
    }
    match IpFamily::of(vxlan.local) {
        IpFamily::V4 => {
            let dont_fragment = match vxlan.dont_fragment {
                DontFragment::Unset => 0,
                DontFragment::Set => 1,
                DontFragment::Inherit => 2,
            };
            body.u8(IFLA_VXLAN_DF, dont_fragment).u8(IFLA_VXLAN_UDP_CSUM, vxlan.udp_checksum.into());
        }
        // A sender's zero checksum over IPv6 is taken whatever we send ourselves (RFC 6935 §5).
        IpFamily::V6 => {
            body.u8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, (!vxlan.udp_checksum).into()).u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1);
        }
    }
}

/// What of a device is to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) mtu: Option<Mtu>,
    /// Setting even the same address makes the kernel forget the device's neighbours.
    pub(crate) mac: Option<Mac>,
    pub(crate) group: Option<u32>,
    /// The index of the bridge to be a port of; 0 for none.
    pub(crate) master: Option<u32>,
}

/// Changes a device.
pub(crate) fn change(index: u32, change: Change) -> Requests {
    Requests::one(RTM_NEWLINK, Flags::NONE, |body| {
        body.raw(&head(index, 0, 0));
        if let Some(mtu) = change.mtu {
            body.u32(IFLA_MTU, mtu.get());
        }
        if let Some(mac) = change.mac {
            body.attribute(IFLA_ADDRESS, &mac.octets());
        }
        if let Some(group) = change.group {
            body.u32(IFLA_GROUP, group);
        }
        if let Some(master) = change.master {
            body.u32(IFLA_MASTER, master);
        }
    })
}

/// Changes a device's settings per family; `ipv6` says whether its namespace has IPv6.
pub(crate) fn settings(index: u32, link: &Link, ipv6: bool) -> Requests {
    Requests::one(RTM_NEWLINK, Flags::NONE, |body| {
        body.raw(&head(index, 0, 0)).nest(IFLA_AF_SPEC, |body| {
            body.nest(AF_INET.into(), |body| {
                body.nest(IFLA_INET_CONF, |body| {
                    body.u32(IPV4_DEVCONF_FORWARDING as u16, link.ipv4_forwarding.into())
                        .u32(IPV4_DEVCONF_ROUTE_LOCALNET as u16, link.ipv4_localnet.into())
                        .u32(IPV4_DEVCONF_PROMOTE_SECONDARIES as u16, 1);
                });
            });
            if ipv6 {
                let mode = if link.link_local { IN6_ADDR_GEN_MODE_EUI64 } else { IN6_ADDR_GEN_MODE_NONE };
                body.nest(AF_INET6.into(), |body| {
                    body.u8(IFLA_INET6_ADDR_GEN_MODE, mode);
                });
            }
        });
    })
}

/// Changes what a device is as a port of its bridge.
pub(crate) fn port(index: u32, port: BridgePort) -> Requests {
    Requests::one(RTM_NEWLINK, Flags::NONE, |body| {
        body.raw(&head(index, 0, 0)).nest(IFLA_LINKINFO, |body| {
            body.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |body| {
                body.u8(IFLA_BRPORT_LEARNING, port.learning.into())
                    .u8(IFLA_BRPORT_UNICAST_FLOOD, port.flood.into())
                    .u8(IFLA_BRPORT_ISOLATED, port.isolated.into())
                    .u8(IFLA_BRPORT_NEIGH_SUPPRESS, port.neigh_suppress.into());
            });
        });
    })
}

/// Gives a device another name beside its own.
pub(crate) fn altname(index: u32, name: &str) -> Requests {
    Requests::one(RTM_NEWLINKPROP, Flags::CREATE | Flags::EXCLUSIVE | Flags::APPEND, |body| {
        body.raw(&head(index, 0, 0)).nest(IFLA_PROP_LIST, |body| {
            body.text(IFLA_ALT_IFNAME, name);
        });
    })
}

/// Sets a device up.
pub(crate) fn raise(requests: &mut Requests, index: u32) {
    requests.add(RTM_NEWLINK, Flags::NONE, |body| {
        body.raw(&head(index, IFF_UP, IFF_UP));
    });
}

/// Removes a device.
pub(crate) fn remove(index: u32) -> Requests {
    Requests::one(RTM_DELLINK, Flags::NONE, |body| {
        body.raw(&head(index, 0, 0));
    })
}

/// A `struct ifinfomsg`.
fn head(index: u32, flags: u32, change: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..16].copy_from_slice(&change.to_ne_bytes());
    head
}

const RTM_NEWLINKPROP: u16 = 108;
const VETH_INFO_PEER: u16 = 1;
