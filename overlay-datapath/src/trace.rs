//! What would become of a frame, for who asks why.

use std::fmt;
use std::net::IpAddr;

use overlay_core::{EndpointId, Mac, Mtu, Name, Vni};
use overlay_firewall::{Content, Flow};

use crate::Reason;
use crate::content::Contents;
use crate::datapath::{Way, passage};
use crate::tables::{At, PortTable, SegmentTable, Station, Tables, whereabouts};
use crate::tunnel::protected;

/// The way of a frame through a node, as far as tables alone tell: flows that stand are not looked at, so it is judged as one that begins.
///
/// Its text is one line for each hop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// What happens to it, in order.
    pub hops: Vec<Hop>,
}

/// One thing that happens to a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// The firewall lets it pass, or not, by the rule of that id.
    Judged {
        /// Whether it passes.
        passes: bool,
        /// The verdict, as the firewall says it.
        verdict: String,
    },
    /// It asks who has an address, and is told this Ethernet address.
    Answered(Mac),
    /// The gateway answers.
    Gateway(IpAddr),
    /// It is for a service, whose balancer leads it to one of the service's replicas, or answers.
    Service(Name),
    /// Its sender is told that it is longer than this.
    TooBig(Mtu),
    /// It goes from one segment to another.
    Routed(Vni),
    /// It goes to all or many.
    Flooded,
    /// It comes to an endpoint here.
    Port(EndpointId),
    /// It goes to another node, sealed or in the clear.
    Node {
        /// That node's address.
        vtep: IpAddr,
        /// Whether in ESP.
        sealed: bool,
    },
    /// It goes no further.
    Dropped(Reason),
}

impl Trace {
    /// Where it ends.
    pub fn end(&self) -> Option<&Hop> {
        self.hops.last()
    }
}

impl Tables {
    /// What would become of a frame of an endpoint's here, and why. Nothing is changed by it, and nothing counted.
    pub fn trace(&self, from: EndpointId, frame: &[u8]) -> Trace {
        let mut trace = Trace::default();
        let end = self.follow(from, frame, &mut trace.hops).unwrap_or_else(Hop::Dropped);
        trace.hops.push(end);
        trace
    }

    fn follow(&self, from: EndpointId, bytes: &[u8], hops: &mut Vec<Hop>) -> Result<Hop, Reason> {
        let (_, port) = self.port(from).ok_or(Reason::NoPort)?;
        let contents = Contents::read(bytes)?;
        let at = self.at(port).ok_or(Reason::NoPort)?;
        let verdict = at.admits(&contents);
        hops.push(Hop::Judged { passes: verdict.ruling.passes(), verdict: verdict.to_string() });
        if !verdict.ruling.passes() {
            return Err(Reason::Spoofed);
        }
        if let Some(asked) = crate::neighbour::asks_for(&contents.content, bytes)? {
            return whereabouts(self, port, asked).map(Hop::Answered);
        }
        let most = self.most(at, &contents);
        if bytes.len() > ETHERNET + most.get() as usize {
            return Ok(Hop::TooBig(most));
        }
        if let Content::Ip(ip) = &contents.content
            && port.is_vip(ip.destination())
        {
            let service = port.services.iter().flat_map(|services| services.services.iter());
            let mut named = service.filter(|(_, service)| service.vips.contains(&ip.destination()));
            return named.next().map(|(name, _)| Hop::Service(name.clone())).ok_or(Reason::Service);
        }
        self.follow_on(port, &contents, hops)
    }

    fn follow_on(&self, port: &PortTable, contents: &Contents, hops: &mut Vec<Hop>) -> Result<Hop, Reason> {
        let At { segment, network, .. } = self.at(port).ok_or(Reason::NoPort)?;
        let destination = contents.destination;
        if destination.is_multicast() {
            return if segment.flood.is_empty() { Err(Reason::Unflooded) } else { Ok(Hop::Flooded) };
        }
        if destination == port.mac {
            return Err(Reason::NoStation);
        }
        let (segment, station) = match (destination == segment.gateway_mac, &contents.content) {
            (false, _) => (segment, segment.find(destination).ok_or(Reason::NoStation)?),
            (true, Content::Ip(ip)) if segment.is_gateway(ip.destination()) => {
                return Ok(Hop::Gateway(ip.destination()));
            }
            (true, Content::Ip(ip)) => {
                let holder = network.holder(port.segment, ip.destination()).ok_or(Reason::NoRoute)?;
                let other = Some(holder.segment).filter(|to| *to != port.segment);
                let segment = other.and_then(|to| self.segments.get(to)).ok_or(Reason::NoRoute)?;
                hops.push(Hop::Routed(segment.vni));
                (segment, &holder.station)
            }
            (true, _) => return Err(Reason::NoRoute),
        };
        if network.polices {
            if contents.fragment && network.follows {
                return Err(Reason::Fragment);
            }
            let packet = passage(self, &Way { from: &port.device, gate: &port.gate, segment, station }, contents);
            let verdict = network.judge.judge(&packet, Flow::New);
            hops.push(Hop::Judged { passes: verdict.ruling.passes(), verdict: verdict.to_string() });
            if !verdict.ruling.passes() {
                return Err(Reason::Policy);
            }
        }
        self.hand_over(segment, *station)
    }

    fn hand_over(&self, segment: &SegmentTable, station: Station) -> Result<Hop, Reason> {
        match station {
            Station::Port(at) => self.ports.get(at).map(|port| Hop::Port(port.endpoint)).ok_or(Reason::NoPort),
            Station::Vtep(vtep) => {
                let sealed = protected(self, segment, (vtep, segment.vtep.source_ports.first().get()))?.is_some();
                Ok(Hop::Node { vtep, sealed })
            }
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hops.iter().try_for_each(|hop| writeln!(f, "{hop}"))
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Judged { verdict, .. } => f.write_str(verdict),
            Self::Answered(mac) => write!(f, "answered here: it is at {mac}"),
            Self::Gateway(address) => write!(f, "answered here by the gateway {address}"),
            Self::Service(name) => write!(f, "to a replica of {name}"),
            Self::TooBig(mtu) => write!(f, "answered here: the MTU is {mtu}"),
            Self::Routed(vni) => write!(f, "routed to segment {vni}"),
            Self::Flooded => f.write_str("to all"),
            Self::Port(endpoint) => write!(f, "to endpoint {endpoint}"),
            Self::Node { vtep, sealed: true } => write!(f, "to node {vtep}, in ESP"),
            Self::Node { vtep, sealed: false } => write!(f, "to node {vtep}"),
            Self::Dropped(reason) => write!(f, "dropped: {reason}"),
        }
    }
}

const ETHERNET: usize = 14;
