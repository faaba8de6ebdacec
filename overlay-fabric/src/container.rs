//! Containers that send packets, and what crosses the links between nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_core::{EndpointId, Mtu, Name, NameError};
use overlay_datapath::Counts;
use overlay_dns::hickory_proto::op::{Message, Query};
use overlay_dns::hickory_proto::rr::{Name as Asked, RData, RecordType};
use overlay_dns::hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use overlay_dns::{Client, Config, Handled, Resolver, Transport, View};

use crate::cluster::EPOCH;
use crate::plane::{End, Plane, Question, Stack, Weather};
use crate::{Capture, Cluster, Link, UnderlayCounts};

/// A container, to send packets from. Its addresses, MTU and routes are those that its node's places hold, and it has an IP stack of
/// its own; each container answers pings, and TCP and UDP at port 80: with its name, the address that it was asked from, and what it was sent.
///
/// A method lets virtual time pass until there is an answer, or patience is over: 5 s.
///
/// ```
/// use std::time::Duration;
/// use overlay_fabric::{Cluster, Link};
/// use overlay_node::NetworkSpec;
///
/// let mut cluster = Cluster::new(7, 2);
/// cluster.create_network(NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse()?) })?;
/// cluster.attach("web", 0, "front")?;
/// cluster.attach("db", 1, "front")?;
/// cluster.settle(Duration::from_secs(10))?;
/// cluster.capture(Link::Node(0));
/// let pong = cluster.container("web").ping("db")?;
/// assert!(pong.after >= Duration::from_micros(400)); // twice over the underlay
/// let answer = cluster.container("web").tcp("db", b"hello")?;
/// assert_eq!((answer.by.as_str(), &answer.bytes[..]), ("db", &b"hello"[..]));
/// assert!(cluster.captured().is_some_and(|capture| capture.packets().len() > 4)); // and pcapng() writes them
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Container<'c> {
    cluster: &'c mut Cluster,
    name: String,
    patience: Duration,
    size: usize,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The address that was asked.
    pub to: IpAddr,
    /// How long it took.
    pub after: Duration,
    /// The container that answered; empty for a ping, whose answer does not say.
    pub by: String,
    /// Who asked, as the one that answered saw it; of a ping, who answered.
    pub seen: SocketAddr,
    /// What was sent, come back; empty for a ping.
    pub bytes: Vec<u8>,
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// A text that is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such container, or it has no interface yet.
    #[error("no container {0} runs with an interface")]
    NoContainer(String),
    /// The node's agent is down, so nobody answers for names.
    #[error("nobody answers for names: the node's agent is down, or has told the resolver none")]
    NoResolver,
    /// There is no such name, or it has no address.
    #[error("{0} has no address")]
    UnknownName(String),
    /// The container has no route there, or no address of that family.
    #[error("no route to {0}")]
    NoRoute(IpAddr),
    /// It was answered that nobody takes it.
    #[error("{0} refuses it")]
    Refused(IpAddr),
    /// No answer came in time.
    #[error("no answer from {0}")]
    Silent(IpAddr),
    /// What came back is none of the answers that containers give.
    #[error("an answer from {0} that no container gives")]
    Strange(IpAddr),
}

const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(10);

impl Container<'_> {
    /// How long it waits for an answer.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How many bytes a ping carries, if not 56: more than fit into a packet are not sent.
    #[must_use]
    pub const fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// The addresses that its resolver gives for a name, asked in bytes, both families.
    ///
    /// # Errors
    /// If nobody answers, or there is none.
    pub fn resolve(&mut self, name: &str) -> Result<Vec<IpAddr>, Unanswered> {
        let (container, node) = self.place()?;
        let view = self.cluster.net.machine(node).and_then(|station| station.views.get(&container)).cloned();
        let view = view.ok_or(Unanswered::NoResolver)?;
        let now = self.cluster.now();
        let host = self.cluster.plane().hosts.get_mut(node).ok_or(Unanswered::NoResolver)?;
        let resolver = match host.resolvers.get_mut(&container) {
            Some(resolver) => resolver,
            None => {
                let made = Resolver::new(View::default(), Config::default(), [node as u8; 32]);
                host.resolvers.entry(container).or_insert(made.map_err(|_| Unanswered::NoResolver)?)
            }
        };
        drop(resolver.set_source(view));
        let mut addresses = Vec::new();
        for record_type in [RecordType::A, RecordType::AAAA] {
            let query = question(name, record_type).ok_or_else(|| Unanswered::UnknownName(name.to_owned()))?;
            let client = Client { address: ([127, 0, 0, 1], 40_000).into(), transport: Transport::Udp, token: 0 };
            let mut reply = Vec::new();
            if resolver.handle_query(client, &query, &mut reply, now) == Handled::Reply {
                addresses.extend(answers(&reply));
            }
        }
        if addresses.is_empty() { Err(Unanswered::UnknownName(name.to_owned())) } else { Ok(addresses) }
    }

    /// Pings a container by its name or an address.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn ping(&mut self, to: &str) -> Result<Answer, Unanswered> {
        self.ask(to, &Question::Ping(self.size))
    }

    /// Opens a TCP connection to port 80, sends something, and reads until it has come back.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn tcp(&mut self, to: &str, bytes: &[u8]) -> Result<Answer, Unanswered> {
        self.ask(to, &Question::Tcp(bytes.to_vec()))
    }

    /// Sends a datagram to port 80, and waits for the answer; it is not sent again if it is lost.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn udp(&mut self, to: &str, bytes: &[u8]) -> Result<Answer, Unanswered> {
        self.ask(to, &Question::Udp(bytes.to_vec()))
    }

    /// Sends so many datagrams of so many bytes to port 9, as fast as the underlay takes them. How many came to a container.
    ///
    /// # Errors
    /// If there is no name, or no route.
    pub fn pour(&mut self, to: &str, size: usize, count: usize) -> Result<u64, Unanswered> {
        let to = self.address(to)?;
        let (node, endpoint) = self.way(to)?;
        let came = |cluster: &mut Cluster| -> u64 {
            let hosts = cluster.plane().hosts.iter();
            hosts.flat_map(|host| host.stacks.values()).map(|stack| stack.discarded).sum()
        };
        let (before, mut left) = (came(self.cluster), count);
        let until = self.cluster.now() + self.patience;
        while left > 0 && self.cluster.now() < until {
            left -= self.stack(node, endpoint, |stack| stack.pour(to, size, left)).unwrap_or_default();
            self.cluster.poke(node, endpoint);
            self.cluster.run_for(TICK);
        }
        self.cluster.run_for(self.cluster.net.conditions.latency.end * 12);
        Ok(came(self.cluster) - before)
    }

    /// Sends a frame by its interface on a network, whatever its stack would send: whole, and unlike what an honest container does.
    ///
    /// # Errors
    /// If it has no interface there.
    pub fn inject(&mut self, network: &str, frame: &[u8]) -> Result<(), Unanswered> {
        let (container, node) = self.place()?;
        let none = || Unanswered::NoContainer(self.name.clone());
        let id = self.cluster.network(network).map_err(|_| none())?.id;
        let host = self.cluster.plane().hosts.get(node).ok_or_else(none)?;
        let own = |stack: &Stack| stack.container == container && stack.attached().network == id;
        let endpoint = host.stacks.iter().find(|(_, stack)| own(stack)).map(|(endpoint, _)| *endpoint);
        let endpoint = endpoint.ok_or_else(none)?;
        let now = self.cluster.now();
        let (plane, weather) = self.cluster.sky();
        plane.inject((node, endpoint), frame, &weather, now);
        Ok(())
    }

    fn ask(&mut self, to: &str, question: &Question) -> Result<Answer, Unanswered> {
        let to = self.address(to)?;
        let (node, endpoint) = self.way(to)?;
        let (now, plane) = (self.cluster.now(), self.cluster.plane());
        plane.asked += 1;
        let number = plane.asked;
        let asked = self.stack(node, endpoint, |stack| stack.ask(number, to, question.clone(), now)).flatten();
        asked.ok_or(Unanswered::NoRoute(to))?;
        self.cluster.poke(node, endpoint);
        let until = now + self.patience;
        loop {
            let ended = self.stack(node, endpoint, |stack| stack.ended(number)).ok_or(Unanswered::Silent(to))?;
            match ended {
                Some((after, End::Read(bytes))) => return answer(to, after, &bytes).ok_or(Unanswered::Strange(to)),
                Some((_, End::Refused)) => return Err(Unanswered::Refused(to)),
                None if self.cluster.now() < until => self.cluster.run_for(TICK),
                None => break,
            }
        }
        let _ = self.stack(node, endpoint, |stack| stack.give_up(number));
        Err(Unanswered::Silent(to))
    }

    fn address(&mut self, to: &str) -> Result<IpAddr, Unanswered> {
        match to.parse() {
            Ok(address) => Ok(address),
            Err(_) => self.resolve(to)?.into_iter().next().ok_or_else(|| Unanswered::UnknownName(to.to_owned())),
        }
    }

    fn place(&mut self) -> Result<(Name, usize), Unanswered> {
        self.cluster.plane();
        let name: Name = self.name.parse()?;
        let node = self.cluster.node_of(&name).ok_or_else(|| Unanswered::NoContainer(self.name.clone()))?;
        Ok((name, node))
    }

    fn way(&mut self, to: IpAddr) -> Result<(usize, EndpointId), Unanswered> {
        let (name, node) = self.place()?;
        let host = self.cluster.plane().hosts.get(node).ok_or(Unanswered::NoRoute(to))?;
        if !host.stacks.values().any(|stack| stack.container == name) {
            return Err(Unanswered::NoContainer(self.name.clone()));
        }
        Ok((node, host.way(&name, to).ok_or(Unanswered::NoRoute(to))?))
    }

    fn stack<T>(&mut self, node: usize, endpoint: EndpointId, call: impl FnOnce(&mut Stack) -> T) -> Option<T> {
        self.cluster.plane().hosts.get_mut(node)?.stacks.get_mut(&endpoint).map(call)
    }
}

impl Cluster {
    /// A container, to send packets from: it need not be there yet.
    pub fn container(&mut self, name: &str) -> Container<'_> {
        Container { cluster: self, name: name.to_owned(), patience: PATIENCE, size: 56 }
    }

    /// Keeps what passes a link from now on.
    pub fn capture(&mut self, link: Link) {
        self.plane().capture.open(link);
    }

    /// What passed the links that are captured; `None` before any is.
    pub fn captured(&self) -> Option<&Capture> {
        self.plane.as_ref().map(|plane| &plane.capture)
    }

    /// What the underlay did with packets so far; gossip is not among them.
    pub fn underlay_counts(&self) -> UnderlayCounts {
        self.plane.as_ref().map(|plane| plane.counts).unwrap_or_default()
    }

    /// What a node's data plane carried and dropped; `None` if there is none, or it carried nothing yet.
    pub fn packet_counts(&self, node: usize) -> Option<&Counts> {
        Some(self.plane.as_ref()?.hosts.get(node)?.datapath.counts())
    }

    /// Longer packets no longer get through a node's link to the underlay, which tells nobody.
    pub fn narrow(&mut self, node: usize, mtu: Mtu) {
        if let Some(host) = self.plane().hosts.get_mut(node) {
            host.mtu = mtu.get() as usize;
        }
    }

    /// The data plane, which begins to carry packets when it is asked for first.
    pub(crate) fn plane(&mut self) -> &mut Plane {
        if self.plane.is_none() {
            let mut seed = [0x70; 32];
            seed[..8].copy_from_slice(&self.seed.to_be_bytes());
            self.plane = Some(Box::new(Plane::new(seed, Capture::new(EPOCH))));
            (0..self.nodes.len()).for_each(|number| self.add_to_plane(number));
            self.carry();
        }
        let seed = [0; 32];
        self.plane.get_or_insert_with(|| Box::new(Plane::new(seed, Capture::default())))
    }

    pub(crate) fn add_to_plane(&mut self, number: usize) {
        let (mtu, now) = (self.config.mtu.get() as usize, self.now());
        if let (Some(plane), Some(node)) = (&mut self.plane, self.nodes.get(number)) {
            plane.add(mtu, now);
            node.places.begin_to_publish();
        }
    }

    /// A node's data plane is gone with its power.
    pub(crate) fn forget_packets(&mut self, number: usize) {
        let now = self.now();
        if let Some(host) = self.plane.as_mut().and_then(|plane| plane.hosts.get_mut(number)) {
            host.reset(now);
        }
        if let Some(node) = self.nodes.get(number) {
            drop(node.places.published());
        }
    }

    /// Nodes take what they published, and packets go on until now.
    pub(crate) fn carry(&mut self) {
        let now = self.net.now();
        let Some(plane) = &mut self.plane else { return };
        let weather = Weather { conditions: &self.net.conditions, cut: &self.cut };
        for (number, node) in self.nodes.iter().enumerate() {
            if let Some(published) = node.places.published() {
                plane.take(number, &published, &weather, now);
            }
            if let Some(host) = plane.hosts.get_mut(number) {
                host.keep(|name, id| node.containers.get(name).is_some_and(|it| it.namespace.id == id));
            }
        }
        plane.run(&weather, now);
    }

    fn sky(&mut self) -> (&mut Plane, Weather<'_>) {
        self.plane();
        let seed = [0; 32];
        let plane = self.plane.get_or_insert_with(|| Box::new(Plane::new(seed, Capture::default())));
        (plane, Weather { conditions: &self.net.conditions, cut: &self.cut })
    }

    fn poke(&mut self, node: usize, endpoint: EndpointId) {
        let now = self.now();
        let (plane, weather) = self.sky();
        plane.poke(node, endpoint, &weather, now);
    }
}

fn question(name: &str, record_type: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.id = 1; // of a simulation, whose every run is the same
    message.add_query(Query::query(Asked::from_ascii(name).ok()?, record_type));
    message.metadata.recursion_desired = true;
    message.to_bytes().ok()
}

fn answers(reply: &[u8]) -> Vec<IpAddr> {
    let Ok(message) = Message::from_bytes(reply) else { return Vec::new() };
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// Takes an answer apart: a line with the name of who gives it and the address that it sees, and what was sent.
fn answer(to: IpAddr, after: Duration, bytes: &[u8]) -> Option<Answer> {
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let (by, seen) = std::str::from_utf8(bytes.get(..line)?).ok()?.split_once(' ')?;
    let by = if by == "-" { String::new() } else { by.to_owned() };
    Some(Answer { to, after, by, seen: seen.parse().ok()?, bytes: bytes.get(line + 1..)?.to_vec() })
}
