//! Nodes whose agents agree on virtual time, and what carries out what they desire in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{
    BackendError, EndpointId, ErrorKind, Instant, Mac, Mtu, NetworkId, NodeId, NsKey, Owner, Port, PortRange, Shadow,
    UnixTime, Vni,
};
use overlay_crypto::kernel::Xfrm;
use overlay_crypto::{Chance, SaId, Spi, Stage};
use overlay_driver::testing::ping_all;
use overlay_gossip::testing::{Conditions, Machine, Net};
use overlay_gossip::{Class, Role, Transmit};
use overlay_ipam::SubnetRequest;
use overlay_kernel::Namespace;
use overlay_kernel::netlink::{Drained, Notices};
use overlay_kernel::testing::judge;
use overlay_node::{
    Agent, AgentConfig, AgentEvent, CatalogueChange, Condition, Encryption, Endpoint, EndpointSpec, Input, Me,
    MemoryPlaces, Network, NetworkSpec, NodeSpec, Place, PlaceTables, Places, RoundRun, Upkeep, UpkeepConfig,
};
use overlay_vxlan::Sandbox;
use socket2::{Domain, Protocol, Socket, Type};

pub(super) const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);
pub(super) const OWN_PORT: Port = PortRange::VXLAN_ENCRYPTED.first();
pub(super) const ESP: u8 = 50;
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

/// An agent as a machine of the virtual network.
pub(super) struct Station(pub(super) Agent);

impl Machine for Station {
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

/// A host in the kernel: its ESP, one sandbox, one container.
pub(super) struct Ground {
    pub(super) host: Namespace,
    pub(super) sandbox: Namespace,
    pub(super) container: (NsKey, Namespace),
    pub(super) others: MemoryPlaces,
    /// Whether the sandbox cannot be entered for now.
    pub(super) is_stuck: bool,
}

impl Ground {
    pub(super) fn new(number: usize) -> Self {
        let [host, sandbox, container] = [(); 3].map(|()| Namespace::create().unwrap());
        let container = (container.key(format!("c{number}").parse().unwrap()), container);
        Self { host, sandbox, container, others: MemoryPlaces::default(), is_stuck: false }
    }

    pub(super) fn owner(of: &str) -> Owner {
        Owner::new("e2e".parse().unwrap(), of.parse().unwrap())
    }

    /// The places that an agent which starts again finds.
    pub(super) fn found(&self) -> Vec<Place> {
        vec![Place::Host, Place::Network(NETWORK), Place::Container(self.container.0.name.clone())]
    }

    pub(super) fn xfrm(&self) -> Xfrm {
        Xfrm::open(&Self::owner("host"), self.host.try_clone().unwrap()).unwrap()
    }

    pub(super) fn sandbox(&self) -> Sandbox {
        let host = (self.host.key("host".parse().unwrap()), self.host.try_clone().unwrap());
        let mut sandbox = Sandbox::open(&Self::owner("network"), self.sandbox.try_clone().unwrap(), host).unwrap();
        let (key, container) = &self.container;
        sandbox.reach(key.clone(), container.try_clone().unwrap()).unwrap();
        sandbox
    }
}

/// The agent of a start of a node.
pub(super) fn station(
    config: &AgentConfig,
    (number, incarnation): (usize, u64),
    address: SocketAddr,
    seed: [u8; 32],
    now: Instant,
) -> Station {
    let (id, vtep, mtu) = (node(number), address.ip(), Mtu::ETHERNET);
    let me = Me { id, incarnation, address, role: Role::Worker, vtep, mtu };
    let mut agent = Agent::new(config.clone(), me, seed, now).unwrap();
    agent.set_protection(Ok(Chance::new([number as u8 + 16 * incarnation as u8 + 1; 32])), now);
    Station(agent)
}

impl Places for Ground {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        let tables = self.others.open(place)?;
        Ok(match place {
            Place::Host => PlaceTables { crypto: Box::new(Shadow::new(self.xfrm())), ..tables },
            Place::Network(_) if self.is_stuck => return Err(BackendError::new(ErrorKind::Timeout, "enter")),
            Place::Network(_) => PlaceTables { vxlan: Box::new(Shadow::new(self.sandbox())), ..tables },
            Place::Container(_) => tables,
        })
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.others.close(place)
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        self.others.list()
    }
}

/// Nodes that agree on virtual time, what carries out what they desire, and an ear on the cable of the first one's host.
pub(super) struct Town {
    pub(super) net: Net<Station>,
    pub(super) grounds: Vec<Ground>,
    pub(super) upkeeps: Vec<Upkeep>,
    /// What hears of changes of a host's associations: of soft limits too.
    pub(super) hints: Vec<Notices>,
    pub(super) ear: Socket,
    pub(super) config: AgentConfig,
    /// Whether the containers of the first two ask each other after each job.
    pub(super) is_probed: bool,
    /// Where the hosts' cables meet.
    pub(super) _switch: Namespace,
}

/// What crossed the cable: by which associations, and what else there was of IP.
pub(super) type Heard = (BTreeSet<Spi>, Vec<Vec<u8>>);

impl Town {
    pub(super) fn new(encryption: Encryption) -> Self {
        Self::of(2, config(), encryption)
    }

    pub(super) fn of(nodes: usize, config: AgentConfig, encryption: Encryption) -> Self {
        let (grounds, switch) = ((0..nodes).map(Ground::new).collect::<Vec<_>>(), Namespace::create().unwrap());
        judge(
            &switch,
            "sh",
            &[
                "-ec",
                "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; ip link add s0 type bridge mcast_snooping 0; ip link set s0 up",
            ],
        );
        for (number, ground) in grounds.iter().enumerate() {
            let far = format!("/proc/{}/fd/{}", std::process::id(), ground.host.as_fd().as_raw_fd());
            let plug = format!(
                "ip link add p{number} type veth peer name u0 netns {far}; ip link set p{number} master s0; ip link set p{number} up"
            );
            judge(&switch, "sh", &["-ec", &plug]);
            let address = Net::<Station>::address(number).ip();
            let up = "ip link set u0 addrgenmode none; ip link set u0 up; ip addr add";
            judge(&ground.host, "sh", &["-ec", &format!("{up} {address}/24 dev u0")]);
        }
        const ALL: u16 = 3; // ETH_P_ALL: what leaves as well
        let kind = Protocol::from(i32::from(ALL.to_be()));
        let ear = grounds[0].host.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(kind))).unwrap().unwrap();
        ear.set_nonblocking(true).unwrap();
        let upkeep = || Upkeep::new(UpkeepConfig::default(), [], Instant::ZERO);
        let upkeeps = (0..nodes).map(|_| upkeep()).collect();
        let hints = grounds.iter().map(|ground| ground.host.xfrm_hints().unwrap().unwrap()).collect();
        let net = Net::new(Conditions::lan(), 14);
        let mut town = Self { net, grounds, upkeeps, hints, ear, config, is_probed: true, _switch: switch };
        for number in 0..nodes {
            let config = town.config.clone();
            town.net.add(|address, seed, now| station(&config, (number, 1), address, seed, now));
            town.tell(number, Input::Join(vec![Net::<Station>::address(0)]));
            town.tell_all(number, encryption);
        }
        town.net.run_for(Duration::from_secs(5));
        (0..nodes).for_each(|number| town.plug(number));
        town
    }

    /// What the catalogue has.
    pub(super) fn tell_all(&mut self, number: usize, encryption: Encryption) {
        let nodes = self.grounds.len();
        (0..nodes).for_each(|of| self.tell(number, Input::Catalogue(CatalogueChange::Node(Arc::new(record(of))))));
        self.tell(number, Input::Catalogue(CatalogueChange::Network(Arc::new(network(encryption)))));
        for other in 0..nodes {
            let endpoint = Arc::new(endpoint(other, &self.grounds[other].container.0));
            self.tell(number, Input::Catalogue(CatalogueChange::Endpoint(endpoint)));
        }
    }

    /// The agent of a node dies, with all that carries out what it wants. What its host holds stays.
    pub(super) fn kill(&mut self, number: usize) {
        drop(self.net.crash(number).unwrap());
        self.upkeeps[number] = Upkeep::new(UpkeepConfig::default(), [], self.net.now());
    }

    /// It starts again, and finds what is there.
    pub(super) fn begin_again(&mut self, number: usize, incarnation: u64) {
        let config = self.config.clone();
        self.net.restart(number, |address, seed, now| station(&config, (number, incarnation), address, seed, now));
        let found = self.grounds[number].found();
        self.upkeeps[number] = Upkeep::new(UpkeepConfig::default(), found, self.net.now());
        self.tell(number, Input::Join(vec![Net::<Station>::address(1)]));
        self.tell_all(number, Encryption::Shared);
        self.plug(number);
    }

    /// How much was sealed, where something is to be heard of associations: one has come to its soft limit, say.
    pub(super) fn mind_usage(&mut self, number: usize) {
        if self.hints[number].drain(|_| {}).unwrap() == Drained::Quiet {
            return;
        }
        let usage = self.grounds[number].xfrm().usage().unwrap();
        self.tell(number, Input::Used(usage));
    }

    /// A container pings another so often, every so many seconds, and says at the end how that was.
    pub(super) fn ping(&self, from: usize, to: usize, (count, interval): (u32, &str)) -> Child {
        let (count, to) = (count.to_string(), format!("10.9.0.{}", to + 2));
        let ping = ["-q", "-i", interval, "-c", &count, "-W", "5", &to];
        let ping = || Command::new("ping").args(ping).stdout(Stdio::piped()).spawn().unwrap();
        self.grounds[from].container.1.run(ping).unwrap() // a child is in the namespace of the thread that starts it
    }

    /// A tenth of a second passes for the agents that run, and what they want is carried out.
    pub(super) fn tick(&mut self) {
        self.net.run_for(Duration::from_millis(100));
        for number in 0..self.grounds.len() {
            if self.net.machine(number).is_some() {
                self.mind_usage(number);
                self.carry_out(number);
            }
        }
    }

    pub(super) fn stage(&self, number: usize) -> Option<Stage> {
        self.net.machine(number).unwrap().0.metrics().stage
    }

    /// The associations that a host holds.
    pub(super) fn spis(&self, number: usize) -> BTreeSet<SaId> {
        self.grounds[number].xfrm().usage().unwrap().into_keys().collect()
    }

    pub(super) fn plug(&mut self, number: usize) {
        let namespace = Some(self.grounds[number].container.0.clone());
        let interface = "eth0".parse().unwrap();
        self.tell(number, Input::Plug { endpoint: id(number), namespace, interface, adopted: false });
    }

    pub(super) fn tell(&mut self, number: usize, input: Input) {
        self.net.with(number, |station, now| station.0.handle(input, now)).unwrap().unwrap();
    }

    /// Lets the agents agree, and carries out what they desire, until nothing is due; after each job nothing must have been in the clear.
    pub(super) fn settle(&mut self) {
        for _ in 0..4 {
            self.net.run_for(Duration::from_secs(3));
            for number in 0..self.grounds.len() {
                self.carry_out(number);
            }
        }
    }

    pub(super) fn carry_out(&mut self, number: usize) {
        assert_eq!(self.try_out(number), Vec::<String>::new(), "{number}");
    }

    /// What failed.
    pub(super) fn try_out(&mut self, number: usize) -> Vec<String> {
        let now = self.net.now();
        let (desired, heard) = self.net.with(number, |station, _| (station.0.desired(), station.0.heard())).unwrap();
        self.upkeeps[number].desire(desired, now);
        let mut failures = Vec::new();
        let Some(round) = self.upkeeps[number].begin(now) else {
            self.net.with(number, |station, _| station.0.acted(heard)); // and nothing is to be done
            return failures;
        };
        let mut run = RoundRun::new(round, &mut self.grounds[number]);
        while let Some(ran) = run.step(&mut self.grounds[number], |_| 0) {
            failures.extend(ran.result.clone().err());
            if self.is_probed {
                self.reach();
            }
            assert_eq!(self.heard().1, Vec::<Vec<u8>>::new(), "after {number}: {ran:?}");
        }
        let (round, schedule) = run.into_parts();
        let wanted: BTreeMap<_, _> = round.places().map(|(place, state)| (place.clone(), state.cloned())).collect();
        for (place, done) in self.upkeeps[number].end(round, &schedule, now) {
            let state = wanted[&place].clone();
            let result = done.then_some(()).ok_or_else(|| "failed".to_owned());
            self.tell(number, Input::Applied { place, state, result });
        }
        if failures.is_empty() {
            self.net.with(number, |station, _| station.0.acted(heard));
        }
        failures
    }

    /// Carries out what a node desires, and nobody hears of it.
    pub(super) fn carry_out_unheard(&mut self, number: usize) {
        let now = self.net.now();
        let desired = self.net.with(number, |station, _| station.0.desired()).unwrap();
        self.upkeeps[number].desire(desired, now);
        let Some(round) = self.upkeeps[number].begin(now) else { return };
        let mut run = RoundRun::new(round, &mut self.grounds[number]);
        while run.step(&mut self.grounds[number], |_| 0).is_some() {}
    }

    /// How many rotations of keys the nodes have ended.
    pub(super) fn rotations(&self) -> u64 {
        let ended = |number| self.net.machine(number).unwrap().0.metrics().rotations.ended;
        ended(0) + ended(1)
    }

    /// Whether each container is answered by the other.
    pub(super) fn reach(&self) -> [bool; 2] {
        [0, 1].map(|from| {
            let (_, container) = &self.grounds[from].container;
            let to = [address(1 - from).parse::<ipnet::IpNet>().unwrap().addr()];
            ping_all(container, &to, PATIENCE).is_ok_and(|silent| silent.is_empty())
        })
    }

    /// What crossed the cable since this was asked last.
    pub(super) fn heard(&self) -> Heard {
        let (mut heard, mut frame) = (Heard::default(), [0; 2048]);
        while let Ok(size) = (&self.ear).read(&mut frame) {
            match (&frame[12..14], frame[23]) {
                ([8, 6], _) => {} // ARP
                ([8, 0], ESP) => {
                    let spi = u32::from_be_bytes(*frame[34..].first_chunk().unwrap());
                    heard.0.insert(Spi::new(spi).unwrap());
                }
                _ => heard.1.push(frame[..size].to_vec()),
            }
        }
        heard
    }

    /// The associations that both ways pass by; all that crossed was sealed by those.
    pub(super) fn passes(&self) -> BTreeSet<Spi> {
        self.heard();
        assert_eq!(self.reach(), [true; 2]);
        let (spis, clear) = self.heard();
        assert_eq!((spis.len(), clear), (2, vec![]));
        spis
    }

    /// How many packets came to host 0 sealed for an association that it does not have.
    pub(super) fn refused(&self) -> u64 {
        let counted = judge(&self.grounds[0].host, "cat", &["/proc/net/xfrm_stat"]);
        let line = counted.lines().find(|line| line.starts_with("XfrmInNoStates")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Whether host 0 has associations, guards, and a segment in its sandbox.
    pub(super) fn held(&self) -> (bool, bool, bool) {
        let Ground { host, sandbox, .. } = &self.grounds[0];
        let [states, policies] = ["state", "policy"].map(|what| judge(host, "ip", &["xfrm", what]));
        let links = judge(sandbox, "ip", &["-d", "link"]);
        (!states.is_empty(), policies.contains("block"), links.contains("vxlan"))
    }

    pub(super) fn is_dark(&self, after: &str) {
        self.heard();
        assert_eq!((self.reach(), self.heard().1), ([false; 2], vec![]), "{after}");
    }
}

/// Of nodes that confirm what they act upon, and rotate as fast as they can.
pub(super) fn config() -> AgentConfig {
    let mut config = AgentConfig::lan();
    config.gossip.tables.act_within = Some(Duration::from_secs(3));
    config.rotation.rest = Duration::from_millis(500);
    config
}

pub(super) fn node(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 16])
}

pub(super) fn record(number: usize) -> overlay_node::Node {
    let spec = NodeSpec { name: format!("n{number}").parse().unwrap(), role: Role::Worker };
    let (created, condition) = (UnixTime::from_millis(0), Condition::Allocated);
    overlay_node::Node { id: node(number), spec, created, condition }
}

pub(super) fn id(number: usize) -> EndpointId {
    EndpointId::from_bytes([number as u8 + 2; 16])
}

pub(super) fn address(number: usize) -> String {
    format!("10.9.0.{}/24", number + 2)
}

pub(super) fn network(encryption: Encryption) -> Network {
    let subnet: ipnet::IpNet = "10.9.0.0/24".parse().unwrap();
    let spec = NetworkSpec::overlay("secret".parse().unwrap());
    Network {
        id: NETWORK,
        spec: NetworkSpec { attachable: true, encryption, ..spec },
        subnets: vec![SubnetRequest::this(subnet).place(subnet).unwrap()],
        vni: Some(Vni::new(4097).unwrap()),
        port: (encryption == Encryption::Own).then_some(OWN_PORT),
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    }
}

pub(super) fn endpoint(number: usize, container: &NsKey) -> Endpoint {
    Endpoint {
        id: id(number),
        spec: EndpointSpec::new(NETWORK, container.name.clone(), node(number)),
        addresses: [address(number).parse().unwrap()].into(),
        mac: Mac::from_ipv4([10, 9, 0, number as u8 + 2].into()),
        moves: 0,
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    }
}
