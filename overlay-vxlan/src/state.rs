//! The area value: all segments of one network on one node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{Change, EndpointId, Mac, Mtu, Phase, Refusal, Vni, in_phases, keyed_diff};
use serde::{Deserialize, Serialize};

use crate::{LocalPort, Peer, Segment, Vtep, check};

/// The overlay segments of one network on one node: what is wanted, in the words of RFC 7348.
///
/// A memory backend holds it as it is; a kernel backend lowers it to links, neighbours and forwarding entries.
///
/// ```
/// use overlay_core::{Mac, Memory, Mtu, Vni, reconcile};
/// use overlay_vxlan::{Peer, Segment, State, Vtep};
///
/// let mut segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450)?);
/// let there = Peer { vtep: [192, 0, 2, 2].into(), addresses: [[10, 0, 0, 3].into()].into() };
/// segment.peers.insert(Mac::from_ipv4([10, 0, 0, 3].into()), there);
/// let wanted = State { segments: [(Vni::new(4096)?, segment)].into() };
///
/// let done = reconcile(&mut Memory::<State>::default(), &wanted)?;
/// assert_eq!(
///     done.to_string(),
///     "build      create segment 4096 at 192.0.2.1 port 4789, mtu 1450\n\
///      build      segment 4096: peer 02:42:0a:00:00:03 at 192.0.2.2 with 10.0.0.3\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// One segment for each subnet, by its VNI.
    pub segments: BTreeMap<Vni, Segment>,
}

/// One change of a [`State`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A segment without ports or peers comes into being.
    Create(Vni, Vtep, Mtu),
    /// A segment changes.
    Change(Vni, SegmentStep),
    /// A segment goes, and all in it.
    Remove(Vni),
}

/// One change in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentStep {
    /// The tunnel's end gets other settings; the step's text names those that are not [`Vtep::new`]'s.
    SetVtep(Vtep),
    /// The size of packets changes, on every hop inside the segment.
    SetMtu(Mtu),
    /// The gateway gets an address.
    AddGateway(IpNet),
    /// The gateway loses an address.
    RemoveGateway(IpNet),
    /// An endpoint of this node is plugged in, or changed.
    PutPort(EndpointId, LocalPort),
    /// An endpoint of this node is unplugged.
    RemovePort(EndpointId),
    /// An endpoint moves here: it is plugged in, and its peer is forgotten at once.
    Arrive(EndpointId, LocalPort),
    /// An endpoint moves to another node: it is unplugged, and its peer becomes known at once.
    Depart(Mac, Peer),
    /// An endpoint on another node becomes known, or changes.
    PutPeer(Mac, Peer),
    /// An endpoint on another node is forgotten.
    RemovePeer(Mac),
    /// A VTEP gets copies of broadcast and multicast frames.
    AddFlood(IpAddr),
    /// A VTEP gets no more copies.
    RemoveFlood(IpAddr),
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n ports and peers, whatever changed.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        for change in keyed_diff(&self.segments, &desired.segments) {
            match change {
                Change::Add(vni, new) => {
                    steps.push(Step::Create(*vni, new.vtep, new.mtu));
                    plan_segment(*vni, &Segment::new(new.vtep, new.mtu), new, &mut steps);
                }
                Change::Replace(vni, old, new) => plan_segment(*vni, old, new, &mut steps),
                Change::Remove(vni, _) => steps.push(Step::Remove(*vni)),
            }
        }
        in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(vni, vtep, mtu) => drop(self.segments.insert(*vni, Segment::new(*vtep, *mtu))),
            Step::Change(vni, step) => {
                if let Some(segment) = self.segments.get_mut(vni) {
                    apply_to_segment(segment, step);
                }
            }
            Step::Remove(vni) => drop(self.segments.remove(vni)),
        }
    }

    fn phase(step: &Step) -> Phase {
        use SegmentStep::*;
        match step {
            Step::Create(..) => Phase::Build,
            Step::Change(_, SetVtep(_) | SetMtu(_) | AddGateway(_) | PutPeer(..) | AddFlood(_)) => Phase::Build,
            Step::Change(_, PutPort(..) | Arrive(..)) => Phase::Open,
            Step::Change(_, RemovePort(_) | Depart(..)) => Phase::Close,
            Step::Change(_, RemoveGateway(_) | RemovePeer(_) | RemoveFlood(_)) | Step::Remove(_) => Phase::Dismantle,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        check::segments(&self.segments)
    }
}

fn plan_segment(vni: Vni, old: &Segment, new: &Segment, steps: &mut Vec<Step>) {
    use SegmentStep::*;
    let mut push = |step| steps.push(Step::Change(vni, step));
    if old.vtep != new.vtep {
        push(SetVtep(new.vtep));
    }
    if old.mtu != new.mtu {
        push(SetMtu(new.mtu));
    }
    old.gateways.difference(&new.gateways).for_each(|gateway| push(RemoveGateway(*gateway)));
    new.gateways.difference(&old.gateways).for_each(|gateway| push(AddGateway(*gateway)));
    let here = |segment: &Segment| segment.ports.values().map(|port| port.mac).collect::<BTreeSet<Mac>>();
    let (was_here, is_here) = (here(old), here(new));
    for change in keyed_diff(&old.peers, &new.peers) {
        push(match change {
            Change::Add(mac, peer) if was_here.contains(mac) => Depart(*mac, peer.clone()),
            Change::Add(mac, peer) | Change::Replace(mac, _, peer) => PutPeer(*mac, peer.clone()),
            Change::Remove(mac, _) if is_here.contains(mac) && !was_here.contains(mac) => continue, // to its port
            Change::Remove(mac, _) => RemovePeer(*mac),
        });
    }
    old.flood.difference(&new.flood).for_each(|vtep| push(RemoveFlood(*vtep)));
    new.flood.difference(&old.flood).for_each(|vtep| push(AddFlood(*vtep)));
    let departs = |mac| new.peers.contains_key(mac) && !old.peers.contains_key(mac);
    for change in keyed_diff(&old.ports, &new.ports) {
        push(match change {
            Change::Add(endpoint, port) | Change::Replace(endpoint, _, port) => match old.peers.contains_key(&port.mac)
            {
                true => Arrive(*endpoint, port.clone()),
                false => PutPort(*endpoint, port.clone()),
            },
            Change::Remove(_, LocalPort { mac, .. }) if departs(mac) => continue, // to its peer
            Change::Remove(endpoint, _) => RemovePort(*endpoint),
        });
    }
}

fn apply_to_segment(segment: &mut Segment, step: &SegmentStep) {
    match step {
        SegmentStep::SetVtep(vtep) => segment.vtep = *vtep,
        SegmentStep::SetMtu(mtu) => segment.mtu = *mtu,
        SegmentStep::AddGateway(gateway) => drop(segment.gateways.insert(*gateway)),
        SegmentStep::RemoveGateway(gateway) => drop(segment.gateways.remove(gateway)),
        SegmentStep::PutPort(endpoint, port) => drop(segment.ports.insert(*endpoint, port.clone())),
        SegmentStep::RemovePort(endpoint) => drop(segment.ports.remove(endpoint)),
        SegmentStep::Arrive(endpoint, port) => {
            segment.peers.remove(&port.mac);
            segment.ports.insert(*endpoint, port.clone());
        }
        SegmentStep::Depart(mac, peer) => {
            segment.ports.retain(|_, port| port.mac != *mac);
            segment.peers.insert(*mac, peer.clone());
        }
        SegmentStep::PutPeer(mac, peer) => drop(segment.peers.insert(*mac, peer.clone())),
        SegmentStep::RemovePeer(mac) => drop(segment.peers.remove(mac)),
        SegmentStep::AddFlood(vtep) => drop(segment.flood.insert(*vtep)),
        SegmentStep::RemoveFlood(vtep) => drop(segment.flood.remove(vtep)),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(vni, vtep, mtu) => write!(f, "create segment {vni} at {vtep}, mtu {mtu}"),
            Self::Change(vni, step) => write!(f, "segment {vni}: {step}"),
            Self::Remove(vni) => write!(f, "remove segment {vni}"),
        }
    }
}

impl fmt::Display for SegmentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetVtep(vtep) => write!(f, "set VTEP {vtep}"),
            Self::SetMtu(mtu) => write!(f, "set mtu {mtu}"),
            Self::AddGateway(gateway) => write!(f, "add gateway {gateway}"),
            Self::RemoveGateway(gateway) => write!(f, "remove gateway {gateway}"),
            Self::PutPort(endpoint, port) => {
                write!(f, "plug in {}, {}, as {} with ", endpoint.short(), port.end, port.mac)?;
                list(f, &port.addresses)
            }
            Self::RemovePort(endpoint) => write!(f, "unplug {}", endpoint.short()),
            Self::Arrive(endpoint, port) => {
                write!(f, "plug in {}, {}, as {}, a peer no longer, with ", endpoint.short(), port.end, port.mac)?;
                list(f, &port.addresses)
            }
            Self::Depart(mac, peer) => {
                write!(f, "unplug {mac}, a peer at {} from now on with ", peer.vtep)?;
                list(f, &peer.addresses)
            }
            Self::PutPeer(mac, peer) => {
                write!(f, "peer {mac} at {} with ", peer.vtep)?;
                list(f, &peer.addresses)
            }
            Self::RemovePeer(mac) => write!(f, "forget peer {mac}"),
            Self::AddFlood(vtep) => write!(f, "flood to {vtep}"),
            Self::RemoveFlood(vtep) => write!(f, "no longer flood to {vtep}"),
        }
    }
}

fn list<'a, T: fmt::Display + 'a>(f: &mut fmt::Formatter<'_>, items: impl IntoIterator<Item = &'a T>) -> fmt::Result {
    let mut items = items.into_iter();
    let Some(first) = items.next() else { return f.write_str("no address") };
    write!(f, "{first}")?;
    items.try_for_each(|item| write!(f, ", {item}"))
}
