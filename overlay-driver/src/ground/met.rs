//! All that packets meet, kept as places change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{EndpointId, IfName, Name, NetworkId, NsKey, Vni};
use overlay_datapath::{Sandbox, Wanted};
use overlay_kernel::link::{self, Dev, Site};
use overlay_node::{MemoryPlaces, Place};
use overlay_vxlan::{PortEnd, Segment, SegmentStep, State, Step, names};

/// What all places hold that packets meet. A place that changed is [taken](Self::take) anew, and no other is looked at.
#[derive(Debug, Default)]
pub(super) struct Met {
    wanted: Wanted,
    /// What balances for each container.
    services: BTreeMap<Name, Arc<overlay_lb::State>>,
    /// Where each container's interfaces are plugged in.
    plugged: BTreeMap<Name, BTreeSet<(NetworkId, EndpointId)>>,
}

impl Met {
    pub(super) fn of(places: &MemoryPlaces) -> Self {
        let mut met = Self::default();
        places.places().iter().for_each(|(place, _)| met.take(places, place));
        met
    }

    pub(super) const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// A network's segments.
    pub(super) fn segments(&self, network: NetworkId) -> Option<&State> {
        self.wanted.networks.get(&network).map(|sandbox| &sandbox.vxlan)
    }

    pub(super) fn networks(&self) -> Vec<NetworkId> {
        self.wanted.networks.keys().copied().collect()
    }

    /// A place holds something else than it did, or is no more. O(n) for what it holds.
    pub(super) fn take(&mut self, places: &MemoryPlaces, place: &Place) {
        let held = places.place(place);
        match place {
            Place::Host => {
                let held = held.unwrap_or_default();
                (self.wanted.crypto, self.wanted.host) = (held.crypto.state(), held.firewall.state());
            }
            Place::Network(network) => {
                let sandbox = held.map(|it| Sandbox { vxlan: it.vxlan.state(), firewall: it.firewall.state() });
                self.take_network(*network, sandbox);
            }
            Place::Container(name) => self.take_container(name, held.map(|it| Arc::new(it.lb.state()))),
        }
    }

    fn take_network(&mut self, network: NetworkId, sandbox: Option<Sandbox>) {
        if let Some(former) = self.wanted.networks.remove(&network) {
            for vni in former.vxlan.segments.keys() {
                self.wanted.gateways.remove(vni);
            }
            for (endpoint, container) in interfaces(&former.vxlan) {
                self.wanted.services.remove(&endpoint);
                let left = self.plugged.get_mut(container).map(|plugged| {
                    plugged.remove(&(network, endpoint));
                    plugged.len()
                });
                if left == Some(0) {
                    self.plugged.remove(container);
                }
            }
        }
        let Some(sandbox) = sandbox else { return };
        for (endpoint, container) in interfaces(&sandbox.vxlan) {
            self.plugged.entry(container.clone()).or_default().insert((network, endpoint));
            if let Some(services) = self.services.get(container) {
                self.wanted.services.insert(endpoint, Arc::clone(services));
            }
        }
        let with_machines = sandbox.vxlan.segments.iter().filter(|(_, segment)| has_machines(segment));
        self.wanted.gateways.extend(with_machines.map(|(vni, _)| (*vni, gateway(*vni))));
        self.wanted.networks.insert(network, sandbox);
    }

    fn take_container(&mut self, container: &Name, services: Option<Arc<overlay_lb::State>>) {
        for (_, endpoint) in self.plugged.get(container).into_iter().flatten() {
            match &services {
                Some(services) => self.wanted.services.insert(*endpoint, Arc::clone(services)),
                None => self.wanted.services.remove(endpoint),
            };
        }
        match services {
            Some(services) => self.services.insert(container.clone(), services),
            None => self.services.remove(container),
        };
    }
}

/// The endpoints that are interfaces of containers, and whose.
fn interfaces(vxlan: &State) -> impl Iterator<Item = (EndpointId, &Name)> {
    let ports = vxlan.segments.values().flat_map(|segment| &segment.ports);
    ports.filter_map(|(endpoint, port)| match &port.end {
        PortEnd::Namespace { namespace, .. } => Some((*endpoint, &namespace.name)),
        PortEnd::Tap { .. } => None,
    })
}

/// Where a tap of ours is, in which container's namespace or in none but the network's own, and what it is called.
pub(super) type At<'s> = (Option<&'s NsKey>, IfName);

/// Our taps of a network's segments.
pub(super) fn taps(vxlan: &State) -> Vec<(EndpointId, At<'_>)> {
    let mut taps = Vec::new();
    for (vni, segment) in &vxlan.segments {
        for (endpoint, port) in &segment.ports {
            match &port.end {
                PortEnd::Namespace { namespace, interface } => taps.push((*endpoint, (Some(namespace), *interface))),
                PortEnd::Tap { .. } => taps.extend(names::port(*endpoint).map(|ours| (*endpoint, (None, ours)))),
            }
        }
        if has_machines(segment) {
            taps.extend(names::bridge(*vni).map(|ours| (gateway(*vni), (None, ours))));
        }
    }
    taps
}

fn has_machines(segment: &Segment) -> bool {
    segment.ports.values().any(|port| matches!(port.end, PortEnd::Tap { .. }))
}

/// What a segment's gateway is plugged in as.
pub(super) const fn gateway(vni: Vni) -> EndpointId {
    let [a, b, c, d] = vni.get().to_be_bytes();
    EndpointId::from_bytes([0xff, b'g', b'a', b't', b'e', b'w', b'a', b'y', 0xff, 0xff, 0xff, 0xff, a, b, c, d])
}

/// The taps that steps are about: what they made or changed, and whose they plugged in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// In the network's own namespace.
    home: BTreeSet<IfName>,
    /// In others.
    far: BTreeMap<NsKey, BTreeSet<IfName>>,
    endpoints: BTreeSet<EndpointId>,
}

impl Touched {
    pub(super) fn is(&self, endpoint: EndpointId, (namespace, interface): At<'_>) -> bool {
        let devices = namespace.map_or(Some(&self.home), |namespace| self.far.get(namespace));
        devices.is_some_and(|devices| devices.contains(&interface)) || self.endpoints.contains(&endpoint)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.home.is_empty() && self.far.is_empty() && self.endpoints.is_empty()
    }

    /// By a step of the kernel's.
    pub(super) fn add_link(&mut self, step: &link::Step) {
        use link::Step::{AddLink, RaiseLink, SetLink};
        let (AddLink(dev, _) | SetLink(dev, _) | RaiseLink(dev)) = step else { return };
        let Dev { site, name } = dev;
        match site {
            Site::Home => self.home.insert(*name),
            Site::Far(namespace) => self.far.entry(NsKey::clone(namespace)).or_default().insert(*name),
        };
    }

    /// By a step of what packets meet. A machine may be the first in its segment, which then has a gateway for it.
    pub(super) fn add_segment(&mut self, step: &Step) {
        let Step::Change(vni, SegmentStep::PutPort(endpoint, _) | SegmentStep::Arrive(endpoint, _)) = step else {
            return;
        };
        self.endpoints.extend([*endpoint, gateway(*vni)]);
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{Mtu, NsId};
    use overlay_vxlan::{LocalPort, Vtep};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn key(container: u8) -> NsKey {
        NsKey { name: container_name(container), id: NsId { device: 4, inode: container.into() } }
    }

    fn container_name(container: u8) -> Name {
        Name::new(&format!("c{container}")).unwrap()
    }

    const fn network(number: u8) -> NetworkId {
        NetworkId::from_bytes([number; 16])
    }

    fn vni(number: u8) -> Vni {
        Vni::new(u32::from(number) + 1).unwrap()
    }

    const fn endpoint(number: u8, port: u8) -> EndpointId {
        EndpointId::from_bytes([number, port, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
    }

    fn interface() -> IfName {
        "eth0".parse().unwrap()
    }

    /// A network's one segment, with so many ports: each of a container, or of a machine.
    fn segments(number: u8, ports: &[Option<u8>]) -> State {
        let mut segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1_450).unwrap());
        for (port, container) in (0..).zip(ports) {
            let end = match container {
                Some(container) => PortEnd::Namespace { namespace: key(*container), interface: interface() },
                None => PortEnd::Tap { interface: "t-0".parse().unwrap() },
            };
            let port_of = LocalPort { mac: [2, 0, 0, 0, number, port].into(), addresses: [].into(), end };
            segment.ports.insert(endpoint(number, port), port_of);
        }
        State { segments: [(vni(number), segment)].into() }
    }

    /// All that places hold, derived from all of them.
    fn derived(places: &MemoryPlaces) -> Wanted {
        let mut wanted = Wanted::default();
        for (place, held) in places.places() {
            match place {
                Place::Host => (wanted.crypto, wanted.host) = (held.crypto.state(), held.firewall.state()),
                Place::Network(id) => {
                    let sandbox = Sandbox { vxlan: held.vxlan.state(), firewall: held.firewall.state() };
                    for (vni, segment) in sandbox.vxlan.segments.iter().filter(|(_, segment)| has_machines(segment)) {
                        assert!(!segment.ports.is_empty());
                        wanted.gateways.insert(*vni, gateway(*vni));
                    }
                    for (endpoint, container) in interfaces(&sandbox.vxlan) {
                        if let Some(its) = places.place(&Place::Container(container.clone())) {
                            wanted.services.insert(endpoint, Arc::new(its.lb.state()));
                        }
                    }
                    wanted.networks.insert(id, sandbox);
                }
                Place::Container(_) => {}
            }
        }
        wanted
    }

    /// What happens to a place.
    #[derive(Debug, Clone)]
    enum Deed {
        Hold(u8, Vec<Option<u8>>),
        CloseNetwork(u8),
        Balance(u8, u8),
        CloseContainer(u8),
        Guard(bool),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let ports = vec(proptest::option::weighted(0.8, 0_u8..4), 0..5);
        prop_oneof![
            4 => (0_u8..4, ports).prop_map(|(number, ports)| Deed::Hold(number, ports)),
            1 => (0_u8..4).prop_map(Deed::CloseNetwork),
            3 => (0_u8..4, 0_u8..3).prop_map(|(container, source)| Deed::Balance(container, source)),
            1 => (0_u8..4).prop_map(Deed::CloseContainer),
            1 => any::<bool>().prop_map(Deed::Guard),
        ]
    }

    fn done(places: &MemoryPlaces, deed: Deed) -> Place {
        use overlay_node::Places as _;
        let mut handle = places.clone();
        match deed {
            Deed::Hold(number, ports) => {
                let place = Place::Network(network(number));
                places.make(&place).vxlan.update(|state| *state = segments(number, &ports));
                place
            }
            Deed::CloseNetwork(number) => {
                handle.close(&Place::Network(network(number))).unwrap();
                Place::Network(network(number))
            }
            Deed::Balance(container, source) => {
                let place = Place::Container(container_name(container));
                let vip = [10, 0, 0, source].into();
                places.make(&place).lb.update(|state| state.sources = [(vip, [10, 0, 1, 1].into())].into());
                place
            }
            Deed::CloseContainer(container) => {
                handle.close(&Place::Container(container_name(container))).unwrap();
                Place::Container(container_name(container))
            }
            Deed::Guard(drops) => {
                let esp = drops.then(|| [[192, 0, 2, 9].into()].into());
                places.make(&Place::Host).firewall.update(|state| state.esp = esp);
                Place::Host
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_taken_place_by_place_is_what_all_places_hold(deeds in vec(deed(), 0..40)) {
            let (places, mut met) = (MemoryPlaces::default(), Met::default());
            for deed in deeds {
                let place = done(&places, deed);
                met.take(&places, &place);
                prop_assert!(*met.wanted() == derived(&places), "{place:?}");
            }
            prop_assert!(*Met::of(&places).wanted() == derived(&places));
        }
    }

    #[test]
    fn a_step_is_about_the_taps_that_it_names() {
        let state = segments(0, &[Some(0), Some(1), None]);
        let touched = |touched: &Touched| -> Vec<EndpointId> {
            taps(&state).into_iter().filter(|(endpoint, at)| touched.is(*endpoint, *at)).map(|(it, _)| it).collect()
        };
        let of_link = |dev: Dev| {
            let mut all = Touched::default();
            all.add_link(&link::Step::RaiseLink(dev));
            touched(&all)
        };
        assert_eq!(of_link(Dev::far(key(1), interface())), [endpoint(0, 1)]);
        assert_eq!(of_link(Dev::far(key(2), interface())), []);
        assert_eq!(of_link(Dev::home(names::port(endpoint(0, 2)).unwrap())), [endpoint(0, 2)]);
        assert_eq!(of_link(Dev::home(names::bridge(vni(0)).unwrap())), [gateway(vni(0))]);

        let port = state.segments[&vni(0)].ports[&endpoint(0, 0)].clone();
        let mut all = Touched::default();
        assert!(all.is_empty());
        all.add_segment(&Step::Change(vni(0), SegmentStep::RemovePort(endpoint(0, 1))));
        assert!(all.is_empty());
        all.add_segment(&Step::Change(vni(0), SegmentStep::PutPort(endpoint(0, 0), port)));
        assert_eq!(touched(&all), [endpoint(0, 0), gateway(vni(0))]);
    }
}
