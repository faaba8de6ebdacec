//! Which endpoints of a network there is room for: each with an address of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Mac, NsId};
use overlay_vxlan::names;

use super::Footing;
use crate::{Knowledge, LocalEndpoint, RemoteEndpoint, Section};

/// The endpoints of a network that are in effect here.
///
/// What is plugged in here comes first, then what other nodes say, each in the order of ids: of two that say they have one
/// address, the first has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission<'k> {
    pub(crate) gateways: BTreeSet<IpNet>,
    pub(crate) ports: BTreeMap<EndpointId, Port<'k>>,
    pub(crate) peers: BTreeMap<EndpointId, Peer<'k>>,
    pub(crate) unfit: BTreeMap<EndpointId, Unfit>,
}

/// An endpoint on this node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port<'k> {
    pub(crate) local: &'k LocalEndpoint,
    /// The port of the bridge that it is behind.
    pub(crate) device: IfName,
}

/// An endpoint on another node.
#[derive(Debug, Clone)]
pub(crate) struct Peer<'k> {
    pub(crate) remote: &'k RemoteEndpoint,
    pub(crate) vtep: IpAddr,
    /// Those of its addresses that it may have.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

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
    /// Its node is not known, or not to be reached from here.
    #[error("its node has no VTEP that is reached from here")]
    Node,
}

impl<'k> Admission<'k> {
    pub(super) fn of(knowledge: &'k Knowledge, section: &'k Section, footing: &Footing) -> Self {
        let (mut admission, mut taken) = first(section, footing);
        for (id, remote) in section.remote.iter().filter(|(id, _)| !section.local.contains_key(id)) {
            let vtep = vtep(knowledge, footing, remote);
            match vtep.and_then(|vtep| Ok((vtep, taken.admit_remote(section, remote)?))) {
                Ok((vtep, (addresses, unfit))) => {
                    admission.peers.insert(*id, Peer { remote, vtep, addresses });
                    admission.unfit.extend(unfit.map(|unfit| (*id, unfit)));
                }
                Err(unfit) => drop(admission.unfit.insert(*id, unfit)),
            }
        }
        admission
    }
}

/// As if there were no other nodes. O(what is here).
pub(super) fn local<'k>(section: &'k Section, footing: &Footing) -> Admission<'k> {
    first(section, footing).0
}

/// The endpoints here, and what is taken then.
fn first<'k>(section: &'k Section, footing: &Footing) -> (Admission<'k>, Taken) {
    let mut taken = Taken::of(section, footing);
    let mut admission = Admission { gateways: taken.gateways.clone(), ..Admission::default() };
    for (id, local) in &section.local {
        match taken.admit_local(section, *id, local) {
            Ok(device) => drop(admission.ports.insert(*id, Port { local, device })),
            Err(unfit) => drop(admission.unfit.insert(*id, unfit)),
        }
    }
    (admission, taken)
}

/// Where an endpoint's frames are sent.
pub(super) fn vtep(knowledge: &Knowledge, footing: &Footing, remote: &RemoteEndpoint) -> Result<IpAddr, Unfit> {
    let facts = knowledge.nodes.get(&remote.node).filter(|_| remote.node != knowledge.me);
    facts.filter(|facts| footing.reaches(facts)).map(|facts| facts.vtep).ok_or(Unfit::Node)
}

/// What somebody has already.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    gateways: BTreeSet<IpNet>,
    addresses: BTreeSet<IpAddr>,
    macs: BTreeSet<Mac>,
    devices: BTreeSet<IfName>,
    ends: BTreeSet<(NsId, IfName)>,
}

impl Taken {
    /// By the network itself: its gateways, its services' VIPs, the devices of its segment.
    fn of(section: &Section, footing: &Footing) -> Self {
        let mut taken = Self::default();
        for subnet in &section.network.subnets {
            let gateway = subnet.gateway().filter(|address| is_host_of(*address, subnet.net()));
            let gateway = gateway.filter(|address| taken.addresses.insert(*address));
            let net = gateway.and_then(|address| IpNet::new(address, subnet.net().prefix_len()).ok());
            taken.gateways.extend(net);
        }
        let vips = section.services.values().filter_map(|service| service.vips.get(&section.network.id));
        taken.addresses.extend(vips.flatten());
        taken.devices.extend([names::bridge(footing.vni), names::tunnel(footing.vni)].into_iter().flatten());
        taken
    }

    /// An endpoint here has all that it says, or nothing.
    fn admit_local(&mut self, section: &Section, id: EndpointId, local: &LocalEndpoint) -> Result<IfName, Unfit> {
        let endpoint = &local.endpoint;
        if endpoint.addresses.is_empty() {
            return Err(Unfit::NotAllocated);
        }
        self.check_mac(endpoint.mac)?;
        for address in &endpoint.addresses {
            self.check_address(section, address.addr())?;
            if !is_host_of(address.addr(), *address) {
                return Err(Unfit::Address(address.addr()));
            }
        }
        let distinct: BTreeSet<IpAddr> = endpoint.addresses.iter().map(IpNet::addr).collect();
        if let Some(twice) = endpoint.addresses.first().filter(|_| distinct.len() < endpoint.addresses.len()) {
            return Err(Unfit::AddressTaken(twice.addr()));
        }
        let device = match &local.namespace {
            Some(_) => names::port(id).map_err(|_| Unfit::Interface(local.interface))?,
            None => local.interface,
        };
        let end = local.namespace.as_ref().map(|namespace| (namespace.id, local.interface));
        if self.devices.contains(&device) || end.is_some_and(|end| self.ends.contains(&end)) {
            return Err(Unfit::Interface(local.interface));
        }
        self.devices.insert(device);
        self.ends.extend(end);
        self.macs.insert(endpoint.mac);
        self.addresses.extend(distinct);
        Ok(device)
    }

    /// An endpoint elsewhere has those of its addresses that nobody has; of the others, one is told.
    fn admit_remote(
        &mut self,
        section: &Section,
        remote: &RemoteEndpoint,
    ) -> Result<(BTreeSet<IpAddr>, Option<Unfit>), Unfit> {
        self.check_mac(remote.mac)?;
        let mut addresses = BTreeSet::new();
        let mut unfit = None;
        for address in &remote.addresses {
            match self.check_address(section, *address) {
                Ok(()) => drop(addresses.insert(*address)),
                Err(error) => unfit = Some(error),
            }
        }
        if addresses.is_empty() {
            return Err(unfit.unwrap_or(Unfit::NotAllocated));
        }
        self.macs.insert(remote.mac);
        self.addresses.extend(&addresses);
        Ok((addresses, unfit))
    }

    fn check_mac(&self, mac: Mac) -> Result<(), Unfit> {
        let ours = matches!(mac.octets(), [0x02 | 0x06, b'o', b'v', ..]);
        if !mac.is_station() || ours {
            return Err(Unfit::Mac(mac));
        }
        if self.macs.contains(&mac) { Err(Unfit::MacTaken(mac)) } else { Ok(()) }
    }

    fn check_address(&self, section: &Section, address: IpAddr) -> Result<(), Unfit> {
        let free = section.network.subnets.iter().any(|subnet| subnet.reserved(address).is_none());
        if !free || !is_host(address) || address.is_loopback() {
            return Err(Unfit::Address(address));
        }
        if self.addresses.contains(&address) { Err(Unfit::AddressTaken(address)) } else { Ok(()) }
    }
}

/// Whether an address can be one host's: IPv4 in IPv6's form (RFC 4291 §2.5.5.2) is on no wire.
pub(super) fn is_host(address: IpAddr) -> bool {
    let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    !address.is_unspecified() && !address.is_multicast() && address != IpAddr::from([255; 4]) && !mapped
}

/// Whether an address is one host's in its subnet, not the subnet's own nor its broadcast address.
fn is_host_of(address: IpAddr, net: IpNet) -> bool {
    let of_all = matches!(net, IpNet::V4(v4) if v4.prefix_len() < 31 && [IpAddr::from(v4.network()), v4.broadcast().into()].contains(&address));
    net.prefix_len() > 0 && !of_all && is_host(address) && !address.is_loopback()
}
