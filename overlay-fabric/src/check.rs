//! What must hold of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use overlay_core::testing::block_on;
use overlay_core::{AddressSet, EndpointId, Instant, IpFamily, Mac, Name, NetworkId, Port, State as _};
use overlay_crypto::{Datagram, Verdict};
use overlay_gossip::TableId;
use overlay_node::{Condition, Control, Encryption, Endpoint, Network, Place};

use crate::{Broken, Cluster, Hop, Observed, Trace};

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What repeats the run.
    pub seed: u64,
    /// When it was found.
    pub at: Instant,
    /// Each thing that is wrong.
    pub what: Vec<String>,
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} at {}:", self.seed, self.at)?;
        self.what.iter().take(20).try_for_each(|what| write!(f, "\n  {what}"))?;
        match self.what.len().checked_sub(20) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n  and {more} more"),
        }
    }
}

/// How much a check looked at: for tests to show that it was something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Endpoints of the catalogue.
    pub endpoints: usize,
    /// Places that hold something.
    pub places: usize,
    /// Forwarding entries, each to the right place.
    pub peers: usize,
    /// Entries of gossip tables that are the same on two nodes.
    pub entries: usize,
    /// Probes between containers that share a network, all answered.
    pub answered: usize,
    /// Probes between containers that share none, none answered.
    pub refused: usize,
}

impl Checked {
    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            endpoints: self.endpoints + other.endpoints,
            places: self.places + other.places,
            peers: self.peers + other.peers,
            entries: self.entries + other.entries,
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
        }
    }
}

/// What should be, by the catalogue, by what runs where, and by which nodes are up; not by what any node believes.
struct Truth {
    networks: BTreeMap<NetworkId, Network>,
    endpoints: Vec<Endpoint>,
    /// Those that run, and the node.
    live: BTreeMap<EndpointId, usize>,
}

impl Cluster {
    /// What must hold at every moment, whatever goes on: no address twice, no subnet twice, nothing open that is not guarded, nothing of an
    /// encrypted network that a node would send or take in the clear.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_always(&self) -> Result<(), Violation> {
        let mut what = self.broken.clone();
        what.extend(self.net.running().filter_map(|node| self.net.machine(node)).flat_map(|it| it.broken.clone()));
        match self.truth() {
            Ok(truth) => {
                what.extend(unique(&truth));
                what.extend(self.clear(&truth));
            }
            Err(error) => what.push(error),
        }
        self.verdict(what)
    }

    /// What must hold once nothing has changed for a while, and all nodes that run reach each other: tables are equal,
    /// every place holds what it should and no more, no forwarding entry leads anywhere but to where the endpoint is, containers
    /// of one network reach each other by name and those of different networks do not. Nodes that were removed are not looked at.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<Checked, Violation> {
        self.check_always()?;
        let truth = self.truth().map_err(|error| self.violation(vec![error]))?;
        let mut checked = Checked { endpoints: truth.endpoints.len(), ..Checked::default() };
        let mut what = self.quiet();
        what.extend(self.unready(&truth));
        what.extend(self.places_hold(&truth, &mut checked));
        let observed = self.observe();
        what.extend(self.entries_lead(&truth, &observed, &mut checked));
        what.extend(self.tables_are_equal(&mut checked));
        if what.is_empty() {
            what.extend(self.probes(&truth, &observed, &mut checked));
        }
        self.verdict(what).map(|()| checked)
    }

    /// Lets time pass until [`check`](Self::check) finds nothing wrong, and looks once more a second later.
    ///
    /// # Errors
    /// What still does not hold when `limit` is over.
    pub fn settle(&mut self, limit: Duration) -> Result<Checked, Violation> {
        let end = self.now() + limit;
        loop {
            self.run_for(Duration::from_millis(200));
            match self.check() {
                Ok(_) => {
                    self.run_for(Duration::from_secs(1));
                    return self.check();
                }
                Err(violation) if self.now() >= end => return Err(violation),
                Err(_) => self.check_always()?,
            }
        }
    }

    /// What becomes of a packet from one container to another, by name, and of its answer: see [`Observed::probe`].
    pub fn probe(&self, from: &str, to: &str) -> Trace {
        match from.parse::<Name>() {
            Ok(from) => self.observe().probe(&from, to),
            Err(_) => Trace { broken: Some(Broken::NoContainer(from.to_owned())), ..Trace::default() },
        }
    }

    fn verdict(&self, what: Vec<String>) -> Result<(), Violation> {
        if what.is_empty() { Ok(()) } else { Err(self.violation(what)) }
    }

    fn violation(&self, what: Vec<String>) -> Violation {
        Violation { seed: self.seed, at: self.now(), what }
    }

    fn truth(&self) -> Result<Truth, String> {
        let networks = block_on(self.oracle.networks()).map_err(|error| error.to_string())?;
        let mut endpoints = Vec::new();
        for network in &networks {
            endpoints.extend(block_on(self.oracle.endpoints(network.id)).map_err(|error| error.to_string())?);
        }
        let runs = |endpoint: &Endpoint| {
            let node = self.nodes.iter().position(|node| node.id == endpoint.spec.node)?;
            let container = self.nodes[node].containers.get(&endpoint.spec.container)?;
            let up = self.net.machine(node).is_some() && container.plugs.contains_key(&endpoint.id);
            up.then_some((endpoint.id, node))
        };
        let live = endpoints.iter().filter_map(runs).collect();
        let networks = networks.into_iter().map(|network| (network.id, network)).collect();
        Ok(Truth { networks, endpoints, live })
    }

    /// No node would send a datagram of an encrypted network to another in the clear, or take one.
    fn clear(&self, truth: &Truth) -> Vec<String> {
        let mut what = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let host = node.places.held.place(&Place::Host).map(|held| held.crypto.state()).unwrap_or_default();
            for (place, held) in node.places.held.places() {
                let Place::Network(network) = place else { continue };
                for segment in held.vxlan.state().segments.into_values().filter(|segment| !segment.ports.is_empty()) {
                    let port = segment.vtep.port;
                    let wanted = truth.networks.get(&network).map(|network| self.tunnel_port(network));
                    if wanted.is_some_and(|wanted| wanted != Some(port)) {
                        what.push(format!("node {number}, {place} is at port {port}"));
                    }
                    let others = self.nodes.iter().map(|other| other.vtep).filter(|other| *other != node.vtep);
                    let (source, source_port) = (segment.vtep.local, 50_000);
                    let datagrams = others.filter(|_| port != self.config.agent.vxlan_port).map(|destination| {
                        let destination_port = port.get();
                        Datagram { source, destination, source_port, destination_port }
                    });
                    let passes = |it: &Datagram| [host.outgoing(it), host.incoming(it)].contains(&Verdict::Pass);
                    what.extend(datagrams.filter(passes).map(|it| format!("node {number}, {place}: {it:?} is clear")));
                }
            }
        }
        what
    }

    /// Where the tunnels of a network should be.
    fn tunnel_port(&self, network: &Network) -> Option<Port> {
        match network.spec.encryption {
            Encryption::None => Some(self.config.agent.vxlan_port),
            Encryption::Shared => Some(self.config.agent.encrypted_port),
            Encryption::Own => network.port,
        }
    }

    fn quiet(&self) -> Vec<String> {
        if self.is_quiet() { Vec::new() } else { vec!["something is still on its way".to_owned()] }
    }

    /// Endpoints that run are ready, and the catalogue says so.
    fn unready(&self, truth: &Truth) -> Vec<String> {
        let live = truth.endpoints.iter().filter(|endpoint| truth.live.contains_key(&endpoint.id));
        let unready = live.filter(|endpoint| endpoint.condition != Condition::Ready);
        unready.map(|it| format!("endpoint {} of {} is {}", it.id.short(), it.spec.container, it.condition)).collect()
    }

    /// Each running node has just the places that its endpoints need, and they hold what the agent wants.
    fn places_hold(&self, truth: &Truth, checked: &mut Checked) -> Vec<String> {
        let mut what = Vec::new();
        for number in self.members() {
            let mut needed = BTreeSet::new();
            for endpoint in truth.endpoints.iter().filter(|endpoint| truth.live.get(&endpoint.id) == Some(&number)) {
                let container = Place::Container(endpoint.spec.container.clone());
                needed.extend([Place::Host, Place::Network(endpoint.spec.network), container]);
            }
            let held = self.nodes[number].places.held.places();
            checked.places += held.len();
            let there: BTreeSet<Place> = held.iter().map(|(place, _)| place.clone()).collect();
            what.extend(needed.difference(&there).map(|place| format!("node {number} lacks {place}")));
            what.extend(there.difference(&needed).map(|place| format!("node {number} still has {place}")));
            let Some(station) = self.net.machine(number) else { continue };
            let desired = station.desired();
            for (place, held) in held {
                let wanted = desired.places.get(&place).map(|state| (**state).clone()).unwrap_or_default();
                let same = held.crypto.state() == wanted.crypto
                    && held.link.state() == wanted.link
                    && held.vxlan.state() == wanted.vxlan
                    && held.firewall.state() == wanted.firewall
                    && held.lb.state() == wanted.lb
                    && held.routes.state() == wanted.routes;
                if !same {
                    what.push(format!("node {number}, {place} does not hold what is desired"));
                }
                let checks = [
                    wanted.crypto.check(),
                    wanted.link.check(),
                    wanted.vxlan.check(),
                    wanted.firewall.check(),
                    wanted.lb.check(),
                    wanted.routes.check(),
                ];
                what.extend(
                    checks.into_iter().filter_map(Result::err).map(|why| format!("node {number}, {place}: {why}")),
                );
            }
        }
        what
    }

    /// In every sandbox there is a port for each endpoint that runs here, an entry for each that runs elsewhere, and nothing else.
    fn entries_lead(&self, truth: &Truth, observed: &Observed, checked: &mut Checked) -> Vec<String> {
        let mut what = Vec::new();
        let members: BTreeSet<usize> = self.members().collect();
        for (number, node) in observed.nodes.iter().enumerate().filter(|(it, _)| members.contains(it)) {
            for (network, vni, segment, _) in node.segments() {
                if truth.networks.get(&network).and_then(|network| network.vni) != Some(vni) {
                    what.push(format!("node {number} has segment {vni}, which is not network {}'s", network.short()));
                }
                let of = truth.endpoints.iter().filter(|endpoint| endpoint.spec.network == network);
                let (here, elsewhere): (Vec<_>, Vec<_>) = of
                    .filter_map(|endpoint| Some((endpoint, *truth.live.get(&endpoint.id)?)))
                    .partition(|(_, at)| *at == number);
                let ports: BTreeSet<EndpointId> = segment.ports.keys().copied().collect();
                let wanted: BTreeSet<EndpointId> = here.iter().map(|(endpoint, _)| endpoint.id).collect();
                if ports != wanted {
                    what.push(format!("node {number}, segment {vni} has ports {ports:?}, not {wanted:?}"));
                }
                let peers = segment.peers.iter().map(|(mac, peer)| (*mac, (peer.vtep, peer.addresses.clone())));
                let peers: BTreeMap<Mac, Entry> = peers.collect();
                let wanted = elsewhere.iter().map(|(it, at)| (it.mac, (self.nodes[*at].vtep, addresses(it))));
                let wanted: BTreeMap<Mac, Entry> = wanted.collect();
                checked.peers += peers.len();
                what.extend(differences(&peers, &wanted).map(|it| format!("node {number}, segment {vni}: {it}")));
            }
        }
        what
    }

    /// Nodes that follow a network have the same entries of it.
    fn tables_are_equal(&self, checked: &mut Checked) -> Vec<String> {
        let mut first = BTreeMap::new();
        let mut what = Vec::new();
        for number in self.members() {
            let Some(agent) = self.agent(number) else { continue };
            for network in agent.knowledge().networks.keys() {
                let entries = agent.gossip().entries(*network, TableId(1));
                let entries: BTreeSet<_> =
                    entries.map(|(owner, key, value, _)| (owner, key.as_bytes().to_vec(), value.clone())).collect();
                let (other, theirs) = first.entry(*network).or_insert_with(|| (number, entries.clone()));
                if *other != number {
                    checked.entries += entries.len();
                }
                if *theirs != entries {
                    what.push(format!("nodes {other} and {number} have other entries of network {}", network.short()));
                }
            }
        }
        what
    }

    /// All containers that run, in pairs, by name.
    fn probes(&self, truth: &Truth, observed: &Observed, checked: &mut Checked) -> Vec<String> {
        let mut on = BTreeMap::<Name, BTreeSet<NetworkId>>::new();
        for endpoint in truth.endpoints.iter().filter(|endpoint| truth.live.contains_key(&endpoint.id)) {
            on.entry(endpoint.spec.container.clone()).or_default().insert(endpoint.spec.network);
        }
        let mut what = Vec::new();
        for (from, networks) in &on {
            for (to, others) in on.iter().filter(|(to, _)| *to != from) {
                let trace = observed.probe(from, to.as_str());
                let share = !networks.is_disjoint(others);
                what.extend(in_the_clear(truth, &trace).then(|| format!("{from} to {to}, in the clear:\n{trace}")));
                if trace.arrives() == share {
                    *(if share { &mut checked.answered } else { &mut checked.refused }) += 1;
                } else {
                    what.push(format!("{from} {} {to}:\n{trace}", if share { "does not reach" } else { "reaches" }));
                }
            }
        }
        what.extend(across(truth, &on, observed, checked));
        what
    }
}

/// By address, everybody reaches the endpoints of its networks whose families it has there, and nobody any other. Who was attached
/// before a network got subnets of a family has none of it.
fn across(
    truth: &Truth,
    on: &BTreeMap<Name, BTreeSet<NetworkId>>,
    observed: &Observed,
    checked: &mut Checked,
) -> Vec<String> {
    let mut what = Vec::new();
    let live = || truth.endpoints.iter().filter(|endpoint| truth.live.contains_key(&endpoint.id));
    let speaks = |it: &Endpoint, address| (it.spec.container.clone(), it.spec.network, IpFamily::of(address));
    let speak: BTreeSet<_> =
        live().flat_map(|it| addresses(it).into_iter().map(move |address| speaks(it, address))).collect();
    for from in on.keys() {
        for endpoint in live() {
            for address in addresses(endpoint) {
                let share = speak.contains(&(from.clone(), endpoint.spec.network, IpFamily::of(address)));
                let trace = observed.probe_address(from, address);
                if endpoint.spec.container != *from && trace.arrives() != share {
                    what.push(format!("{from} to {address} of {}:\n{trace}", endpoint.spec.container));
                }
                checked.refused += usize::from(!share && !trace.arrives());
            }
        }
    }
    what
}

/// Whether something of an encrypted network crossed the underlay as it was.
fn in_the_clear(truth: &Truth, trace: &Trace) -> bool {
    let encrypted = |vni| truth.networks.values().any(|it| it.vni == Some(vni) && it.spec.encryption.is_some());
    let clear = |hop: &Hop| matches!(hop, Hop::Tunnel { vni, sealed: None, .. } if encrypted(*vni));
    trace.request.iter().chain(&trace.reply).any(clear)
}

type Entry = (IpAddr, AddressSet);

fn addresses(endpoint: &Endpoint) -> AddressSet {
    endpoint.addresses.iter().map(|net| net.addr()).collect()
}

fn differences<'a>(
    there: &'a BTreeMap<Mac, Entry>,
    wanted: &'a BTreeMap<Mac, Entry>,
) -> impl Iterator<Item = String> + 'a {
    let wrong = there.iter().filter_map(|(mac, entry)| match wanted.get(mac) {
        None => Some(format!("{mac} leads to {}, where it is not", entry.0)),
        Some(right) => (entry != right).then(|| format!("{mac} leads to {entry:?}, not to {right:?}")),
    });
    let missing = wanted.iter().filter(|(mac, _)| !there.contains_key(*mac));
    wrong.chain(missing.map(|(mac, entry)| format!("{mac} at {} is missing", entry.0)))
}

/// No address is two endpoints', or an endpoint's and a gateway's; no subnet is two networks'.
fn unique(truth: &Truth) -> Vec<String> {
    let mut what = Vec::new();
    let mut of = BTreeMap::new();
    for (id, network) in &truth.networks {
        for gateway in network.subnets.iter().filter_map(|subnet| subnet.gateway()) {
            of.insert((*id, gateway), "the gateway".to_owned());
        }
    }
    for endpoint in &truth.endpoints {
        for address in addresses(endpoint) {
            let who = format!("{} of {}", endpoint.id.short(), endpoint.spec.container);
            if let Some(other) = of.insert((endpoint.spec.network, address), who.clone()) {
                what.push(format!("{address} is {other}'s and {who}'s"));
            }
        }
    }
    let subnets: Vec<_> =
        truth.networks.values().flat_map(|it| it.subnets.iter().map(move |net| (net.net(), &it.spec.name))).collect();
    for (at, (net, name)) in subnets.iter().enumerate() {
        let overlaps = |(other, _): &&(ipnet::IpNet, &Name)| other.contains(net) || net.contains(other);
        what.extend(
            subnets[at + 1..]
                .iter()
                .filter(overlaps)
                .map(|(other, by)| format!("{net} of {name} overlaps {other} of {by}")),
        );
    }
    what
}
