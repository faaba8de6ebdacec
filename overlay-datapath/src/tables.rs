//! Area values as packets meet them: indices, made once.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Mac, Mtu, NetworkId, Refusal, State as _, Vni, is_host_address};
use overlay_crypto::Direction;
use overlay_firewall::{BridgePort, Content, Frame, Gate, Ip, Judge, Packet, Transport, TunnelGate, Verdict};
use overlay_vxlan::{LocalPort, PortEnd, Segment, Vtep, names};
use rustc_hash::FxBuildHasher;

use crate::addresses::Addresses;
use crate::content::Contents;
use crate::guards::Guards;
use crate::{Reason, Sandbox, Wanted};

/// A map that is only ever looked into. Its hash is not keyed: what is in it was configured, not sent by strangers.
pub(crate) type Map<K, V> = HashMap<K, V, FxBuildHasher>;

/// What the places of a node hold, as packets meet it. Made once, then only looked into: whatever reads it may share one.
///
/// A lookup costs the same for one endpoint as for a hundred thousand. The default holds nothing, and carries nothing.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    pub(crate) crypto: overlay_crypto::State,
    /// What the former says of datagrams.
    pub(crate) guards: Guards,
    pub(crate) host: Judge,
    pub(crate) networks: Vec<NetworkTable>,
    pub(crate) segments: Vec<SegmentTable>,
    pub(crate) ports: Vec<PortTable>,
    by_vni: Map<u32, usize>,
    by_endpoint: Map<EndpointId, usize>,
    /// What is plugged in as a gateway.
    gateways: Map<EndpointId, PortTable>,
    /// The node's own addresses: a few.
    vteps: Vec<IpAddr>,
    /// UDP ports at which ESP arrives.
    pub(crate) esp_ports: Map<u16, ()>,
    /// Who may send ESP; anybody where it is `None`.
    pub(crate) esp_members: Option<BTreeSet<IpAddr>>,
}

/// A network: its policy, and who is where in its segments.
#[derive(Debug, Clone)]
pub(crate) struct NetworkTable {
    pub(crate) id: NetworkId,
    pub(crate) judge: Judge,
    /// Whether it is asked about frames from one port to another.
    pub(crate) polices: bool,
    /// Whether it has a policy, which follows flows.
    pub(crate) follows: bool,
    /// The least MTU of its segments.
    pub(crate) least_mtu: Option<Mtu>,
    /// Who has each address of an endpoint's.
    addresses: Addresses<Holder>,
    /// Whether packets go from one segment to another.
    routed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SegmentTable {
    pub(crate) vni: Vni,
    pub(crate) network: usize,
    pub(crate) vtep: Vtep,
    pub(crate) mtu: Mtu,
    pub(crate) gateways: Box<[IpNet]>,
    /// The gateway's Ethernet address, at which VIPs are found too.
    pub(crate) gateway_mac: Mac,
    /// What is plugged in as the gateway.
    pub(crate) gateway: Option<EndpointId>,
    /// By the number of their Ethernet address.
    stations: Map<u64, Station>,
    pub(crate) flood: Box<[IpAddr]>,
    pub(crate) ports: Vec<usize>,
    pub(crate) bridge: IfName,
    pub(crate) tunnel: IfName,
    /// What the network's firewall says of who speaks at the tunnel's end.
    pub(crate) gate: Gate,
    /// Nodes whose datagrams the host's firewall lets in for sure: sealed ones, where nothing passes in the clear.
    pub(crate) senders: TunnelGate,
    /// Whether nothing of it passes in the clear.
    pub(crate) sealed: bool,
}

/// Who has an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) segment: usize,
    pub(crate) mac: Mac,
    pub(crate) station: Station,
}

/// Where a station is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Station {
    /// At a port of this node's, by its index.
    Port(usize),
    /// At another node.
    Vtep(IpAddr),
}

#[derive(Debug, Clone)]
pub(crate) struct PortTable {
    pub(crate) endpoint: EndpointId,
    pub(crate) segment: usize,
    pub(crate) device: IfName,
    /// What the network's firewall says of who speaks there.
    pub(crate) gate: Gate,
    pub(crate) mac: Mac,
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) services: Option<Arc<overlay_lb::State>>,
    vips: Addresses<()>,
}

/// A port with what it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'t> {
    pub(crate) port: &'t PortTable,
    pub(crate) segment: &'t SegmentTable,
    pub(crate) network: &'t NetworkTable,
}

impl Tables {
    /// Tables for what is wanted. O(n) for n endpoints, members and services.
    ///
    /// # Errors
    /// What makes no sense, by name: an area's value that fails its own check, a VNI or endpoint that is there twice, a published service.
    pub fn new(wanted: &Wanted) -> Result<Self, Refusal> {
        wanted.crypto.check()?;
        wanted.host.check()?;
        let (guards, host) = (Guards::new(&wanted.crypto), Judge::new(&wanted.host));
        let mut tables = Self { crypto: wanted.crypto.clone(), guards, host, ..Self::default() };
        let incoming = wanted.crypto.sas.values().filter(|sa| sa.direction == Direction::In);
        tables.esp_ports = incoming.filter_map(|sa| Some((sa.udp?.destination.get(), ()))).collect();
        tables.esp_members = wanted.host.esp.clone();
        for (id, sandbox) in &wanted.networks {
            tables.add_network(wanted, (*id, sandbox))?;
        }
        wanted.gateways.iter().try_for_each(|(vni, gateway)| tables.add_gateway(*vni, *gateway))?;
        Ok(tables)
    }

    /// The network identifiers of the segments, as they were given.
    pub fn segments(&self) -> impl Iterator<Item = Vni> {
        self.segments.iter().map(|segment| segment.vni)
    }

    /// The endpoints that are here, and what is plugged in as gateways.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.ports.iter().map(|port| port.endpoint).chain(self.gateways.keys().copied())
    }

    pub(crate) fn port(&self, endpoint: EndpointId) -> Option<(usize, &PortTable)> {
        let at = *self.by_endpoint.get(&endpoint)?;
        Some((at, self.ports.get(at)?))
    }

    /// What is plugged in as a gateway, as a port, with its segment.
    pub(crate) fn gateway(&self, endpoint: EndpointId) -> Option<(&PortTable, &SegmentTable)> {
        let port = self.gateways.get(&endpoint)?;
        Some((port, self.segments.get(port.segment)?))
    }

    /// Where each of these networks is in others, if it is there. O(n log n) for n networks.
    pub(crate) fn places_in(&self, others: &Self) -> Vec<Option<usize>> {
        // They are in the order of their ids.
        let place = |network: &NetworkTable| others.networks.binary_search_by_key(&network.id, |other| other.id).ok();
        self.networks.iter().map(place).collect()
    }

    pub(crate) fn segment_of(&self, vni: Vni) -> Option<&SegmentTable> {
        self.segments.get(*self.by_vni.get(&vni.get())?)
    }

    pub(crate) fn is_vtep(&self, address: IpAddr) -> bool {
        self.vteps.contains(&address)
    }

    pub(crate) fn network(&self, segment: &SegmentTable) -> Option<&NetworkTable> {
        self.networks.get(segment.network)
    }

    /// How long a packet of a port's may be: its segment's MTU, and that of the segment it is routed to. Where a service's replica is
    /// is not known before the packet is translated, when its sender would not know it again: so that must fit all segments.
    #[inline]
    pub(crate) fn most(&self, at: At<'_>, contents: &Contents) -> Mtu {
        let At { port, segment, network } = at;
        let (Content::Ip(ip), true) = (&contents.content, network.routed) else { return segment.mtu };
        let to = ip.destination();
        if port.is_vip(to) {
            return network.least_mtu.unwrap_or(segment.mtu);
        }
        let there = network.addresses.get(to).and_then(|holder| self.segments.get(holder.segment));
        there.map_or(segment.mtu, |there| there.mtu.min(segment.mtu))
    }

    pub(crate) fn at<'t>(&'t self, port: &'t PortTable) -> Option<At<'t>> {
        let segment = self.segments.get(port.segment)?;
        Some(At { port, segment, network: self.networks.get(segment.network)? })
    }

    fn add_network(&mut self, wanted: &Wanted, (id, sandbox): (NetworkId, &Sandbox)) -> Result<(), Refusal> {
        sandbox.vxlan.check()?;
        sandbox.firewall.check()?;
        let gateways = |segment: &&Segment| !segment.gateways.is_empty();
        let network = NetworkTable {
            id,
            judge: Judge::new(&sandbox.firewall),
            follows: sandbox.firewall.policy.is_active(),
            least_mtu: sandbox.vxlan.segments.values().map(|segment| segment.mtu).min(),
            polices: sandbox.firewall.policy.is_active() || sandbox.firewall.ports.values().any(isolates),
            addresses: Addresses::default(),
            routed: sandbox.vxlan.segments.values().filter(gateways).count() > 1,
        };
        self.networks.push(network);
        for (vni, segment) in &sandbox.vxlan.segments {
            self.add_segment(wanted, *vni, segment)?;
        }
        Ok(())
    }

    fn add_segment(&mut self, wanted: &Wanted, vni: Vni, segment: &Segment) -> Result<(), Refusal> {
        let (at, vtep, tunnel) = (self.segments.len(), segment.vtep, names::tunnel(vni)?);
        if self.by_vni.insert(vni.get(), at).is_some() {
            return Err(Refusal::new(format!("segment {vni}"), "its VNI", "another network here has it"));
        }
        if !self.is_vtep(vtep.local) {
            self.vteps.push(vtep.local);
        }
        let encrypted = wanted.host.tunnels.get(&vtep.port).is_some_and(|tunnel| tunnel.encrypted.contains(&vni));
        let mut table = SegmentTable {
            vni,
            network: self.networks.len().saturating_sub(1),
            vtep,
            mtu: segment.mtu,
            gateways: segment.gateways.iter().copied().collect(),
            gateway_mac: names::gateway_mac(vni),
            gateway: None,
            stations: Map::default(),
            flood: segment.flood.iter().copied().collect(),
            ports: Vec::new(),
            bridge: names::bridge(vni)?,
            tunnel,
            gate: self.gate(tunnel),
            senders: TunnelGate::default(),
            sealed: encrypted || wanted.crypto.ports.contains(&vtep.port),
        };
        table.senders = table
            .asked(vtep.local, 0, table.sealed)
            .map_or_else(TunnelGate::default, |asked| self.host.tunnel_gate(&asked));
        for (endpoint, port) in &segment.ports {
            self.add_port(wanted, (at, &mut table), *endpoint, port)?;
        }
        for (mac, peer) in &segment.peers {
            let station = Station::Vtep(peer.vtep);
            table.stations.insert(number(*mac), station);
            self.add_addresses(Holder { segment: at, mac: *mac, station }, peer.addresses.iter().copied());
        }
        self.segments.push(table);
        Ok(())
    }

    fn add_port(
        &mut self,
        wanted: &Wanted,
        (segment, table): (usize, &mut SegmentTable),
        endpoint: EndpointId,
        port: &LocalPort,
    ) -> Result<(), Refusal> {
        let at = self.ports.len();
        let refuse = |reason| Err(Refusal::new(format!("endpoint {endpoint}"), "its port", reason));
        if self.by_endpoint.insert(endpoint, at).is_some() {
            return refuse("it is plugged in elsewhere here, too");
        }
        let services = wanted.services.get(&endpoint).cloned();
        for service in services.iter().flat_map(|services| services.services.values()) {
            if service.is_published() {
                return refuse("one of its services is published, which a machine with addresses of its own does");
            }
        }
        services.as_ref().map_or(Ok(()), |services| services.check())?;
        let device = match port.end {
            PortEnd::Namespace { .. } => names::port(endpoint)?,
            PortEnd::Tap { interface } => interface,
        };
        table.stations.insert(number(port.mac), Station::Port(at));
        table.ports.push(at);
        let holder = Holder { segment, mac: port.mac, station: Station::Port(at) };
        self.add_addresses(holder, port.addresses.iter().map(IpNet::addr));
        let vips = services.iter().flat_map(|services| services.services.values());
        let vips = vips.flat_map(|service| service.vips.iter()).map(|vip| (*vip, ())).collect();
        let addresses = port.addresses.iter().map(IpNet::addr).chain([port.mac.link_local().into()]).collect();
        let gate = self.gate(device);
        self.ports.push(PortTable { endpoint, segment, device, gate, mac: port.mac, addresses, services, vips });
        Ok(())
    }

    fn add_gateway(&mut self, vni: Vni, endpoint: EndpointId) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal::new(format!("the gateway of segment {vni}"), endpoint.to_string(), reason));
        let Some((at, table)) = self.by_vni.get(&vni.get()).and_then(|at| Some((*at, self.segments.get_mut(*at)?)))
        else {
            return refuse("there is no such segment here");
        };
        if self.by_endpoint.contains_key(&endpoint) {
            return refuse("it is an endpoint of a network");
        }
        let mac = table.gateway_mac;
        let addresses = table.gateways.iter().map(IpNet::addr).chain([mac.link_local().into()]).collect();
        let (device, gate, vips) = (table.bridge, Gate::default(), Addresses::default());
        let port = PortTable { endpoint, segment: at, device, gate, mac, addresses, services: None, vips };
        table.gateway = Some(endpoint);
        match self.gateways.insert(endpoint, port) {
            None => Ok(()),
            Some(_) => refuse("it is that of another segment"),
        }
    }

    /// What the firewall of the last network says of who speaks at a port.
    fn gate(&self, port: IfName) -> Gate {
        self.networks.last().map(|network| network.judge.gate(port)).unwrap_or_default()
    }

    /// An endpoint with IPv6 has its link-local address, too.
    fn add_addresses(&mut self, holder: Holder, addresses: impl Iterator<Item = IpAddr>) {
        let Some(network) = self.networks.last_mut() else { return };
        for address in addresses {
            network.addresses.insert(address, holder);
            if address.is_ipv6() {
                network.addresses.insert(holder.mac.link_local().into(), holder);
            }
        }
    }
}

const fn isolates(port: &BridgePort) -> bool {
    matches!(port, BridgePort::Pinned(pin) if pin.isolated)
}

impl<'t> At<'t> {
    /// What the firewall says of a frame at the port where it comes in, before anybody knows where it goes.
    #[inline(always)]
    pub(crate) fn admits(self, contents: &Contents) -> Verdict<'t> {
        let frame = Frame { port: self.port.device, out: None, source: contents.source };
        let (from, content) = (Some(self.segment.bridge), contents.content);
        let packet = Packet { frame: Some(frame), from, to: None, content, secured: false };
        self.network.judge.judge_at(&self.port.gate, &packet, overlay_firewall::Flow::New)
    }
}

impl NetworkTable {
    /// Who has an address, seen from a segment: a station there, or one of another segment that packets are routed to.
    pub(crate) fn holder(&self, segment: usize, address: IpAddr) -> Option<&Holder> {
        let found = self.addresses.get(address)?;
        (found.segment == segment || self.routed && !is_on_link(address)).then_some(found)
    }
}

const fn is_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl SegmentTable {
    /// A datagram of it that arrives, as the host's firewall sees it; nothing if its source is of another family than its VTEP.
    #[inline(always)]
    pub(crate) fn asked(&self, source: IpAddr, source_port: u16, sealed: bool) -> Option<Packet> {
        let Vtep { local, port, device, .. } = self.vtep;
        let transport = Transport::Udp { source: source_port, destination: port.get(), vni: self.vni.get() };
        let asked = Packet::arriving(device.unwrap_or(self.bridge), Ip::between(source, local, transport)?);
        Some(if sealed { asked.secured() } else { asked })
    }

    #[inline]
    pub(crate) fn find(&self, mac: Mac) -> Option<&Station> {
        self.stations.get(&number(mac))
    }

    pub(crate) fn is_gateway(&self, address: IpAddr) -> bool {
        self.gateways.iter().any(|gateway| gateway.addr() == address)
    }

    /// The gateway's address of the family of another.
    pub(crate) fn gateway_beside(&self, address: IpAddr) -> Option<IpAddr> {
        self.gateways.iter().map(IpNet::addr).find(|gateway| gateway.is_ipv4() == address.is_ipv4())
    }
}

impl PortTable {
    pub(crate) fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.get(address).is_some()
    }

    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}

/// An Ethernet address as a number: that is hashed at once.
#[inline(always)]
const fn number(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// Who says in its neighbours' tables where an address is: whoever is there, the gateway for itself and VIPs.
pub(crate) fn whereabouts(tables: &Tables, port: &PortTable, address: IpAddr) -> Result<Mac, Reason> {
    let At { segment, network, .. } = tables.at(port).ok_or(Reason::NoPort)?;
    if segment.is_gateway(address) || port.is_vip(address) {
        return Ok(segment.gateway_mac);
    }
    if port.has(address) || !is_host_address(address) {
        return Err(Reason::Settled);
    }
    match network.addresses.get(address) {
        Some(holder) if holder.segment == port.segment => Ok(holder.mac),
        _ => Err(Reason::NoRoute),
    }
}
