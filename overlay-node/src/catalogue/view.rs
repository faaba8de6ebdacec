//! What of the catalogue a node needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use overlay_core::NetworkId;

use super::Records;
use crate::{CatalogueChange, Endpoint, Service};

/// What of the catalogue a node needs, and so is told: a function of the catalogue and of nothing that the node says, but for the services that it
/// watches. Made by [`Records::view`].
///
/// | records | which |
/// |---|---|
/// | nodes | all: keys of gossip and of encrypted networks are shared with nodes of the catalogue alone |
/// | networks | those that it has an endpoint on, those of kind ingress, and those of services that it watches |
/// | endpoints | all on these networks |
/// | services | all on these networks, without what they have on others |
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View(BTreeSet<NetworkId>);

impl View {
    /// A view of these networks.
    pub(super) const fn of(networks: BTreeSet<NetworkId>) -> Self {
        Self(networks)
    }

    /// Its networks.
    pub const fn networks(&self) -> &BTreeSet<NetworkId> {
        &self.0
    }

    /// Whether a network is in it, and so all endpoints there are.
    pub fn shows(&self, network: NetworkId) -> bool {
        self.0.contains(&network)
    }

    /// As much of a service as is in it: `None` if it is on none of the networks. The same `Arc` if all is.
    pub fn service(&self, service: &Arc<Service>) -> Option<Arc<Service>> {
        let on = |network: &NetworkId| self.shows(*network);
        let (mut seen, mut unseen) = (false, false);
        for network in service.spec.networks.keys().chain(service.vips.keys()) {
            match on(network) {
                true => seen = true,
                false => unseen = true,
            }
        }
        if !unseen {
            return seen.then(|| Arc::clone(service));
        }
        seen.then(|| {
            let mut shown = Service::clone(service);
            shown.spec.networks.retain(|network, _| on(network));
            shown.vips.retain(|network, _| on(network));
            Arc::new(shown)
        })
    }

    /// What differs between what `was` seen of the catalogue `before`, and what is seen of `now` in this: in the order in which a
    /// [`Feed`](super::Feed) tells it. O(d log n) for d differences, of which are all records of a network that came into view or went out of it, but
    /// that it passes over what both catalogues share: some n/64 comparisons of pointers.
    pub fn changes(&self, now: &Records, was: &Self, before: &Records) -> Vec<CatalogueChange> {
        let shifted: BTreeSet<NetworkId> = self.0.symmetric_difference(&was.0).copied().collect();
        let (mut goes, mut comes) = (Vec::new(), Vec::new());
        let mut put = |change: Option<CatalogueChange>, is_gone: bool| match is_gone {
            true => goes.extend(change),
            false => comes.extend(change),
        };
        for id in now.endpoints_that_may_differ(before, &shifted) {
            let (old, new) = (was.endpoint(before.endpoint(id)), self.endpoint(now.endpoint(id)));
            let change = differs(old, new, CatalogueChange::Endpoint, CatalogueChange::EndpointGone(id));
            put(change, new.is_none());
        }
        for id in now.services_that_may_differ(before, &shifted) {
            let seen = |view: &Self, records: &Records| records.service(id).and_then(|service| view.service(service));
            let (old, new) = (seen(was, before), seen(self, now));
            let gone = CatalogueChange::ServiceGone(id);
            put(differs(old.as_ref(), new.as_ref(), CatalogueChange::Service, gone), new.is_none());
        }
        for id in now.networks_that_may_differ(before, &shifted) {
            let old = before.network(id).filter(|_| was.shows(id));
            let new = now.network(id).filter(|_| self.shows(id));
            put(differs(old, new, CatalogueChange::Network, CatalogueChange::NetworkGone(id)), new.is_none());
        }
        for id in now.nodes_that_differ(before) {
            let (old, new) = (before.node(id), now.node(id));
            put(differs(old, new, CatalogueChange::Node, CatalogueChange::NodeGone(id)), new.is_none());
        }
        goes.into_iter().chain(comes.into_iter().rev()).collect()
    }

    fn endpoint<'e>(&self, endpoint: Option<&'e Arc<Endpoint>>) -> Option<&'e Arc<Endpoint>> {
        endpoint.filter(|endpoint| self.shows(endpoint.spec.network))
    }
}

/// What is to be told of an object, if it is otherwise than before.
fn differs<T: PartialEq>(
    old: Option<&Arc<T>>,
    new: Option<&Arc<T>>,
    comes: impl FnOnce(Arc<T>) -> CatalogueChange,
    goes: CatalogueChange,
) -> Option<CatalogueChange> {
    match (old, new) {
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) || old == new => None,
        (_, Some(new)) => Some(comes(Arc::clone(new))),
        (Some(_), None) => Some(goes),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::testing::Dice;
    use overlay_core::{EndpointId, NodeId, ServiceId, UnixTime};

    use super::*;
    use crate::{Condition, EndpointSpec, Network, NetworkSpec, Node, NodeSpec, Reference, ServiceSpec};

    const NOW: UnixTime = UnixTime::EPOCH;

    fn network(number: u8) -> NetworkId {
        NetworkId::from_bytes([0x20 + number; 16])
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([0x50 + number; 16])
    }

    fn a_network(number: u8, ingress: bool) -> CatalogueChange {
        let spec = NetworkSpec { ingress, ..NetworkSpec::overlay(format!("n{number}").parse().unwrap()) };
        let (id, condition) = (network(number), Condition::Allocated);
        CatalogueChange::Network(Arc::new(Network {
            id,
            spec,
            subnets: Vec::new(),
            vni: None,
            port: None,
            created: NOW,
            condition,
        }))
    }

    fn a_service(number: u8, version: u32, on: &[u8], vips: &[u8]) -> CatalogueChange {
        let mut spec = ServiceSpec::new(format!("S{number}").parse().unwrap(), on.iter().map(|it| network(*it)));
        spec.labels.insert("version".to_owned(), version.to_string());
        CatalogueChange::Service(Arc::new(Service {
            id: ServiceId::from_bytes([number; 16]),
            spec,
            vips: vips.iter().map(|it| (network(*it), [[10, *it, 0, number].into()].into())).collect(),
            ports: Vec::new(),
            created: NOW,
            condition: Condition::Allocated,
        }))
    }

    fn an_endpoint(number: u8, version: u64, on: u8, at: u8) -> CatalogueChange {
        CatalogueChange::Endpoint(Arc::new(Endpoint {
            id: EndpointId::from_bytes([number; 16]),
            spec: EndpointSpec::new(network(on), format!("c{number}").parse().unwrap(), node(at)),
            addresses: [].into(),
            mac: overlay_core::Mac::ZERO,
            moves: version,
            created: NOW,
            condition: Condition::Ready,
        }))
    }

    fn a_node(number: u8) -> CatalogueChange {
        let spec = NodeSpec { name: format!("h{number}").parse().unwrap(), role: overlay_gossip::Role::Worker };
        CatalogueChange::Node(Arc::new(Node { id: node(number), spec, created: NOW, condition: Condition::Ready }))
    }

    fn of(changes: impl IntoIterator<Item = CatalogueChange>) -> Records {
        let mut records = Records::default();
        changes.into_iter().for_each(|change| records.heed(change));
        records
    }

    fn view(records: &Records, at: u8) -> View {
        records.view(node(at), &BTreeSet::new())
    }

    #[test]
    fn a_node_needs_the_networks_it_has_endpoints_on_and_the_ingress_network() {
        let records = of([a_network(0, true), a_network(1, false), a_network(2, false), an_endpoint(1, 0, 1, 1)]);
        assert_eq!(view(&records, 1).networks(), &[network(0), network(1)].into());
        assert_eq!(view(&records, 2).networks(), &[network(0)].into());
    }

    #[test]
    fn with_its_last_endpoint_there_a_network_goes_out_of_its_view() {
        let mut records = of([a_network(1, false), an_endpoint(1, 0, 1, 1), an_endpoint(2, 0, 1, 1)]);
        records.heed(CatalogueChange::EndpointGone(EndpointId::from_bytes([1; 16])));
        assert!(view(&records, 1).shows(network(1)));
        records.heed(an_endpoint(2, 1, 1, 2)); // it moves
        assert!(!view(&records, 1).shows(network(1)) && view(&records, 2).shows(network(1)));
    }

    #[test]
    fn who_watches_a_service_by_its_name_or_id_needs_its_networks_and_a_short_beginning_of_an_id_says_nothing() {
        let records = of([a_network(1, false), a_network(2, false), a_service(7, 0, &[1], &[1])]);
        let id = ServiceId::from_bytes([7; 16]);
        let seen = |watched: Reference| records.view(node(1), &[watched].into()).shows(network(1));
        assert!(
            seen("s7".into()) && seen("S7".into()) && seen(id.into()) && seen(id.short().to_string().as_str().into())
        );
        let short = id.to_string();
        assert!((0..12).all(|len| !seen(short[..len].into())));
    }

    #[test]
    fn of_a_service_on_other_networks_too_nothing_of_these_is_seen() {
        let CatalogueChange::Service(service) = a_service(7, 0, &[1, 2], &[1, 2, 3]) else { unreachable!() };
        let shown = View::of([network(1)].into()).service(&service).unwrap();
        assert_eq!(shown.spec.networks.keys().collect::<Vec<_>>(), [&network(1)]);
        assert_eq!(shown.vips.keys().collect::<Vec<_>>(), [&network(1)]);
        assert_eq!(View::of([network(4)].into()).service(&service), None);
        let all = View::of([1, 2, 3].map(network).into());
        assert!(Arc::ptr_eq(&all.service(&service).unwrap(), &service));
    }

    #[test]
    fn what_comes_into_view_comes_with_its_network_first_and_what_goes_out_goes_the_other_way_round() {
        let before = of([a_network(1, false), a_service(7, 0, &[1], &[]), an_endpoint(2, 0, 1, 2), a_node(1)]);
        let mut now = before.clone();
        now.heed(an_endpoint(1, 0, 1, 1));
        let (was, is) = (view(&before, 1), view(&now, 1));
        let come = is.changes(&now, &was, &before);
        assert!(
            matches!(
                &come[..],
                [
                    CatalogueChange::Network(_),
                    CatalogueChange::Service(_),
                    CatalogueChange::Endpoint(_),
                    CatalogueChange::Endpoint(_)
                ]
            ),
            "{come:?}"
        );
        let gone = was.changes(&before, &is, &now);
        assert!(
            matches!(
                &gone[..],
                [
                    CatalogueChange::EndpointGone(_),
                    CatalogueChange::EndpointGone(_),
                    CatalogueChange::ServiceGone(_),
                    CatalogueChange::NetworkGone(_)
                ]
            ),
            "{gone:?}"
        );
    }

    fn one_change(dice: &mut Dice) -> CatalogueChange {
        let (number, version) = (dice.below(6) as u8, dice.below(4));
        let [a, b, c] = [(); 3].map(|()| dice.below(5) as u8);
        match dice.below(12) {
            0 => a_network(a, a == 0),
            1 => CatalogueChange::NetworkGone(network(a)),
            2 | 3 => a_service(number, version as u32, &[a, b], &[a, b, c]),
            4 => CatalogueChange::ServiceGone(ServiceId::from_bytes([number; 16])),
            5 => a_node(a),
            6 => CatalogueChange::NodeGone(node(a)),
            7 | 8 => CatalogueChange::EndpointGone(EndpointId::from_bytes([number; 16])),
            _ => an_endpoint(number, version as u64, a, b % 3),
        }
    }

    /// Who heeds the changes has what is seen of the catalogue, however many of its states he missed; and each change is one, and of what is or was seen.
    #[test]
    fn who_heeds_the_changes_has_what_is_seen_whatever_happens() {
        for seed in 0..24 {
            let mut dice = Dice::new([seed; 32]);
            let (mut now, mut before, mut was) = (Records::default(), Records::default(), View::default());
            let mut heeded = Records::default();
            let watched = if dice.one_in(2) { BTreeSet::new() } else { [Reference::from("s1")].into() };
            for _ in 0..80 {
                for _ in 0..dice.below(6) {
                    now.heed(one_change(&mut dice));
                }
                let view = now.view(node(1), &watched);
                for change in view.changes(&now, &was, &before) {
                    if let CatalogueChange::Endpoint(of) = &change {
                        assert!(view.shows(of.spec.network));
                    }
                    let held = heeded.clone();
                    heeded.heed(change);
                    assert!(held != heeded, "seed {seed}: nothing is told twice");
                }
                assert!(heeded == seen(&now, &view), "seed {seed}");
                (before, was) = (now.clone(), view);
            }
        }
    }

    /// The same, said otherwise.
    fn seen(records: &Records, view: &View) -> Records {
        let all = View::of((0..=255).map(|it| NetworkId::from_bytes([it; 16])).collect());
        let shown =
            all.changes(records, &View::default(), &Records::default()).into_iter().filter_map(|change| match change {
                CatalogueChange::Network(of) if !view.shows(of.id) => None,
                CatalogueChange::Endpoint(of) if !view.shows(of.spec.network) => None,
                CatalogueChange::Service(of) => view.service(&of).map(CatalogueChange::Service),
                other => Some(other),
            });
        of(shown)
    }
}
