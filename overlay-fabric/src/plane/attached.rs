//! What a node has published to its data plane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Mac, Name, NetworkId, NsId};
use overlay_datapath::{Sandbox, Wanted};
use overlay_node::{MemoryPlaces, Place};
use overlay_vxlan::PortEnd;

/// What a node's places held when a round of upkeep was over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    pub(crate) wanted: Wanted,
    /// By endpoint, the interface of its container.
    pub(crate) attached: BTreeMap<EndpointId, Attached>,
}

/// An interface of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) container: Name,
    pub(crate) namespace: NsId,
    pub(crate) network: NetworkId,
    pub(crate) interface: IfName,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<IpNet>,
    /// Ways through routers.
    pub(crate) routes: Vec<(IpNet, IpAddr)>,
}

impl Published {
    /// All that is held now.
    pub(crate) fn of(places: &MemoryPlaces) -> Self {
        let mut published = Self::default();
        let held: BTreeMap<Place, _> = places.places().into_iter().collect();
        for (place, held) in &held {
            match place {
                Place::Host => {
                    published.wanted.crypto = held.crypto.state();
                    published.wanted.host = held.firewall.state();
                }
                Place::Network(network) => {
                    let sandbox = Sandbox { vxlan: held.vxlan.state(), firewall: held.firewall.state() };
                    published.attach(*network, &sandbox);
                    published.wanted.networks.insert(*network, sandbox);
                }
                Place::Container(_) => {}
            }
        }
        published.serve(&held);
        published
    }

    fn attach(&mut self, network: NetworkId, sandbox: &Sandbox) {
        for segment in sandbox.vxlan.segments.values() {
            for (endpoint, port) in &segment.ports {
                let PortEnd::Namespace { namespace, interface } = &port.end else { continue };
                let attached = Attached {
                    container: namespace.name.clone(),
                    namespace: namespace.id,
                    network,
                    interface: *interface,
                    mac: port.mac,
                    mtu: segment.mtu.get(),
                    addresses: port.addresses.iter().copied().collect(),
                    routes: Vec::new(),
                };
                self.attached.insert(*endpoint, attached);
            }
        }
    }

    /// Services and routes are a container's, with all its endpoints.
    fn serve(&mut self, held: &BTreeMap<Place, overlay_node::MemoryPlace>) {
        let mut services: BTreeMap<Name, Arc<overlay_lb::State>> = BTreeMap::new();
        for (endpoint, attached) in &mut self.attached {
            let Some(place) = held.get(&Place::Container(attached.container.clone())) else { continue };
            let state = services.entry(attached.container.clone()).or_insert_with(|| Arc::new(place.lb.state()));
            self.wanted.services.insert(*endpoint, Arc::clone(state));
            let routes = place.routes.state().to;
            let by = routes.iter().filter(|(_, route)| route.interface == attached.interface);
            attached.routes = by.filter_map(|(net, route)| Some((*net, route.via?))).collect();
        }
    }
}
