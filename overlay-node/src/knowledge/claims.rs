//! Which of what other nodes say of endpoints counts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{AddressSet, EndpointId, Mac, Name, NetworkId, NodeId, ServiceId};
use overlay_dns::DnsName;
use overlay_lb::Weight;

use crate::{Condition, Endpoint, RemoteEndpoint, Section};

/// What the catalogue has of an endpoint, as far as other nodes' words are held against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) network: NetworkId,
    node: NodeId,
    mac: Mac,
    addresses: AddressSet,
    service: Option<ServiceId>,
    container: Name,
    names: Box<[DnsName]>,
    labels: BTreeMap<String, String>,
    weight: Weight,
}

/// Why what a node says of an endpoint does not count: what the catalogue has that it was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Contest {
    /// There is no such endpoint, or not yet.
    #[error("the catalogue has no such endpoint")]
    Unknown,
    /// The endpoint is plugged in at this node.
    #[error("the endpoint is here")]
    Here,
    /// The endpoint is another node's, or on another network.
    #[error("the endpoint is node {node}'s, on network {network}")]
    Owner {
        /// Whose it is.
        node: NodeId,
        /// On which network.
        network: NetworkId,
    },
    /// An address that the endpoint was not given: another's, or a VIP.
    #[error("the endpoint was not given {address}")]
    Address {
        /// The address.
        address: IpAddr,
    },
    /// An Ethernet address that it was not given.
    #[error("the endpoint was given {allotted}")]
    Mac {
        /// The one that it was given.
        allotted: Mac,
    },
    /// It is of another service, or of none.
    #[error("the endpoint is not of that service")]
    Service,
    /// Its container is called otherwise, or it was attached by other names.
    #[error("the endpoint was not attached by those names")]
    Names,
    /// It was attached with other labels.
    #[error("the endpoint was not attached with those labels")]
    Labels,
}

/// What the catalogue has of all endpoints.
pub(crate) type Assignments = BTreeMap<EndpointId, Assigned>;

impl Assigned {
    /// `None` for an endpoint that has no addresses yet, or is to have none any more.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<Self> {
        let has = endpoint.condition != Condition::Removing && !endpoint.addresses.is_empty();
        has.then(|| Self {
            network: endpoint.spec.network,
            node: endpoint.spec.node,
            mac: endpoint.mac,
            addresses: endpoint.addresses.iter().map(|net| net.addr()).collect(),
            service: endpoint.spec.service,
            container: endpoint.spec.container.clone(),
            names: endpoint.spec.names.as_slice().into(),
            labels: endpoint.spec.labels.clone(),
            weight: endpoint.spec.weight,
        })
    }

    /// Whether a word agrees with it.
    fn vouches_for(&self, network: NetworkId, claim: &RemoteEndpoint) -> bool {
        self.contests(network, claim).is_none()
    }

    /// Why a word does not agree with it.
    fn contests(&self, network: NetworkId, claim: &RemoteEndpoint) -> Option<Contest> {
        let foreign = claim.addresses.iter().find(|address| !self.addresses.contains(*address));
        let of_other = (self.network, self.node) != (network, claim.node);
        match foreign {
            _ if of_other => Some(Contest::Owner { node: self.node, network: self.network }),
            Some(address) => Some(Contest::Address { address: *address }),
            None if self.mac != claim.mac => Some(Contest::Mac { allotted: self.mac }),
            None if self.service != claim.service => Some(Contest::Service),
            None if (&self.container, &*self.names) != (&claim.container, &*claim.names) => Some(Contest::Names),
            None => (self.labels != claim.labels).then_some(Contest::Labels),
        }
    }
}

/// What other nodes say of endpoints of one network that is not in its [`Section`], since the catalogue does not say so too, or
/// not yet, or the endpoint is here.
///
/// Of what is said, that counts which the catalogue agrees with: so there is one word at most, and what nobody ever created is
/// nowhere. Gossip may be faster than the catalogue, or slower: what does not agree waits for as long as it is said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(BTreeMap<(EndpointId, NodeId), Arc<RemoteEndpoint>>);

impl Claims {
    /// A node says that it has an endpoint; whether the section is otherwise for it. O(log n).
    pub(crate) fn put(
        &mut self,
        section: &mut Arc<Section>,
        id: EndpointId,
        claim: Arc<RemoteEndpoint>,
        assigned: &Assignments,
    ) -> bool {
        let lost = take_back(section, id, claim.node).is_some();
        self.0.insert((id, claim.node), claim);
        self.choose(section, id, assigned) || lost
    }

    /// A node says so no more.
    pub(crate) fn remove(
        &mut self,
        section: &mut Arc<Section>,
        id: EndpointId,
        node: NodeId,
        assigned: &Assignments,
    ) -> bool {
        self.0.remove(&(id, node));
        let lost = take_back(section, id, node).is_some();
        self.choose(section, id, assigned) || lost
    }

    /// Nothing that a node says counts any more. O(n).
    pub(crate) fn remove_all(&mut self, section: &mut Arc<Section>, node: NodeId, assigned: &Assignments) -> bool {
        self.0.retain(|(_, of), _| *of != node);
        let shown = section.remote.iter().filter(|(_, claim)| claim.node == node);
        let lost: Vec<EndpointId> = shown.map(|(id, _)| *id).collect();
        for id in &lost {
            self.remove(section, *id, node, assigned);
        }
        !lost.is_empty()
    }

    /// Shows the word on an endpoint that counts, if there is one, and no other: after anything that this depends on changed. Whether
    /// the section is otherwise for it.
    pub(crate) fn choose(&mut self, section: &mut Arc<Section>, id: EndpointId, assigned: &Assignments) -> bool {
        let network = section.network.id;
        let assigned = assigned.get(&id).filter(|_| !section.local.contains_key(&id));
        let fits = |claim: &&Arc<RemoteEndpoint>| assigned.is_some_and(|it| it.vouches_for(network, claim));
        let shown = section.remote.get(&id);
        let weight = assigned.map_or(Weight::ONE, |assigned| assigned.weight);
        if shown.is_some_and(|shown| fits(&shown) && shown.weight == weight) {
            return false;
        }
        let fit = |said: &Self| {
            let key = (id, assigned?.node);
            said.0.get(&key).filter(fits).map(|_| key)
        };
        if shown.is_none() && fit(self).is_none() {
            return false;
        }
        let section = Arc::make_mut(section);
        if let Some(shown) = section.remote.remove(&id) {
            self.0.insert((id, shown.node), shown);
        }
        let mut word = fit(self).and_then(|key| self.0.remove(&key));
        if let Some(word) = word.as_mut().filter(|word| word.weight != weight) {
            Arc::make_mut(word).weight = weight; // what the catalogue has, whatever is said
        }
        section.remote.extend(word.map(|word| (id, word)));
        true
    }

    /// What is out of sight, and why.
    pub(crate) fn contested(
        &self,
        section: &Section,
        assigned: &Assignments,
    ) -> impl Iterator<Item = (EndpointId, &RemoteEndpoint, Contest)> {
        self.0.iter().map(move |((id, _), claim)| {
            let entry = assigned.get(id).filter(|_| !section.local.contains_key(id));
            let missing = if section.local.contains_key(id) { Contest::Here } else { Contest::Unknown };
            let why = entry.map_or(Some(missing), |entry| entry.contests(section.network.id, claim));
            (*id, &**claim, why.unwrap_or(missing))
        })
    }

    /// How many are out of sight.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a node says of an endpoint, out of the section, if it is there.
fn take_back(section: &mut Arc<Section>, id: EndpointId, node: NodeId) -> Option<Arc<RemoteEndpoint>> {
    section.remote.get(&id).filter(|shown| shown.node == node)?;
    Arc::make_mut(section).remote.remove(&id)
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use overlay_core::UnixTime;
    use proptest::prelude::*;

    use super::*;
    use crate::EndpointSpec;
    use crate::testing::{any_remote_endpoint, section};

    /// What comes to a node's ears, in any order: the catalogue's truth late or early, words of honest nodes and of liars.
    #[derive(Debug, Clone)]
    enum Heard {
        Assigned(u8, u8, u8),
        Gone(u8),
        Honest(u8, u8, u8),
        Lie(u8, u8, Box<RemoteEndpoint>),
        /// What the catalogue says, but for names and labels.
        Renamed(u8, u8, Box<RemoteEndpoint>),
        Silent(u8, u8),
        Dead(u8),
    }

    fn heard() -> impl Strategy<Value = Heard> {
        let (id, node, version) = (|| 0_u8..4, || 0_u8..3, || 0_u8..2);
        prop_oneof![
            4 => (id(), node(), version()).prop_map(|(id, node, version)| Heard::Assigned(id, node, version)),
            1 => id().prop_map(Heard::Gone),
            4 => (id(), node(), version()).prop_map(|(id, node, version)| Heard::Honest(id, node, version)),
            2 => (id(), node(), any_remote_endpoint()).prop_map(|(id, node, lie)| Heard::Lie(id, node, Box::new(lie))),
            2 => (id(), node(), any_remote_endpoint()).prop_map(|(id, node, lie)| Heard::Renamed(id, node, Box::new(lie))),
            1 => (id(), node()).prop_map(|(id, node)| Heard::Silent(id, node)),
            1 => node().prop_map(Heard::Dead),
        ]
    }

    fn id(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 16])
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    /// An endpoint as the catalogue has it, once with this address and once, created anew, with that.
    fn endpoint(network: NetworkId, (number, at, version): (u8, u8, u8)) -> Option<Endpoint> {
        let address: IpAddr = [10, 200, version, number].into();
        let mut spec = EndpointSpec::new(network, "c".parse().ok()?, node(at));
        spec.names.extend((version > 0).then(|| "alias".parse().ok()).flatten());
        spec.labels.extend((version > 0).then(|| ("tier".to_owned(), "web".to_owned())));
        Some(Endpoint {
            id: id(number),
            spec,
            addresses: [address.into()].into(),
            mac: Mac::from_ipv4([10, 200, version, number].into()),
            moves: 0,
            created: UnixTime::EPOCH,
            condition: Condition::Allocated,
        })
    }

    fn word(endpoint: &Endpoint) -> RemoteEndpoint {
        RemoteEndpoint {
            node: endpoint.spec.node,
            container: endpoint.spec.container.clone(),
            mac: endpoint.mac,
            addresses: endpoint.addresses.iter().map(|net| net.addr()).collect(),
            names: endpoint.spec.names.clone(),
            service: None,
            labels: endpoint.spec.labels.clone(),
            health: overlay_dns::Health::Healthy,
            moves: 0,
            weight: Weight::ONE,
        }
    }

    proptest! {
        #[test]
        fn what_the_catalogue_does_not_say_too_is_nowhere_and_what_both_say_is_never_lost(
            section in section(),
            all in proptest::collection::vec(heard(), 0..60),
        ) {
            let network = section.network.id;
            let mut section = Arc::new(Section { remote: BTreeMap::new(), local: BTreeMap::new(), ..section });
            let (mut claims, mut assigned) = (Claims::default(), Assignments::new());
            let mut said = BTreeMap::<(EndpointId, NodeId), RemoteEndpoint>::new();
            for heard in all {
                let before = section.remote.clone();
                let changed = match heard {
                    Heard::Assigned(number, at, version) => {
                        let entry = endpoint(network, (number, at, version)).as_ref().and_then(Assigned::of);
                        assigned.extend(entry.map(|entry| (id(number), entry)));
                        claims.choose(&mut section, id(number), &assigned)
                    }
                    Heard::Gone(number) => {
                        assigned.remove(&id(number));
                        claims.choose(&mut section, id(number), &assigned)
                    }
                    Heard::Honest(number, at, version) => {
                        let word = endpoint(network, (number, at, version)).map(|it| word(&it)).ok_or_else(|| TestCaseError::fail("a name"))?;
                        said.insert((id(number), node(at)), word.clone());
                        claims.put(&mut section, id(number), Arc::new(word), &assigned)
                    }
                    Heard::Lie(number, at, lie) => {
                        let lie = RemoteEndpoint { node: node(at), ..*lie };
                        said.insert((id(number), node(at)), lie.clone());
                        claims.put(&mut section, id(number), Arc::new(lie), &assigned)
                    }
                    Heard::Renamed(number, at, lie) => {
                        let word = endpoint(network, (number, at, 0)).map(|it| word(&it)).ok_or_else(|| TestCaseError::fail("a name"))?;
                        let RemoteEndpoint { container, names, labels, .. } = *lie;
                        let lie = RemoteEndpoint { container, names, labels, ..word };
                        said.insert((id(number), node(at)), lie.clone());
                        claims.put(&mut section, id(number), Arc::new(lie), &assigned)
                    }
                    Heard::Silent(number, at) => {
                        said.remove(&(id(number), node(at)));
                        claims.remove(&mut section, id(number), node(at), &assigned)
                    }
                    Heard::Dead(at) => {
                        said.retain(|(_, of), _| *of != node(at));
                        claims.remove_all(&mut section, node(at), &assigned)
                    }
                };
                prop_assert!(changed || before == section.remote, "a change that was not told of");
                let true_words = said.iter().filter(|((id, _), word)| {
                    assigned.get(id).is_some_and(|entry| entry.vouches_for(network, word))
                });
                let spoken = |endpoint: &Endpoint, word: &RemoteEndpoint| {
                    let spec = &endpoint.spec;
                    (&spec.container, &spec.names, &spec.labels) == (&word.container, &word.names, &word.labels)
                };
                for (shown, word) in &section.remote {
                    let mut may = (0..2).filter_map(|version| endpoint(network, (shown.to_bytes()[0], word.node.to_bytes()[0], version)));
                    prop_assert!(may.any(|it| spoken(&it, word)), "a name or label that the catalogue does not have");
                }
                let expected: BTreeMap<_, _> = true_words.map(|((id, _), word)| (*id, Arc::new(word.clone()))).collect();
                prop_assert_eq!(&section.remote, &expected);
                prop_assert_eq!(claims.len() + section.remote.len(), said.len(), "all else waits");
            }
        }
    }
}
