//! Agents on a virtual network, and a catalogue that is what a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Instant, Mac, Mtu, Name, NetworkId, NodeId, NsId, NsKey, UnixTime, Vni};
use overlay_gossip::testing::{Conditions, Machine, Net};
use overlay_gossip::{Class, Role, Transmit};
use overlay_ipam::SubnetRequest;
use overlay_node::{
    Agent, AgentConfig, AgentEvent, CatalogueChange, Condition, Desired, Endpoint, EndpointSpec, Input, Me, Network,
    NetworkSpec, NodeSpec, Place, PlaceState,
};
use overlay_vxlan::Segment;

pub(crate) const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);

/// An agent as a machine of the virtual network.
pub(crate) struct Node(pub(crate) Agent);

impl Machine for Node {
    type Event = AgentEvent;

    fn handle(&mut self, from: SocketAddr, class: Class, payload: &[u8], now: Instant) {
        let _ = self.0.handle(Input::Message { from, class, payload: payload.to_vec().into() }, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout().map(|(at, _)| at)
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.0.poll_transmit(now)
    }

    fn poll_event(&mut self) -> Option<AgentEvent> {
        self.0.poll_event()
    }
}

pub(crate) struct Town {
    pub(crate) net: Net<Node>,
}

impl Town {
    /// So many nodes that know each other, and a network.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self::of(&AgentConfig::lan(), seed, nodes)
    }

    /// One whose nodes confirm what they have acted upon, or what they heard so long ago.
    pub(crate) fn acting(within: Duration, seed: u64, nodes: usize) -> Self {
        let mut config = AgentConfig::lan();
        config.gossip.tables.act_within = Some(within);
        Self::of(&config, seed, nodes)
    }

    /// One of a single node, that may take part in the routing mesh.
    pub(crate) fn meshed(seed: u64) -> Self {
        let host = Some(NsKey { name: Name::new("host").unwrap(), id: NsId { device: 4, inode: 1 } });
        Self::of(&AgentConfig { host, ..AgentConfig::lan() }, seed, 1)
    }

    fn of(config: &AgentConfig, seed: u64, nodes: usize) -> Self {
        let mut net = Net::new(Conditions::lan(), seed);
        net.keep_events(|_| true);
        for number in 0..nodes {
            net.add(|address, seed, now| Node(Agent::new(config.clone(), me(number, 1, address), seed, now).unwrap()));
        }
        let mut town = Self { net };
        for number in 0..nodes {
            town.tell(number, Input::Join(vec![Net::<Node>::address(0)]));
        }
        (0..nodes).for_each(|number| town.admit(number));
        town.publish(&CatalogueChange::Network(Arc::new(network())));
        town.run(5);
        town
    }

    pub(crate) fn run(&mut self, seconds: u64) {
        self.net.run_for(Duration::from_secs(seconds));
    }

    /// The same, and what is desired is in effect a moment later.
    pub(crate) fn live(&mut self, seconds: u64) {
        for _ in 0..seconds * 5 {
            self.net.run_for(Duration::from_millis(200));
            let running: Vec<usize> = self.net.running().collect();
            for node in running {
                self.apply(node);
            }
        }
    }

    pub(crate) fn tell(&mut self, node: usize, input: Input) {
        self.net.with(node, |agent, now| agent.0.handle(input, now)).unwrap().unwrap();
    }

    /// All nodes hear of it.
    pub(crate) fn publish(&mut self, change: &CatalogueChange) {
        let running: Vec<usize> = self.net.running().collect();
        for node in running {
            self.tell(node, Input::Catalogue(change.clone()));
        }
    }

    /// A node is the cluster's, says the catalogue.
    pub(crate) fn admit(&mut self, number: usize) {
        let spec = NodeSpec { name: Name::new(&format!("n{number}")).unwrap(), role: Role::Worker };
        let (id, created, condition) = (node_id(number), UnixTime::from_millis(0), Condition::Allocated);
        self.publish(&CatalogueChange::Node(Arc::new(overlay_node::Node { id, spec, created, condition })));
    }

    /// An endpoint with this number is on a node, says the catalogue.
    pub(crate) fn assign(&mut self, number: u8, node: usize, moves: u64) {
        self.publish(&CatalogueChange::Endpoint(Arc::new(endpoint(number, node, moves))));
    }

    pub(crate) fn plug(&mut self, number: u8, node: usize) {
        self.plug_in(number, node, number.into(), false);
    }

    /// Plugs a container in whose namespace is this one, be it since an earlier start.
    pub(crate) fn plug_in(&mut self, number: u8, node: usize, inode: u64, adopted: bool) {
        let namespace = Some(NsKey { name: container(number), id: NsId { device: 4, inode } });
        self.tell(node, Input::Plug { endpoint: id(number), namespace, interface: eth0(), adopted });
    }

    pub(crate) fn desired(&mut self, node: usize) -> Arc<Desired> {
        self.net.with(node, |agent, _| agent.0.desired()).unwrap()
    }

    pub(crate) fn sandbox(&mut self, node: usize) -> Option<Arc<PlaceState>> {
        self.desired(node).places.get(&Place::Network(NETWORK)).cloned()
    }

    pub(crate) fn segment(&mut self, node: usize) -> Option<Segment> {
        self.sandbox(node)?.vxlan.segments.values().next().cloned()
    }

    /// The nodes that a node's segment sends an endpoint's frames to.
    pub(crate) fn peer(&mut self, node: usize, number: u8) -> Option<usize> {
        let vtep = self.segment(node)?.peers.get(&mac(number))?.vtep;
        (0..self.net.len()).find(|node| vtep == Net::<Node>::address(*node).ip())
    }

    /// All places of a node hold what they should.
    pub(crate) fn apply(&mut self, node: usize) {
        for (place, state) in self.desired(node).places.clone() {
            self.tell(node, Input::Applied { place, state: Some(state), result: Ok(()) });
        }
    }

    /// What was told since this was asked last, but for changes.
    pub(crate) fn events(&mut self) -> Vec<(usize, AgentEvent)> {
        let events = self.net.take_events().into_iter().map(|(_, node, event)| (node, event));
        events.filter(|(_, event)| !matches!(event, AgentEvent::Changed | AgentEvent::Joined)).collect()
    }
}

pub(crate) fn agent(number: usize, incarnation: u64, address: SocketAddr, seed: [u8; 32], now: Instant) -> Node {
    Node(Agent::new(AgentConfig::lan(), me(number, incarnation, address), seed, now).unwrap())
}

pub(crate) fn me(number: usize, incarnation: u64, address: SocketAddr) -> Me {
    Me { id: node_id(number), incarnation, address, role: Role::Worker, vtep: address.ip(), mtu: Mtu::ETHERNET }
}

pub(crate) fn node_id(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 16])
}

pub(crate) fn network() -> Network {
    let subnets = ["10.9.0.0/24", "fd00:9::/64"].map(|text| {
        let net: IpNet = text.parse().unwrap();
        SubnetRequest::this(net).place(net).unwrap()
    });
    Network {
        id: NETWORK,
        spec: NetworkSpec { attachable: true, ..NetworkSpec::overlay("customoverlay".parse().unwrap()) },
        subnets: subnets.into(),
        vni: Some(Vni::new(4097).unwrap()),
        port: None,
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    }
}

pub(crate) fn endpoint(number: u8, node: usize, moves: u64) -> Endpoint {
    let addresses = [format!("10.9.0.{number}/24"), format!("fd00:9::{number:x}/64")];
    Endpoint {
        id: id(number),
        spec: EndpointSpec::new(NETWORK, container(number), node_id(node)),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        mac: mac(number),
        moves,
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    }
}

pub(crate) fn id(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

pub(crate) fn mac(number: u8) -> Mac {
    Mac::from_ipv4([10, 9, 0, number].into())
}

pub(crate) fn container(number: u8) -> Name {
    Name::new(&format!("c{number}")).unwrap()
}

pub(crate) fn eth0() -> IfName {
    IfName::new("eth0").unwrap()
}
