//! What other nodes say.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, Instant, NetworkId, NodeId};
use overlay_gossip::{Event, Key, Member, TableEvent, TableId};

use super::keyring::KEYS;
use super::seal::CLUSTER;
use super::{Agent, AgentEvent, facts};
use crate::knowledge::{Assignments, Claims};
use crate::{NodeFacts, RemoteEndpoint, Section, Standing, Underlay};

/// The table of a network's endpoints: by id, what their nodes say of them.
pub(super) const ENDPOINTS: TableId = TableId(1);

/// How long what a node said counts after it started again, which made its earlier words void: it says the same again within that, and its
/// containers were there all the time.
const LAPSE: Duration = Duration::from_secs(1);

/// An endpoint's key there. It has 16 bytes, so there always is one.
pub(super) fn key(id: EndpointId) -> Option<Key> {
    Key::new(id.to_bytes().to_vec()).ok()
}

fn id(key: &Key) -> Option<EndpointId> {
    key.as_bytes().try_into().ok().map(EndpointId::from_bytes)
}

impl Agent {
    pub(super) fn take_gossip(&mut self, now: Instant) {
        while let Some(event) = self.gossip.poll_event() {
            if !matches!(event, Event::Table(_)) {
                self.doubt_seal();
            }
            match event {
                Event::Joined => self.events.push_back(AgentEvent::Joined),
                Event::Up(member) | Event::Changed(member) => self.put_member(&member),
                Event::Suspected(node) => self.set_standing(node, Standing::Suspected),
                Event::Cleared(node) => self.set_standing(node, Standing::Alive),
                Event::Suspended(node) => self.set_standing(node, Standing::Suspended),
                Event::Expired(node) | Event::Left(node) => self.put_node(node, None),
                Event::Superseded { incarnation } => self.events.push_back(AgentEvent::Superseded { incarnation }),
                Event::Gone => self.events.push_back(AgentEvent::Gone),
                Event::Table(event) => self.take_table(event, now),
                _ => {}
            }
        }
    }

    fn take_table(&mut self, event: TableEvent, now: Instant) {
        match event {
            TableEvent::Put { network: CLUSTER, .. }
            | TableEvent::Removed { network: CLUSTER, .. }
            | TableEvent::Hidden { network: CLUSTER, .. }
            | TableEvent::Restored { network: CLUSTER, .. }
            | TableEvent::Dropped { network: CLUSTER, .. }
            | TableEvent::Watermark { network: CLUSTER, .. }
            | TableEvent::Reread { network: CLUSTER } => self.take_seals(event),
            TableEvent::Put { network, owner, table: ENDPOINTS, key, value } => {
                self.claim(network, owner, &key, Some(&value));
            }
            TableEvent::Removed { network, owner, table: ENDPOINTS, key } => self.claim(network, owner, &key, None),
            TableEvent::Put { network, owner, table: KEYS, key, value } => {
                self.hear_offer(network, owner, (&key, Some(&value)));
            }
            TableEvent::Removed { network, owner, table: KEYS, key } => {
                self.hear_offer(network, owner, (&key, None));
            }
            TableEvent::Watermark { .. } => self.doubt_keys = true,
            TableEvent::Dropped { network, owner } if self.is_alive(owner) => {
                self.lapsing.insert((network, owner), now + LAPSE);
                self.drop_offers(network, owner);
            }
            TableEvent::Hidden { network, owner } | TableEvent::Dropped { network, owner } => {
                self.lapsing.remove(&(network, owner));
                self.drop_offers(network, owner);
                self.with_section(network, |section, claims, assigned| claims.remove_all(section, owner, assigned));
            }
            TableEvent::Restored { network, owner } => self.read_anew(network, owner),
            TableEvent::Reread { network } => self.reread(network),
            _ => {}
        }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.knowledge.nodes.get(&node).is_some_and(|facts| facts.standing == Standing::Alive)
    }

    /// What nodes that started again said before, and have not said since, counts no more once they had the time to.
    pub(super) fn lapse(&mut self, now: Instant) {
        let due = self.lapsing.extract_if(.., |_, until| *until <= now);
        let due: Vec<(NetworkId, NodeId)> = due.map(|(of, _)| of).collect();
        for (network, owner) in due {
            self.read_anew(network, owner);
        }
    }

    fn read_anew(&mut self, network: NetworkId, owner: NodeId) {
        self.lapsing.remove(&(network, owner));
        self.with_section(network, |section, claims, assigned| claims.remove_all(section, owner, assigned));
        self.read(network, Some(owner));
        self.read_records(network, Some(owner));
    }

    /// A node says that it has an endpoint, or says so no more. What cannot be read counts as not said.
    fn claim(&mut self, network: NetworkId, owner: NodeId, key: &Key, value: Option<&[u8]>) {
        let Some(id) = id(key) else {
            self.counts.malformed += 1;
            return;
        };
        let claim = value.and_then(|value| RemoteEndpoint::parse(owner, value).ok());
        self.counts.malformed += u64::from(value.is_some() && claim.is_none());
        self.with_section(network, |section, claims, assigned| match claim {
            Some(claim) => claims.put(section, id, Arc::new(claim), assigned),
            None => claims.remove(section, id, owner, assigned),
        });
    }

    /// Reads all that is said of a network anew.
    pub(super) fn reread(&mut self, network: NetworkId) {
        self.with_section(network, |section, claims, _| {
            Arc::make_mut(section).remote.clear();
            *claims = Claims::default();
            true
        });
        self.read(network, None);
        self.read_records(network, None);
    }

    /// Reads what one owner says of a network, or all of them.
    fn read(&mut self, network: NetworkId, of: Option<NodeId>) {
        let me = self.knowledge.me;
        let entries = self.gossip.entries(network, ENDPOINTS);
        let entries = entries.filter(|(owner, ..)| *owner != me && of.is_none_or(|of| of == *owner));
        let entries: Vec<_> = entries.map(|(owner, key, value, _)| (owner, key.clone(), value.clone())).collect();
        for (owner, key, value) in entries {
            self.claim(network, owner, &key, Some(&value));
        }
    }

    /// Changes what is known of a network's endpoints elsewhere, if the network is followed; `change` says whether it did.
    pub(super) fn with_section(
        &mut self,
        network: NetworkId,
        change: impl FnOnce(&mut Arc<Section>, &mut Claims, &Assignments) -> bool,
    ) {
        if let Some(section) = self.knowledge.networks.get_mut(&network) {
            let claims = self.claims.entry(network).or_default();
            self.changed |= change(section, claims, &self.catalogue.assigned);
        }
    }

    fn put_member(&mut self, member: &Member) {
        let underlay = Underlay::parse(member.metadata.as_bytes());
        self.counts.malformed += u64::from(underlay.is_err());
        let facts = underlay.ok().map(|underlay| facts(&underlay, member.address, Standing::Alive));
        self.put_node(member.id, facts);
    }

    fn set_standing(&mut self, node: NodeId, standing: Standing) {
        let facts = self.knowledge.nodes.get(&node).map(|facts| NodeFacts { standing, ..*facts });
        if facts.is_some() {
            self.put_node(node, facts);
        }
    }

    /// A node is otherwise than before, or gone.
    pub(super) fn put_node(&mut self, node: NodeId, facts: Option<NodeFacts>) {
        if self.knowledge.nodes.get(&node) == facts.as_ref() {
            return;
        }
        let smallest =
            |nodes: &std::collections::BTreeMap<NodeId, NodeFacts>| nodes.values().map(|facts| facts.mtu).min();
        let before = smallest(&self.knowledge.nodes);
        let addresses = |facts: &NodeFacts| [facts.vtep, facts.address.ip()];
        let [was, is] = [self.knowledge.nodes.get(&node), facts.as_ref()].map(|facts| facts.map(addresses));
        let concerns_mesh = was != is && was.iter().chain(&is).flatten().any(|address| self.is_of_ingress(*address));
        let nodes = Arc::make_mut(&mut self.knowledge.nodes);
        match facts {
            Some(facts) => drop(nodes.insert(node, facts)),
            None => drop(nodes.remove(&node)),
        }
        if concerns_mesh {
            self.doubt_mesh();
        }
        if smallest(&self.knowledge.nodes) != before {
            self.touched.extend(self.plugs.keys());
        }
        self.changed = true;
    }
}
