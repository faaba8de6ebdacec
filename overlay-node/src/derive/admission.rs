//! Which endpoints of a network there is room for: each with an address of its own.

use std::collections::BTreeMap;

use overlay_core::{EndpointId, Mac, NodeId};

use super::Footing;
use super::claim::{Claim, Taken, Unfit};
use super::free::Free;
use crate::{Knowledge, LocalEndpoint, NodeFacts, RemoteEndpoint, Section, Standing};

/// The endpoints of a network that are in effect here, and what each has.
///
/// What is plugged in here comes first, then what other nodes say, each in the order of ids: of two that say they have one
/// address, the first has it.
#[derive(Debug, Clone)]
pub(super) struct Admission<'k> {
    /// In the order of their ids.
    pub(super) ports: Vec<(EndpointId, &'k LocalEndpoint, Claim<'k>)>,
    /// In the order of their ids.
    pub(super) peers: Vec<Peer<'k>>,
    /// The peers' Ethernet addresses in order, and where among the peers each is.
    by_mac: Vec<(Mac, usize)>,
    /// Who is left out, or an address of whom.
    pub(super) unfit: BTreeMap<EndpointId, Unfit>,
    pub(super) taken: Taken,
}

/// An endpoint elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Peer<'k> {
    pub(super) id: EndpointId,
    pub(super) remote: &'k RemoteEndpoint,
    /// Whether its node is, for sure.
    pub(super) alive: bool,
    pub(super) claim: Claim<'k>,
}

impl<'k> Admission<'k> {
    pub(super) fn of(knowledge: &'k Knowledge, section: &'k Section, footing: &Footing) -> Self {
        let mut admission = Self::local(section, footing);
        let (mut peers, mut unfit) = (Vec::with_capacity(section.remote.len()), Vec::new());
        let apart = !section.local.keys().any(|id| section.remote.contains_key(id));
        let others = section.remote.iter().filter(|(id, _)| apart || !section.local.contains_key(id));
        // Few instructions for each at first, so that what is far away in memory is fetched for many at once.
        let (nodes, free) = (Nodes::of(knowledge, footing), Free::of(section));
        let others: Vec<_> = others.map(|(id, remote)| (*id, &**remote, nodes.get(remote.node))).collect();
        for (id, remote, node) in others {
            match node.and_then(|node| Peer::of(&free, node, (id, remote))) {
                Ok((peer, why)) => {
                    peers.push(peer);
                    unfit.extend(why.map(|why| (id, why)));
                }
                Err(why) => unfit.push((id, why)),
            }
        }
        admission.unfit.extend(unfit);
        admission.admit(peers);
        admission
    }

    /// As if there were no other nodes. O(what is here).
    pub(super) fn local(section: &'k Section, footing: &Footing) -> Self {
        let (taken, free) = (Taken::of(section, footing.ground), Free::of(section));
        let mut admission =
            Self { ports: Vec::new(), peers: Vec::new(), by_mac: Vec::new(), unfit: BTreeMap::new(), taken };
        for (id, local) in &section.local {
            let claim = Claim::of_local(section, &free, footing.ground, *id, local);
            match claim.and_then(|claim| admission.taken.conflict(&claim).map_or(Ok(claim), Err)) {
                Ok(claim) => {
                    admission.taken.take(&claim);
                    admission.ports.push((*id, local, claim));
                }
                Err(unfit) => drop(admission.unfit.insert(*id, unfit)),
            }
        }
        admission
    }

    /// Peers in the order of their Ethernet addresses.
    pub(super) fn peers_by_mac(&self) -> impl Iterator<Item = &Peer<'k>> {
        self.by_mac.iter().filter_map(|(_, at)| self.peers.get(*at))
    }

    pub(super) fn claim(&self, id: EndpointId) -> Option<&Claim<'k>> {
        let port = || Some(&self.ports.get(self.ports.binary_search_by_key(&id, |port| port.0).ok()?)?.2);
        let peer = || Some(&self.peers.get(self.peers.binary_search_by_key(&id, |peer| peer.id).ok()?)?.claim);
        port().or_else(peer)
    }

    /// Admits endpoints elsewhere: all at once if no two have the same, which is the rule; else one by one.
    fn admit(&mut self, peers: Vec<Peer<'k>>) {
        let by_mac = by_mac(&peers);
        let claims = by_mac.iter().filter_map(|(_, at)| peers.get(*at)).map(|peer| &peer.claim);
        if self.taken.take_all(&by_mac, claims) {
            (self.peers, self.by_mac) = (peers, by_mac);
            return;
        }
        for peer in peers {
            self.settle(peer);
        }
        self.by_mac = self::by_mac(&self.peers);
    }

    /// An endpoint elsewhere has those of its addresses that nobody has; of the others, one is told.
    fn settle(&mut self, mut peer: Peer<'k>) {
        let claim = &mut peer.claim;
        if self.taken.has_mac(claim.mac) {
            self.unfit.insert(peer.id, Unfit::MacTaken(claim.mac));
            return;
        }
        for address in claim.retain(|address| !self.taken.has(address)) {
            self.unfit.insert(peer.id, Unfit::AddressTaken(address));
        }
        if !claim.addresses.is_empty() {
            self.taken.take(claim);
            self.peers.push(peer);
        }
    }
}

impl<'k> Peer<'k> {
    /// If there were no other. It has those of its addresses that an endpoint of the network can have; of the others, one is told.
    pub(super) fn of(
        free: &Free<'_>,
        node: &NodeFacts,
        (id, remote): (EndpointId, &'k RemoteEndpoint),
    ) -> Result<(Self, Option<Unfit>), Unfit> {
        let (claim, unfit) = Claim::of_remote(free, node.vtep, remote)?;
        Ok((Self { id, remote, alive: node.standing == Standing::Alive, claim }, unfit))
    }
}

/// The other nodes that are reached from here, by their ids as numbers: thousands of endpoints are on a few of them.
struct Nodes<'k>(Vec<(u128, &'k NodeFacts)>);

impl<'k> Nodes<'k> {
    fn of(knowledge: &'k Knowledge, footing: &Footing) -> Self {
        let others = knowledge.nodes.iter().filter(|(id, facts)| **id != knowledge.me && footing.reaches(facts));
        Self(others.map(|(id, facts)| (u128::from_be_bytes(id.to_bytes()), facts)).collect())
    }

    fn get(&self, id: NodeId) -> Result<&'k NodeFacts, Unfit> {
        let id = u128::from_be_bytes(id.to_bytes());
        let at = self.0.binary_search_by_key(&id, |(id, _)| *id);
        at.ok().and_then(|at| Some(self.0.get(at)?.1)).ok_or(Unfit::Node)
    }
}

/// The node that an endpoint elsewhere is on, if it is reached from here.
pub(super) fn node<'k>(
    knowledge: &'k Knowledge,
    footing: &Footing,
    remote: &RemoteEndpoint,
) -> Result<&'k NodeFacts, Unfit> {
    let facts = knowledge.nodes.get(&remote.node).filter(|_| remote.node != knowledge.me);
    facts.filter(|facts| footing.reaches(facts)).ok_or(Unfit::Node)
}

fn by_mac(peers: &[Peer<'_>]) -> Vec<(Mac, usize)> {
    let mut by_mac: Vec<_> = peers.iter().map(|peer| peer.claim.mac).zip(0..).collect();
    by_mac.sort_unstable_by_key(|(mac, at)| {
        let [a, b, c, d, e, f] = mac.octets();
        (u64::from_be_bytes([0, 0, a, b, c, d, e, f]), *at)
    });
    by_mac
}
