//! What an endpoint has for itself, and what is taken.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{AddressSet, EndpointId, IfName, Mac, NsId, SharedMap, is_host_address};
use overlay_link::MacvlanMode;
use overlay_vxlan::names;

use super::footing::Ground;
use super::free::{Free, number};
use super::mesh::sees_nodes;
use crate::{LocalEndpoint, RemoteEndpoint, Section};

/// Why an endpoint is left out, or an address of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It has no address yet.
    #[error("it has no address yet")]
    NotAllocated,
    /// Its Ethernet address is no station's, or one that the network's own devices have.
    #[error("its Ethernet address {0} is no container's")]
    Mac(Mac),
    /// Another endpoint has its Ethernet address.
    #[error("another endpoint has its Ethernet address {0}")]
    MacTaken(Mac),
    /// An address of it is none that an endpoint of this network can have.
    #[error("its address {0} is none of the network's, or reserved there")]
    Address(IpAddr),
    /// Another endpoint, a service or the gateway has an address of it.
    #[error("its address {0} is another's")]
    AddressTaken(IpAddr),
    /// Another endpoint is plugged in where it is, or would have a device of the same name.
    #[error("another endpoint is plugged in at {0}")]
    Interface(IfName),
    /// A virtual machine is plugged in where only containers can be.
    #[error(
        "a virtual machine is plugged in to overlay networks only, and to the ingress network for ports with source=masquerade"
    )]
    Machine,
    /// Its network takes an interface of the node over, and another endpoint is there.
    #[error("another endpoint has the interface {0}, which its network takes over")]
    Parent(IfName),
    /// Its node is not known, or not to be reached from here.
    #[error("its node has no VTEP that is reached from here")]
    Node,
}

impl Unfit {
    /// Whether it would be fit if another were not there.
    pub(super) const fn is_contended(self) -> bool {
        matches!(self, Self::MacTaken(_) | Self::AddressTaken(_) | Self::Interface(_) | Self::Parent(_))
    }
}

/// What nobody else may have while an endpoint has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim<'k> {
    pub(super) mac: Mac,
    /// Those that are known of it, where it has them all.
    pub(super) addresses: Cow<'k, AddressSet>,
    pub(super) at: At,
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Here: behind this port of the bridge, and at that interface of a container.
    Port { device: IfName, end: Option<(NsId, IfName)> },
    /// Elsewhere: on the node that has this VTEP.
    Vtep(IpAddr),
}

impl<'k> Claim<'k> {
    /// Of an endpoint here, if there were no other. It has all that it says, or nothing.
    pub(super) fn of_local(
        section: &Section,
        free: &Free<'_>,
        ground: Ground,
        id: EndpointId,
        local: &LocalEndpoint,
    ) -> Result<Self, Unfit> {
        let endpoint = &local.endpoint;
        if section.network.spec.ingress && local.namespace.is_none() {
            // It is not made to answer through nodes.
            let service = endpoint.spec.service.and_then(|service| section.services.get(&service));
            service.filter(|service| sees_nodes(service)).ok_or(Unfit::Machine)?;
        }
        check_ground(ground, id, local)?;
        check_mac(endpoint.mac)?;
        let mut addresses = AddressSet::new();
        for net in &endpoint.addresses {
            let address = net.addr();
            if !free.has(address) || !is_host_of(address, *net) {
                return Err(Unfit::Address(address));
            }
            if !addresses.insert(address) {
                return Err(Unfit::AddressTaken(address)); // twice, in subnets of two sizes
            }
        }
        if addresses.is_empty() {
            return Err(Unfit::NotAllocated);
        }
        let device = match &local.namespace {
            Some(_) => names::port(id).map_err(|_| Unfit::Interface(local.interface))?,
            None => local.interface,
        };
        let end = local.namespace.as_ref().map(|namespace| (namespace.id, local.interface));
        Ok(Self { mac: endpoint.mac, addresses: Cow::Owned(addresses), at: At::Port { device, end } })
    }

    /// Of an endpoint behind a VTEP, if there were no other. It has those of its addresses that an endpoint of the network can
    /// have; of the others, one is told.
    pub(super) fn of_remote(
        free: &Free<'_>,
        vtep: IpAddr,
        remote: &'k RemoteEndpoint,
    ) -> Result<(Self, Option<Unfit>), Unfit> {
        check_mac(remote.mac)?;
        let mut claim = Self { mac: remote.mac, addresses: Cow::Borrowed(&remote.addresses), at: At::Vtep(vtep) };
        let wrong = claim.retain(|address| free.has(address));
        let unfit = wrong.last().map(|address| Unfit::Address(*address));
        if claim.addresses.is_empty() {
            return Err(unfit.unwrap_or(Unfit::NotAllocated));
        }
        Ok((claim, unfit))
    }

    /// Keeps some addresses, and gives back the others.
    pub(super) fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let others: Vec<_> = self.addresses.iter().copied().filter(|address| !keep(*address)).collect();
        for address in &others {
            self.addresses.to_mut().remove(address);
        }
        others
    }
}

/// What somebody has already.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    /// As [numbers](number), which are compared at once: most of what an admission costs is to look whether an address is here.
    addresses: SharedMap<u128, ()>,
    macs: SharedMap<Mac, ()>,
    devices: BTreeSet<IfName>,
    ends: BTreeSet<(NsId, IfName)>,
}

impl Taken {
    /// By the network itself: its gateways, its services' VIPs, the devices of its segment, as which no tap can be called.
    pub(super) fn of(section: &Section, ground: Ground) -> Self {
        let gateways = gateways(section).into_iter().map(|net| net.addr());
        let addresses = vips(section).into_iter().chain(gateways).map(|address| (number(address), ())).collect();
        let mut devices: BTreeSet<_> = IfName::new("lo").into_iter().collect();
        if let Ground::Segment(vni) = ground {
            devices.extend([names::bridge(vni), names::tunnel(vni)].into_iter().flatten());
        }
        Self { addresses, devices, ..Self::default() }
    }

    /// What of a claim another has, if anything.
    pub(super) fn conflict(&self, claim: &Claim<'_>) -> Option<Unfit> {
        if self.macs.contains_key(&claim.mac) {
            return Some(Unfit::MacTaken(claim.mac));
        }
        if let At::Port { device, end } = &claim.at
            && (self.devices.contains(device) || end.is_some_and(|end| self.ends.contains(&end)))
        {
            return Some(Unfit::Interface(end.map_or(*device, |(_, interface)| interface)));
        }
        claim.addresses.iter().find(|address| self.has(**address)).map(|address| Unfit::AddressTaken(*address))
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&number(address))
    }

    pub(super) fn has_mac(&self, mac: Mac) -> bool {
        self.macs.contains_key(&mac)
    }

    pub(super) fn take(&mut self, claim: &Claim<'_>) {
        self.macs.insert(claim.mac, ());
        self.addresses.extend(claim.addresses.iter().map(|address| (number(*address), ())));
        if let At::Port { device, end } = &claim.at {
            self.devices.insert(*device);
            self.ends.extend(*end);
        }
    }

    /// What many have, if no two of them have the same, and none what somebody has; else nothing, and says so. `by_mac` begins with
    /// their Ethernet addresses in order, and the claims are best in that order. O(n log n), at a fraction of what it costs to look and take one by one.
    pub(super) fn take_all<'c, 'k: 'c>(
        &mut self,
        by_mac: &[(Mac, usize)],
        claims: impl Iterator<Item = &'c Claim<'k>>,
    ) -> bool {
        // Each family by itself, and sorts that see what is in order: Ethernet addresses are mostly made of IPv4 addresses.
        let (mut v4, mut v6) = (Vec::with_capacity(by_mac.len()), Vec::with_capacity(by_mac.len()));
        for address in claims.flat_map(|claim| claim.addresses.iter()) {
            if address.is_ipv4() { &mut v4 } else { &mut v6 }.push(number(*address));
        }
        v4.sort();
        v6.sort();
        let mut addresses: Vec<u128> = self.addresses.keys().copied().collect();
        addresses.extend(v4);
        addresses.extend(v6);
        let mut macs: Vec<Mac> = self.macs.keys().copied().collect();
        macs.extend(by_mac.iter().map(|(mac, _)| *mac));
        let (Some(addresses), Some(macs)) = (once_each(addresses), once_each(macs)) else { return false };
        (self.addresses, self.macs) = (addresses, macs);
        true
    }

    /// Undoes [`take`](Self::take).
    pub(super) fn release(&mut self, claim: &Claim<'_>) {
        self.macs.remove(&claim.mac);
        for address in claim.addresses.iter() {
            self.addresses.remove(&number(*address));
        }
        if let At::Port { device, end } = &claim.at {
            self.devices.remove(device);
            if let Some(end) = end {
                self.ends.remove(end);
            }
        }
    }
}

/// All of these, if no two are the same.
fn once_each<T: Ord>(mut all: Vec<T>) -> Option<SharedMap<T, ()>> {
    all.sort();
    let each_once = all.is_sorted_by(|one, next| one < next);
    each_once.then(|| all.into_iter().map(|it| (it, ())).collect())
}

/// The addresses of the network's gateways that can be a host's, each with its subnet's length and none twice.
pub(super) fn gateways(section: &Section) -> BTreeSet<IpNet> {
    let mut gateways = BTreeSet::<IpNet>::new();
    for subnet in &section.network.subnets {
        let gateway = subnet.gateway().filter(|address| is_host_of(*address, subnet.net()));
        let known = |address: &IpAddr| gateways.iter().any(|net| net.addr() == *address);
        let net =
            gateway.filter(|address| !known(address)).map(|address| IpNet::new(address, subnet.net().prefix_len()));
        gateways.extend(net.into_iter().flatten());
    }
    gateways
}

/// The virtual addresses of the services that are on the network.
pub(super) fn vips(section: &Section) -> BTreeSet<IpAddr> {
    let vips = section.services.values().filter_map(|service| service.vips.get(&section.network.id));
    vips.flatten().copied().collect()
}

/// Whether what carries the network takes it in.
fn check_ground(ground: Ground, id: EndpointId, local: &LocalEndpoint) -> Result<(), Unfit> {
    match ground {
        Ground::Segment(_) => Ok(()),
        Ground::Bridge | Ground::Macvlan { .. } if local.namespace.is_none() => Err(Unfit::Machine),
        Ground::Macvlan { parent, mode: MacvlanMode::Passthru, sole } if sole != Some(id) => Err(Unfit::Parent(parent)),
        Ground::Bridge | Ground::Macvlan { .. } => Ok(()),
    }
}

fn check_mac(mac: Mac) -> Result<(), Unfit> {
    let ours = matches!(mac.octets(), [0x02 | 0x06, b'o', b'v', ..]); // see `overlay_vxlan::names`
    if mac.is_station() && !ours { Ok(()) } else { Err(Unfit::Mac(mac)) }
}

/// Whether an address is one host's in its subnet, not the subnet's own nor its broadcast address.
fn is_host_of(address: IpAddr, net: IpNet) -> bool {
    let ends = |net: ipnet::Ipv4Net| [IpAddr::from(net.network()), net.broadcast().into()];
    let of_all = matches!(net, IpNet::V4(net) if net.prefix_len() < 31 && ends(net).contains(&address));
    net.prefix_len() > 0 && !of_all && is_host_address(address) && !address.is_loopback()
}
