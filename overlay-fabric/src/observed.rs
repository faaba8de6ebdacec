//! What all nodes hold at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::{EndpointId, IfName, Name, NetworkId, NsKey, Vni};
use overlay_dns::View;
use overlay_firewall::Judge;
use overlay_link::Routes;
use overlay_node::{MemoryPlaces, Place};
use overlay_vxlan::{LocalPort, PortEnd, Segment};

/// A copy of everything that the places of all nodes hold, and what their resolvers were told.
///
/// It is what a person would see who dumped every table of every machine at once: nothing in it is what anybody wants or
/// believes.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// By number of the node.
    pub nodes: Vec<ObservedNode>,
    /// Pairs of nodes between which the underlay carries nothing, each way by itself.
    pub cut: BTreeSet<(usize, usize)>,
    /// The node that each container was on when it was observed.
    on: BTreeMap<Name, usize>,
}

/// What one node holds.
#[derive(Debug, Clone, Default)]
pub struct ObservedNode {
    /// Its address in the underlay.
    pub vtep: Option<IpAddr>,
    /// The containers on it, and their namespaces.
    pub containers: BTreeMap<Name, NsKey>,
    /// What the resolver was told, by container; `None` while the agent is down.
    pub views: Option<BTreeMap<Name, View>>,
    /// What its places hold.
    pub places: BTreeMap<Place, ObservedPlace>,
}

/// What one place holds.
#[derive(Debug, Clone, Default)]
pub struct ObservedPlace {
    /// Which tunnels are protected.
    pub crypto: overlay_crypto::State,
    /// Segments.
    pub vxlan: overlay_vxlan::State,
    /// What is allowed and forbidden.
    pub firewall: overlay_firewall::State,
    /// Virtual services.
    pub lb: overlay_lb::State,
    /// Ways to other networks.
    pub routes: Routes,
    /// What the firewall says of packets.
    pub(crate) judge: Judge,
}

/// One attachment of a container, as the sandbox has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attachment<'o> {
    pub(crate) network: NetworkId,
    pub(crate) vni: Vni,
    pub(crate) segment: &'o Segment,
    pub(crate) endpoint: EndpointId,
    pub(crate) port: &'o LocalPort,
    pub(crate) interface: IfName,
}

impl ObservedNode {
    pub(crate) fn of(places: &MemoryPlaces) -> BTreeMap<Place, ObservedPlace> {
        let copy = |(place, held): (Place, overlay_node::MemoryPlace)| {
            let firewall = held.firewall.state();
            let judge = Judge::new(&firewall);
            (
                place,
                ObservedPlace {
                    crypto: held.crypto.state(),
                    vxlan: held.vxlan.state(),
                    firewall,
                    lb: held.lb.state(),
                    routes: held.routes.state(),
                    judge,
                },
            )
        };
        places.places().into_iter().map(copy).collect()
    }

    /// All segments of all sandboxes.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (NetworkId, Vni, &Segment, &ObservedPlace)> {
        let networks = self.places.iter().filter_map(|(place, held)| match place {
            Place::Network(network) => Some((*network, held)),
            Place::Host | Place::Container(_) => None,
        });
        networks.flat_map(|(network, held)| {
            held.vxlan.segments.iter().map(move |(vni, segment)| (network, *vni, segment, held))
        })
    }

    /// The interfaces in a namespace that lead to a segment.
    pub(crate) fn attachments<'o>(&'o self, of: &'o NsKey) -> impl Iterator<Item = Attachment<'o>> {
        self.segments().flat_map(move |(network, vni, segment, _)| {
            segment.ports.iter().filter_map(move |(endpoint, port)| match &port.end {
                PortEnd::Namespace { namespace, interface } if namespace.id == of.id => {
                    Some(Attachment { network, vni, segment, endpoint: *endpoint, port, interface: *interface })
                }
                _ => None,
            })
        })
    }

    /// Which container a port leads to.
    pub(crate) fn container_at(&self, end: &PortEnd) -> Option<&Name> {
        let PortEnd::Namespace { namespace, .. } = end else { return None };
        self.containers.iter().find(|(_, key)| key.id == namespace.id).map(|(name, _)| name)
    }
}

impl Observed {
    pub(crate) fn new(nodes: Vec<ObservedNode>, cut: BTreeSet<(usize, usize)>) -> Self {
        let mut on = BTreeMap::new();
        for (number, node) in nodes.iter().enumerate() {
            for name in node.containers.keys() {
                on.entry(name.clone()).or_insert(number);
            }
        }
        Self { nodes, cut, on }
    }

    /// The node that a container is on.
    pub(crate) fn node_of(&self, container: &Name) -> Option<(usize, &ObservedNode)> {
        let is_on = |(_, node): &(usize, &ObservedNode)| node.containers.contains_key(container);
        let known = self.on.get(container).and_then(|number| Some((*number, self.nodes.get(*number)?)));
        known.filter(is_on).or_else(|| self.nodes.iter().enumerate().find(is_on))
    }

    pub(crate) fn node_at(&self, vtep: IpAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.vtep == Some(vtep))
    }
}
