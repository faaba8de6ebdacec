//! Following a packet through what the places hold.

use std::net::IpAddr;

use overlay_core::{EndpointId, IfName, IpFamily, Mac, Name, Port, Vni};
use overlay_crypto::{Datagram, Reason, SaId, SaKey, Verdict};
use overlay_dns::DnsName;
use overlay_firewall::{Content, Flow, Frame, Ip, Packet, Transport};
use overlay_node::Place;
use overlay_vxlan::{Segment, names};

use crate::observed::{Attachment, Observed, ObservedNode, ObservedPlace};
use crate::{Broken, Hop, Trace};

/// The port that is knocked at, and the one that knocks.
const ASKED: u16 = 80;
const ASKING: u16 = 40_000;

impl Observed {
    /// What becomes of a TCP packet that opens a connection from one container to another, which is found by its name, and of the
    /// answer.
    pub fn probe(&self, from: &Name, to: &str) -> Trace {
        let mut trace = Trace::default();
        trace.broken = self
            .resolve(from, to, &mut trace.request)
            .and_then(|address| self.there_and_back(from, address, &mut trace.request, &mut trace.reply))
            .err();
        trace
    }

    /// The same, to an address.
    pub fn probe_address(&self, from: &Name, to: IpAddr) -> Trace {
        let mut trace = Trace::default();
        trace.broken = self.there_and_back(from, to, &mut trace.request, &mut trace.reply).err();
        trace
    }

    fn resolve(&self, from: &Name, to: &str, hops: &mut Vec<Hop>) -> Result<IpAddr, Broken> {
        let (_, node) = self.node_of(from).ok_or_else(|| Broken::NoContainer(from.to_string()))?;
        let view = node.views.as_ref().ok_or(Broken::NoResolver)?.get(from).ok_or(Broken::NoNames)?;
        let name: DnsName = to.parse().map_err(|_| Broken::UnknownName(to.to_owned()))?;
        let addresses = view.addresses(&name).ok_or_else(|| Broken::UnknownName(to.to_owned()))?;
        let address = addresses.into_iter().min().ok_or_else(|| Broken::NoAddress(to.to_owned()))?;
        hops.push(Hop::Name { name: to.to_owned(), address });
        Ok(address)
    }

    fn there_and_back(
        &self,
        from: &Name,
        to: IpAddr,
        request: &mut Vec<Hop>,
        reply: &mut Vec<Hop>,
    ) -> Result<(), Broken> {
        let asking = Transport::Tcp { source: ASKING, destination: ASKED, begins: true };
        let asking = Message { to, transport: asking, flow: Flow::New, source: None };
        let asking = Message { to: self.balance(from, to, request)?, ..asking };
        let to = asking.to;
        if self.has(from, to) {
            // A replica may be picked by itself.
            request.push(Hop::Container(from.clone()));
            reply.push(Hop::Container(from.clone()));
            return Ok(());
        }
        let (source, there) = self.send(from, asking, request)?;
        let answering = Transport::Tcp { source: ASKED, destination: ASKING, begins: false };
        let answering = Message { to: source, transport: answering, flow: Flow::Established, source: Some(to) };
        self.send(&there, answering, reply).map(drop)
    }

    fn has(&self, container: &Name, address: IpAddr) -> bool {
        let Some((_, node)) = self.node_of(container) else { return false };
        let Some(key) = node.containers.get(container) else { return false };
        node.attachments(key).any(|own| own.port.addresses.iter().any(|own| own.addr() == address))
    }

    /// Who gets what a container sends to an address: a replica, if it is a VIP that the container balances.
    fn balance(&self, from: &Name, to: IpAddr, hops: &mut Vec<Hop>) -> Result<IpAddr, Broken> {
        let (_, node) = self.node_of(from).ok_or_else(|| Broken::NoContainer(from.to_string()))?;
        let held = node.places.get(&Place::Container(from.clone()));
        let service = held.and_then(|held| held.lb.services.values().find(|service| service.vips.contains(&to)));
        let Some(service) = service else { return Ok(to) };
        let (_, _, replica) = service.takers(IpFamily::of(to)).next().ok_or(Broken::NoReplica(to))?;
        hops.push(Hop::Service { vip: to, replica });
        Ok(replica)
    }

    /// Sends one packet. Gives the address it was sent from, and the container it came to.
    fn send(&self, from: &Name, message: Message, hops: &mut Vec<Hop>) -> Result<(IpAddr, Name), Broken> {
        let to = message.to;
        let (number, node) = self.node_of(from).ok_or_else(|| Broken::NoContainer(from.to_string()))?;
        let (out, via) = route(node, from, to)?;
        hops.push(Hop::Route { to, interface: out.interface, via });
        let source = message.source.or_else(|| source_address(&out, to)).ok_or(Broken::NoRoute(to))?;
        let ip = Ip::between(source, to, message.transport).ok_or(Broken::NoRoute(to))?;
        let sent = Sent { node: number, vni: out.vni, mac: out.port.mac, ip, flow: message.flow };
        let next = via.unwrap_or(to);
        let station = neighbour(out.segment, next).ok_or(Broken::NoNeighbour(next))?;
        hops.push(Hop::Neighbour { address: next, mac: station.mac(out.vni) });
        let (container, addresses) = self.carry(&sent, &out, station, hops)?;
        if !addresses.contains(&to) {
            return Err(Broken::Stranger { container: container.cloned(), address: to });
        }
        let container = container.ok_or(Broken::Stranger { container: None, address: to })?;
        hops.push(Hop::Container(container.clone()));
        Ok((source, container.clone()))
    }

    /// Through the sandbox's bridge, to whom it is for.
    fn carry(
        &self,
        sent: &Sent,
        out: &Attachment<'_>,
        station: Station,
        hops: &mut Vec<Hop>,
    ) -> Result<(Option<&Name>, Vec<IpAddr>), Broken> {
        let node = self.nodes.get(sent.node).ok_or(Broken::NoSegment { node: sent.node, vni: sent.vni })?;
        let port = port_name(out.endpoint)?;
        match station {
            Station::Gateway(address) => {
                node.bridged(sent, out.network, (port, None))?;
                Err(Broken::Gateway(address))
            }
            Station::Here(endpoint, _) => {
                hops.push(node.bridged(sent, out.network, (port, Some(port_name(endpoint)?)))?);
                Ok(node.arrive(out.segment, endpoint))
            }
            Station::There(mac, vtep) => {
                hops.push(node.bridged(sent, out.network, (port, Some(tunnel_name(out.vni)?)))?);
                self.tunnel(sent, (out.segment, vtep), mac, hops)
            }
        }
    }

    /// Through the underlay, and to the port of the other node's segment that has the Ethernet address.
    fn tunnel(
        &self,
        sent: &Sent,
        (segment, vtep): (&Segment, IpAddr),
        mac: Mac,
        hops: &mut Vec<Hop>,
    ) -> Result<(Option<&Name>, Vec<IpAddr>), Broken> {
        let (vni, local) = (sent.vni, segment.vtep.local);
        let there = self.node_at(vtep).ok_or(Broken::NoVtep(vtep))?;
        let node = self.nodes.get(there).ok_or(Broken::NoVtep(vtep))?;
        let udp = Transport::Udp { source: 50_000, destination: segment.vtep.port.get(), vni: vni.get() };
        let outer = Ip::between(local, vtep, udp).ok_or(Broken::NoVtep(vtep))?;
        let port = segment.vtep.port;
        let datagram = Datagram { source: local, destination: vtep, source_port: 50_000, destination_port: port.get() };
        let here = self.nodes.get(sent.node).ok_or(Broken::NoVtep(local))?;
        let sealed = here.seals(sent.node, &datagram)?;
        let as_sent = |packet: Packet| if sealed.is_some() { packet.secured() } else { packet };
        let underlay = IfName::new("eth0").map_err(|_| Broken::NoVtep(vtep))?;
        here.host(sent.node, &as_sent(Packet::leaving(Some(underlay), outer)))?;
        if self.cut.contains(&(sent.node, there)) {
            return Err(Broken::Underlay { from: sent.node, to: there });
        }
        node.opens(there, &datagram, sealed.as_ref())?;
        node.host(there, &as_sent(Packet::arriving(underlay, outer)))?;
        let spi = sealed.map(|(id, _)| id.spi);
        hops.push(Hop::Tunnel { vni, from: local, to: vtep, sealed: spi });
        let none = Broken::NoSegment { node: there, vni };
        let (network, _, segment, _) = node
            .segments()
            .find(|(_, of, other, _)| *of == vni && hears(other, vtep, segment.vtep.port))
            .ok_or(none)?;
        let port = segment.ports.iter().find(|(_, port)| port.mac == mac).map(|(endpoint, _)| *endpoint);
        let endpoint = port.ok_or(Broken::NoPort { node: there, mac })?;
        let sent = Sent { node: there, ..*sent };
        hops.push(node.bridged(&sent, network, (tunnel_name(vni)?, Some(port_name(endpoint)?)))?);
        Ok(node.arrive(segment, endpoint))
    }
}

/// Whether datagrams to this VTEP and port reach the segment.
fn hears(segment: &Segment, vtep: IpAddr, port: Port) -> bool {
    segment.vtep.local == vtep && segment.vtep.port == port
}

/// A packet that a container sends.
#[derive(Debug, Clone, Copy)]
struct Message {
    to: IpAddr,
    transport: Transport,
    flow: Flow,
    /// From which of its addresses; from the one that fits if `None`.
    source: Option<IpAddr>,
}

/// A packet on its way, at some node.
#[derive(Debug, Clone, Copy)]
struct Sent {
    node: usize,
    vni: Vni,
    /// The sender's Ethernet address.
    mac: Mac,
    ip: Ip,
    flow: Flow,
}

/// Who has an address in a segment, as one node knows it.
#[derive(Debug, Clone, Copy)]
enum Station {
    Gateway(IpAddr),
    Here(EndpointId, Mac),
    There(Mac, IpAddr),
}

impl Station {
    const fn mac(&self, vni: Vni) -> Mac {
        match self {
            Self::There(mac, _) | Self::Here(_, mac) => *mac,
            Self::Gateway(_) => names::gateway_mac(vni),
        }
    }
}

impl ObservedNode {
    /// Asks the sandbox's firewall whether a frame may pass from one port of the bridge to another.
    fn bridged(
        &self,
        sent: &Sent,
        network: overlay_core::NetworkId,
        (from, to): (IfName, Option<IfName>),
    ) -> Result<Hop, Broken> {
        let bridge = names::bridge(sent.vni).map_err(|_| Broken::NoSegment { node: sent.node, vni: sent.vni })?;
        let place =
            self.places.get(&Place::Network(network)).ok_or(Broken::NoSegment { node: sent.node, vni: sent.vni })?;
        let frame = Frame { port: from, out: to, source: sent.mac };
        place.judged(sent.node, &Packet::bridged(bridge, frame, Content::Ip(sent.ip)), sent.flow)?;
        Ok(Hop::Bridge { node: sent.node, bridge, from, to: to.unwrap_or(bridge) })
    }

    /// Asks the host's firewall.
    fn host(&self, number: usize, packet: &Packet) -> Result<(), Broken> {
        let Some(host) = self.places.get(&Place::Host) else { return Ok(()) };
        host.judged(number, packet, Flow::New)
    }

    /// By which association and key the host seals a datagram that it sends; `None` if it sends it as it is.
    fn seals(&self, number: usize, datagram: &Datagram) -> Result<Option<(SaId, SaKey)>, Broken> {
        let Some(host) = self.places.get(&Place::Host) else { return Ok(None) };
        match host.crypto.outgoing(datagram) {
            Verdict::Pass => Ok(None),
            Verdict::Seal(id) | Verdict::Open(id) => Ok(host.crypto.sas.get(&id).map(|sa| (id, sa.key.clone()))),
            Verdict::Drop(reason) => Err(Broken::Unprotected { node: number, reason }),
        }
    }

    /// Whether the host takes what arrives, in the clear or sealed.
    fn opens(&self, number: usize, datagram: &Datagram, sealed: Option<&(SaId, SaKey)>) -> Result<(), Broken> {
        let nothing = overlay_crypto::State::default();
        let crypto = self.places.get(&Place::Host).map_or(&nothing, |host| &host.crypto);
        let unprotected = |reason| Broken::Unprotected { node: number, reason };
        let verdict = match sealed {
            None => crypto.incoming(datagram),
            Some((id, key)) => match crypto.sealed(id.destination, id.spi) {
                Verdict::Open(id) if crypto.sas.get(&id).is_some_and(|sa| sa.key != *key) => {
                    return Err(Broken::ForeignKey { node: number, spi: id.spi });
                }
                Verdict::Open(id) => crypto.opened(&id, datagram),
                verdict => verdict,
            },
        };
        match verdict {
            Verdict::Pass => Ok(()),
            Verdict::Drop(reason) => Err(unprotected(reason)),
            Verdict::Seal(_) | Verdict::Open(_) => Err(unprotected(Reason::OfAnother)),
        }
    }

    /// Which container is behind an endpoint's port, and which addresses it has there.
    fn arrive(&self, segment: &Segment, endpoint: EndpointId) -> (Option<&Name>, Vec<IpAddr>) {
        let port = segment.ports.get(&endpoint);
        let addresses = port.into_iter().flat_map(|port| &port.addresses).map(|net| net.addr()).collect();
        (port.and_then(|port| self.container_at(&port.end)), addresses)
    }
}

impl ObservedPlace {
    fn judged(&self, node: usize, packet: &Packet, flow: Flow) -> Result<(), Broken> {
        let verdict = self.judge.judge(packet, flow);
        if verdict.ruling.passes() { Ok(()) } else { Err(Broken::Dropped { node, rule: verdict.rule.to_string() }) }
    }
}

/// Which of a container's interfaces a packet leaves by, and through which router.
fn route<'o>(node: &'o ObservedNode, from: &Name, to: IpAddr) -> Result<(Attachment<'o>, Option<IpAddr>), Broken> {
    let namespace = node.containers.get(from).ok_or_else(|| Broken::NoContainer(from.to_string()))?;
    let attachments: Vec<Attachment<'o>> = node.attachments(namespace).collect();
    let on_link = attachments.iter().flat_map(|it| it.port.addresses.iter().map(move |net| (net.trunc(), *it, None)));
    let routes = node.places.get(&Place::Container(from.clone())).map(|held| &held.routes.to);
    let given = routes.into_iter().flatten().filter_map(|(net, route)| {
        let by = attachments.iter().find(|it| it.interface == route.interface)?;
        Some((*net, *by, route.via))
    });
    let matching = on_link.chain(given).filter(|(net, _, _)| net.contains(&to));
    let (_, by, via) =
        matching.max_by_key(|(net, _, via)| (net.prefix_len(), via.is_none())).ok_or(Broken::NoRoute(to))?;
    Ok((by, via))
}

/// The address a container sends from: that which shares the subnet if one does.
fn source_address(out: &Attachment<'_>, to: IpAddr) -> Option<IpAddr> {
    let of_family = || out.port.addresses.iter().filter(|net| IpFamily::of(net.addr()) == IpFamily::of(to));
    of_family().find(|net| net.contains(&to)).or_else(|| of_family().next()).map(|net| net.addr())
}

/// Who has an address, by what answers ARP and neighbour discovery in the sandbox.
fn neighbour(segment: &Segment, address: IpAddr) -> Option<Station> {
    if segment.gateways.iter().any(|gateway| gateway.addr() == address) {
        return Some(Station::Gateway(address));
    }
    let here = segment.ports.iter().find(|(_, port)| port.addresses.iter().any(|net| net.addr() == address));
    if let Some((endpoint, port)) = here {
        return Some(Station::Here(*endpoint, port.mac));
    }
    let peer = segment.peers.iter().find(|(_, peer)| peer.addresses.contains(&address));
    peer.map(|(mac, peer)| Station::There(*mac, peer.vtep))
}

fn port_name(endpoint: EndpointId) -> Result<IfName, Broken> {
    names::port(endpoint).map_err(|_| Broken::NoContainer(endpoint.to_string()))
}

fn tunnel_name(vni: Vni) -> Result<IfName, Broken> {
    names::tunnel(vni).map_err(|_| Broken::NoSegment { node: 0, vni })
}
