//! What is derived makes sense, whatever is known.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{IfName, Mac, State};
use overlay_dns::Health;
use overlay_firewall::{BridgePort, Egress, Pin};
use overlay_lb::{Bind, Condition};
use overlay_link::MacvlanMode;
use overlay_node::testing::{Change, change, knowledge, mesh_endpoint};
use overlay_node::{Deriver, GatewayBridge, Knowledge, Place, Section, derive};
use overlay_vxlan::{PortEnd, names};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// The same without a word of other nodes about endpoints.
fn alone(knowledge: &Knowledge) -> Knowledge {
    let mut alone = knowledge.clone();
    for section in alone.networks.values_mut() {
        Arc::make_mut(section).remote.clear();
    }
    alone
}

proptest! {
    #[test]
    fn whatever_is_known_every_state_passes_its_check(knowledge in knowledge()) {
        for (place, state) in &derive(&knowledge).places {
            prop_assert_eq!(state.link.check().map_err(|refusal| format!("{place}: {refusal}")), Ok(()));
            prop_assert_eq!(state.vxlan.check().map_err(|refusal| format!("{place}: {refusal}")), Ok(()));
            prop_assert_eq!(state.firewall.check().map_err(|refusal| format!("{place}: {refusal}")), Ok(()));
            prop_assert_eq!(state.routes.check(), Ok(()));
            prop_assert_eq!(state.lb.check().map_err(|refusal| format!("{place}: {refusal}")), Ok(()));
        }
    }

    /// Containers and the outside meet in the mesh: what a node publishes leads to nobody who is not a replica, and to nobody anew who drains; who
    /// serves there answers through nodes, unless all who come to it come as nodes.
    #[test]
    fn what_the_mesh_publishes_leads_to_replicas_that_are_here_or_elsewhere_and_to_none_anew_that_drain(knowledge in knowledge()) {
        let desired = derive(&knowledge);
        let Some(host) = desired.places.get(&Place::Host) else { return Ok(()) };
        let sections: Vec<_> = knowledge.networks.values().filter(|section| section.network.spec.ingress).collect();
        // Of two services with one name, which no manager lets be, the first has the replicas of both.
        let named = |section: &Section| section.services.values().map(|it| it.spec.name.folded()).collect::<BTreeSet<_>>().len();
        let is_sound = sections.iter().all(|section| named(section) == section.services.len());
        for (name, service) in &host.lb.services {
            prop_assert!(service.is_published(), "{}", name);
            for (id, replica) in &service.replicas {
                let here = sections.iter().find_map(|section| Some((section.local.get(id)?.health, section.local[id].endpoint.spec.service)));
                let there = || sections.iter().find_map(|section| Some((section.remote.get(id)?.health, section.remote[id].service)));
                let Some((health, Some(of))) = here.or_else(there) else { return Err(TestCaseError::fail(format!("{name} leads to {id}, who is nobody"))) };
                prop_assert!(sections.iter().any(|section| section.services.contains_key(&of)), "{}", name);
                let is_machine = sections.iter().any(|section| section.local.get(id).is_some_and(|local| local.namespace.is_none()));
                prop_assert!(!is_sound || !is_machine || service.masquerade, "{} leads to a virtual machine that does not see nodes", name);
                prop_assert!(health != Health::Draining || replica.condition == Condition::Draining, "{} leads to {}", name, id);
            }
        }
        for (place, state) in &desired.places {
            let Place::Container(_) = place else { continue };
            let marks: BTreeSet<u32> = state.lb.arrivals.iter().flat_map(|arrivals| arrivals.marks.values().copied()).collect();
            prop_assert!(state.routes.marked.keys().copied().eq(marks), "{} has marks without routes, or routes without", place);
        }
    }

    #[test]
    fn every_port_is_pinned_by_its_devices_name(knowledge in knowledge()) {
        for (place, state) in &derive(&knowledge).places {
            let segments = &state.vxlan.segments;
            let ports = segments.values().flat_map(|segment| &segment.ports);
            let mut pinned: BTreeSet<IfName> = BTreeSet::new();
            let Place::Network(network) = place else { continue };
            let section = &knowledge.networks[network];
            for (id, port) in ports {
                let device = match port.end {
                    PortEnd::Namespace { .. } => names::port(*id).unwrap(),
                    PortEnd::Tap { interface } => interface,
                };
                let pin = BridgePort::Pinned(Pin::new(port.mac, port.addresses.iter().map(|net| net.addr())));
                let mesh = mesh_endpoint(*network, section.local[id].endpoint.spec.node);
                let held = if section.network.spec.ingress && *id == mesh { BridgePort::Trunk } else { pin }; // it sends what clients sent
                prop_assert_eq!(state.firewall.ports.get(&device), Some(&held));
                prop_assert!(pinned.insert(device), "{} twice", device);
            }
        }
    }

    #[test]
    fn who_leaves_by_the_gateway_bridge_has_an_isolated_and_pinned_port_there_and_a_network_that_is_not_internal(knowledge in knowledge()) {
        let desired = derive(&knowledge);
        let host = desired.places.get(&Place::Host).map(|host| &**host);
        let all = host.into_iter().flat_map(|host| &host.link.bridges);
        let bridges: Vec<_> = all.filter(|(name, _)| name.as_str().starts_with("gw-")).collect();
        let ports = || bridges.iter().flat_map(|(_, bridge)| &bridge.ports);
        let is_guarded = |name: &IfName| host.is_some_and(|host| host.firewall.gateways.contains_key(name));
        prop_assert!(bridges.iter().all(|(name, bridge)| bridge.isolated && is_guarded(name)));
        for (device, port) in ports() {
            let pin = Pin::new(port.mac, port.addresses.iter().map(|net| net.addr())).isolated();
            prop_assert_eq!(host.and_then(|host| host.firewall.ports.get(device)), Some(&BridgePort::Pinned(pin)));
        }
        let shared: BTreeSet<_> = ports().filter_map(|(_, port)| Some(port.inside.as_ref()?.namespace.id)).collect();
        for (place, state) in &desired.places {
            let Place::Container(name) = place else { continue };
            // With a network before its overlays that is a way out too, only what comes from its address there leaves by the bridge.
            let mut routes = state.routes.to.values().chain(state.routes.from.values());
            let leaves = routes.any(|route| route.interface.as_str() == GatewayBridge::INTERFACE);
            let open = state.within.iter().any(|network| !knowledge.networks[network].network.spec.internal);
            let at_it = ports().any(|(_, port)| port.inside.as_ref().is_some_and(|inside| inside.namespace.name == *name));
            prop_assert!(!leaves || open, "{} is on internal networks only", place);
            // Of containers that share a namespace one has the port for all.
            prop_assert!(!leaves || at_it || !shared.is_empty(), "{} has a route and no port", place);
            prop_assert!(!at_it || leaves, "{} has a port and no route", place);
        }
    }

    #[test]
    fn who_is_on_a_bridge_of_the_host_is_pinned_and_guarded_there_and_has_a_way_out_only_if_it_may(knowledge in knowledge()) {
        let desired = derive(&knowledge);
        let Some(host) = desired.places.get(&Place::Host) else { return Ok(()) };
        for (name, bridge) in host.link.bridges.iter().filter(|(name, _)| name.as_str().starts_with('b')) {
            prop_assert!(!bridge.isolated && host.firewall.gateways.contains_key(name), "{} is open", name);
            let egress = host.firewall.gateways[name].egress;
            prop_assert_eq!(bridge.routed, egress == Egress::Masquerade);
            for (device, port) in &bridge.ports {
                let pin = Pin::new(port.mac, port.addresses.iter().map(|net| net.addr()));
                prop_assert_eq!(host.firewall.ports.get(device), Some(&BridgePort::Pinned(pin)));
            }
        }
        for (place, state) in &desired.places {
            let macvlans = state.link.macvlans.values().filter(|macvlan| *place != Place::Container(macvlan.inside.namespace.name.clone()));
            prop_assert_eq!(macvlans.count(), 0, "{} has another's interface", place);
        }
    }

    #[test]
    fn an_interface_of_the_node_is_taken_over_by_one_container_or_shared(knowledge in knowledge()) {
        let desired = derive(&knowledge);
        for parent in ["eth0", "eth1"] {
            let all = desired.places.values().flat_map(|state| state.link.macvlans.values());
            let modes: Vec<_> = all.filter(|macvlan| macvlan.parent.as_str() == parent).map(|macvlan| macvlan.mode).collect();
            prop_assert!(modes.len() < 2 || !modes.contains(&MacvlanMode::Passthru), "{}: {:?}", parent, modes);
        }
    }

    #[test]
    fn no_tap_is_called_as_a_device_of_the_network_itself(mut knowledge in knowledge(), own in 0_usize..3) {
        for section in knowledge.networks.values_mut() {
            let Some(vni) = section.network.vni else { continue };
            let own = [names::bridge(vni).unwrap(), names::tunnel(vni).unwrap(), "lo".parse().unwrap()][own];
            let locals = Arc::make_mut(section).local.values_mut();
            locals.filter(|local| local.namespace.is_none()).for_each(|tap| Arc::make_mut(tap).interface = own);
        }
        for state in derive(&knowledge).places.values() {
            let ports = state.vxlan.segments.values().flat_map(|segment| segment.ports.values());
            prop_assert_eq!(ports.filter(|port| matches!(port.end, PortEnd::Tap { .. })).count(), 0);
        }
    }

    #[test]
    fn nobodys_word_changes_what_is_plugged_in_here_or_takes_an_address_of_it(knowledge in knowledge()) {
        let (with, without) = (derive(&knowledge), derive(&alone(&knowledge)));
        prop_assert_eq!(with.places.keys().collect::<Vec<_>>(), without.places.keys().collect::<Vec<_>>());
        for (place, state) in &with.places {
            let before = &without.places[place];
            prop_assert_eq!(&state.firewall, &before.firewall);
            // But for the ways back to other nodes, of which their own endpoints on the ingress network tell.
            prop_assert_eq!((&state.routes.to, &state.routes.from), (&before.routes.to, &before.routes.from));
            let Place::Network(id) = place else { continue };
            let vips = knowledge.networks[id].services.values().filter_map(|service| service.vips.get(id)).flatten();
            for (vni, segment) in &state.vxlan.segments {
                let before = &before.vxlan.segments[vni];
                prop_assert_eq!((&segment.ports, &segment.gateways), (&before.ports, &before.gateways));
                let ours: BTreeSet<Mac> = segment.ports.values().map(|port| port.mac).collect();
                prop_assert!(segment.peers.keys().all(|mac| !ours.contains(mac)));
                let theirs: BTreeSet<IpAddr> = segment.peers.values().flat_map(|peer| peer.addresses.iter().copied()).collect();
                let nets = segment.ports.values().flat_map(|port| &port.addresses).chain(&segment.gateways);
                prop_assert!(nets.map(|net| net.addr()).chain(vips.clone().copied()).all(|ours| !theirs.contains(&ours)));
            }
        }
    }

    #[test]
    fn after_any_changes_the_deriver_gives_what_derive_gives(mut knowledge in knowledge(), changes in prop::collection::vec(change(), 1..24)) {
        let mut deriver = Deriver::default();
        let mut before = deriver.derive(&knowledge);
        prop_assert_eq!(&*before, &derive(&knowledge));
        for change in changes {
            Change::apply(change, &mut knowledge);
            let after = deriver.derive(&knowledge);
            prop_assert_eq!(&*after, &derive(&knowledge));
            for (place, state) in &after.places {
                let same = before.places.get(place).filter(|same| *same == state);
                prop_assert!(same.is_none_or(|same| Arc::ptr_eq(same, state)), "{} is as it was, and copied", place);
            }
            before = after;
        }
    }
}

/// Otherwise nothing is said of the mesh.
#[test]
fn of_what_is_known_at_random_the_mesh_publishes_enough_in_every_way() {
    let mut runner = TestRunner::deterministic();
    let mut seen = [0; 8];
    for _ in 0..512 {
        let knowledge = knowledge().new_tree(&mut runner).unwrap().current();
        let desired = derive(&knowledge);
        let Some(host) = desired.places.get(&Place::Host) else { continue };
        let services: Vec<_> = host.lb.services.values().collect();
        let replicas = || services.iter().flat_map(|service| &service.replicas);
        let section = || knowledge.networks.values().filter(|section| section.network.spec.ingress);
        let here = |id| section().any(|section| section.local.contains_key(id));
        let ways = [
            replicas().any(|(id, _)| here(id)),
            replicas().any(|(id, _)| !here(id)),
            replicas().any(|(_, replica)| replica.condition == Condition::Draining),
            services.iter().any(|service| service.bind != Bind::Any && !service.replicas.is_empty()),
            services.iter().any(|service| !service.sources.is_empty() && !service.replicas.is_empty()),
            services.iter().any(|service| service.masquerade && !service.replicas.is_empty()),
            replicas()
                .any(|(id, _)| section().any(|it| it.local.get(id).is_some_and(|local| local.namespace.is_none()))),
            !host.firewall.published.is_empty(),
        ];
        ways.into_iter().zip(&mut seen).for_each(|(is, seen)| *seen += u32::from(is));
    }
    assert!(
        seen.iter().all(|seen| *seen > 0),
        "here, elsewhere, draining, bound, allowed, masqueraded, to machines, of hosts: {seen:?}"
    );
}
