//! Who is led to an endpoint that is not in effect yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId, NsId, NsKey, Port, Protocol, Vni};
use overlay_dns::Health;
use overlay_ipam::SubnetRequest;
use overlay_lb::Condition as Taking;
use overlay_node::{
    AgentEvent, CatalogueChange, Condition, Endpoint, EndpointSpec, Input, Network, NetworkSpec, Place, PublishMode,
    PublishedPort, Service, ServiceSpec,
};

use crate::town::{NETWORK, Node, Town, agent, container, id, network, node_id};
use crate::watch::{put, replica, web};

/// Two nodes: on the second a container that asks, on the first those that serve.
fn town(seed: u64) -> Town {
    let mut town = Town::new(seed, 2);
    town.publish(&CatalogueChange::Service(Arc::new(web())));
    town.assign(2, 1, 0);
    town.plug(2, 1);
    town
}

fn serve(town: &mut Town, number: u8) {
    put(town, &replica(number, 0, 0, 1));
    town.plug(number, 0);
    town.run(2);
}

/// Both replicas, in effect.
fn both_serve(seed: u64) -> Town {
    let mut town = town(seed);
    serve(&mut town, 3);
    serve(&mut town, 4);
    town.live(2);
    town
}

/// What a container on a node leads to the replicas, and who is named.
fn led(town: &mut Town, node: usize, from: u8) -> (BTreeMap<EndpointId, Taking>, usize) {
    let state = town.desired(node).places[&Place::Container(container(from))].clone();
    let taking = state.lb.services.values().flat_map(|service| &service.replicas);
    let named = state.view.addresses(&"tasks.web".parse().unwrap()).unwrap();
    (taking.map(|(id, replica)| (*id, replica.condition)).collect(), named.len() / 2)
}

/// Both replicas.
fn all() -> (BTreeMap<EndpointId, Taking>, usize) {
    ([3, 4].map(|it| (id(it), Taking::Active)).into(), 2)
}

/// The first, as the second is not in effect.
fn first_alone() -> (BTreeMap<EndpointId, Taking>, usize) {
    ([(id(3), Taking::Active), (id(4), Taking::Draining)].into(), 1)
}

#[test]
fn nobody_is_led_to_one_that_is_not_in_effect_while_another_serves_though_all_know_where_it_is() {
    let mut town = town(61);
    serve(&mut town, 3);
    town.live(1);
    serve(&mut town, 4);
    assert_eq!(town.peer(1, 4), Some(0), "what it sends is answered");
    for (node, from) in [(1, 2), (0, 3)] {
        assert_eq!(led(&mut town, node, from), first_alone());
    }
    town.tell(0, Input::Applied { place: Place::Container(container(4)), state: None, result: Err("busy".into()) });
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), first_alone(), "it could not be plugged in");
    town.live(2);
    for (node, from) in [(1, 2), (0, 3)] {
        assert_eq!(led(&mut town, node, from), all());
    }
}

#[test]
fn where_nobody_else_serves_one_that_is_not_in_effect_is_better_than_none() {
    let mut town = town(62);
    serve(&mut town, 3);
    assert_eq!(led(&mut town, 1, 2), ([(id(3), Taking::Active)].into(), 1));
}

#[test]
fn one_that_was_in_effect_stays_so_when_a_place_fails_or_its_node_starts_again() {
    let mut town = both_serve(63);
    town.tell(0, Input::Applied { place: Place::Container(container(4)), state: None, result: Ok(()) });
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), all());

    begin_again(&mut town, true);
    for _ in 0..20 {
        town.net.run_for(std::time::Duration::from_millis(100));
        assert_eq!(led(&mut town, 1, 2), all(), "what the catalogue says of the start before counts");
    }
}

/// The first node starts again, where its two containers are as it left them, or are plugged in anew.
fn begin_again(town: &mut Town, adopted: bool) {
    town.net.crash(0);
    town.net.restart(0, |address, seed, now| agent(0, 2, address, seed, now));
    town.tell(0, Input::Join(vec![overlay_gossip::testing::Net::<Node>::address(1)]));
    town.tell(0, Input::Catalogue(CatalogueChange::Network(Arc::new(network()))));
    town.tell(0, Input::Catalogue(CatalogueChange::Service(Arc::new(web()))));
    for number in [3, 4] {
        let ready = Endpoint { condition: Condition::Ready, ..replica(number, 0, 0, 1) };
        town.plug_in(number, 0, number.into(), adopted);
        put(town, &ready);
    }
}

#[test]
fn after_a_machine_began_anew_what_the_catalogue_has_as_ready_waits_all_the_same() {
    let mut town = both_serve(70);
    begin_again(&mut town, false);
    town.tell(0, Input::Health(id(3), Health::Draining));
    town.run(10);
    let said =
        |town: &mut Town| town.net.with(1, |agent, _| agent.0.knowledge().networks[&NETWORK].remote[&id(4)].health);
    assert_eq!(said(&mut town), Some(Health::Suspect));
    town.live(2);
    assert_eq!(said(&mut town), Some(Health::Healthy));
}

#[test]
fn one_whose_container_is_another_now_waits_again() {
    let mut town = both_serve(64);
    town.plug_in(4, 0, 99, false);
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), first_alone());
    town.live(2);
    assert_eq!(led(&mut town, 1, 2), all());
}

#[test]
fn one_that_is_unplugged_and_plugged_in_again_waits_whatever_the_catalogue_says() {
    let mut town = both_serve(65);
    put(&mut town, &Endpoint { condition: Condition::Ready, ..replica(4, 0, 0, 1) });
    town.tell(0, Input::Unplug(id(4)));
    town.live(2);
    town.plug(4, 0);
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), first_alone());
    town.live(2);
    assert_eq!(led(&mut town, 1, 2), all());
}

#[test]
fn what_the_place_of_the_former_container_held_is_not_what_the_new_one_holds() {
    let mut town = both_serve(66);
    town.plug_in(4, 0, 99, false);
    town.tell(0, Input::Applied { place: Place::Container(container(4)), state: None, result: Ok(()) });
    let place = Place::Network(NETWORK);
    let state = town.sandbox(0);
    town.tell(0, Input::Applied { place, state, result: Ok(()) });
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), first_alone());
}

#[test]
fn at_another_interface_of_its_container_one_is_in_effect_once_its_network_holds_it() {
    let mut town = town(69);
    serve(&mut town, 3);
    town.live(2);
    let namespace = Some(NsKey { name: container(3), id: NsId { device: 4, inode: 3 } });
    town.tell(0, Input::Plug { endpoint: id(3), namespace, interface: "eth9".parse().unwrap(), adopted: false });
    town.run(1);
    town.events();
    let (place, state) = (Place::Network(NETWORK), town.sandbox(0));
    town.tell(0, Input::Applied { place, state, result: Ok(()) });
    assert_eq!(town.events(), [(0, AgentEvent::Report { endpoint: id(3), moves: 0, result: Ok(()) })]);
}

/// A service that publishes a port in this mode.
fn publishing(mode: PublishMode) -> Service {
    let port = |number| Port::new(number).unwrap();
    let published = PublishedPort { published: Some(port(80)), mode, ..PublishedPort::new(Protocol::Tcp, port(8080)) };
    let spec = ServiceSpec { ports: vec![published.clone()], ..web().spec };
    Service { spec, ports: vec![published], ..web() }
}

#[test]
fn one_whose_host_port_is_anothers_is_led_to_by_name_and_vip_all_the_same() {
    let mut town = town(67);
    town.publish(&CatalogueChange::Service(Arc::new(publishing(PublishMode::Host))));
    let taken = [((Protocol::Tcp, Port::new(80).unwrap()), "nginx".to_owned())].into();
    town.tell(0, Input::Taken(taken));
    serve(&mut town, 3);
    serve(&mut town, 4);
    town.live(2);
    let failed = |(_, event): &(usize, AgentEvent)| matches!(event, AgentEvent::Report { result: Err(why), .. } if why.contains("nginx"));
    assert_eq!(town.events().iter().filter(|event| failed(event)).count(), 2);
    assert_eq!(led(&mut town, 1, 2), all());
}

const INGRESS: NetworkId = NetworkId::from_bytes([8; 16]);

fn ingress() -> Network {
    let net = "10.8.0.0/24".parse().unwrap();
    let spec = NetworkSpec { ingress: true, ..NetworkSpec::overlay("ingress".parse().unwrap()) };
    let subnets = [SubnetRequest::this(net).place(net).unwrap()].into();
    Network { id: INGRESS, spec, subnets, vni: Some(Vni::new(4098).unwrap()), ..network() }
}

/// An endpoint on the ingress network.
fn on_ingress(id: EndpointId, container: &str, host: u8) -> Endpoint {
    let spec = EndpointSpec::new(INGRESS, container.parse().unwrap(), node_id(0));
    let addresses = [format!("10.8.0.{host}/24").parse().unwrap()].into();
    Endpoint { id, spec, addresses, ..replica(host, 0, 0, 1) }
}

/// The id that a node's own part of the mesh has: FNV-1a of 128 bits, of `mesh`, the network and the node.
fn part() -> EndpointId {
    let bytes = b"mesh".iter().copied().chain(INGRESS.to_bytes()).chain(node_id(0).to_bytes());
    let fold = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x100_0000_0000_0000_0000_013b);
    EndpointId::from_bytes(bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, fold).to_be_bytes())
}

#[test]
fn in_the_mesh_a_node_is_in_effect_by_its_network_and_a_container_once_it_has_the_ways_back() {
    let mut town = Town::meshed(68);
    town.publish(&CatalogueChange::Network(Arc::new(ingress())));
    let service = publishing(PublishMode::Ingress);
    let vips = [(INGRESS, ["10.8.0.200".parse().unwrap()].into())].into();
    town.publish(&CatalogueChange::Service(Arc::new(Service { vips, ..service })));
    put(&mut town, &on_ingress(part(), "routing-mesh", 2));
    put(&mut town, &on_ingress(id(5), "c5", 5));
    town.plug(5, 0);
    town.run(1);
    assert_eq!(town.net.with(0, |agent, _| agent.0.in_mesh().count()), Some(1));
    town.events();
    let ready = |endpoint| (0, AgentEvent::Report { endpoint, moves: 0, result: Ok(()) });
    let held = |town: &mut Town, place: &Place| {
        let state = Some(town.desired(0).places[place].clone());
        town.tell(0, Input::Applied { place: place.clone(), state, result: Ok(()) });
        town.events()
    };
    assert_eq!(held(&mut town, &Place::Network(INGRESS)), [ready(part())]);
    assert_eq!(held(&mut town, &Place::Container(container(5))), [ready(id(5))]);
}
