//! A terminal session, and what was found true in it.

use std::time::Duration;

use overlay_fabric::{Answer, Cluster, ClusterConfig, Link, Unanswered};
use overlay_node::{Place, UpkeepConfig};

use overlay_examples::listing;

use crate::Outcome;

/// The same each time: another shows other ids.
const SEED: u64 = 2026;
/// The longest, in virtual time, that anything takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Host-1's link to the others: what goes over it is kept.
const CABLE: Link = Link::Node(0);

/// The cluster, and the checks so far.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) cluster: Cluster,
    checks: Vec<(&'static str, bool)>,
}

impl Session {
    /// Three hosts that have found one another; the first is the manager.
    pub(crate) fn begin() -> Outcome<Self> {
        let upkeep = UpkeepConfig { drift: Some(Duration::from_secs(5)), ..UpkeepConfig::default() };
        let config = ClusterConfig { managers: 1, upkeep, ..ClusterConfig::default() };
        let mut cluster = Cluster::with(config, SEED, 3)?;
        println!("Three hosts in this process, on a virtual clock, seed {SEED}. host-1 is the manager.\n");
        let all = |cluster: &Cluster| {
            (0..3).all(|host| cluster.agent(host).is_some_and(|it| it.knowledge().nodes.len() == 3))
        };
        let joined = cluster.run_until(LIMIT, all);
        cluster.capture(CABLE);
        let mut session = Self { cluster, checks: Vec::new() };
        session.check("three hosts find one another", joined.is_some());
        Ok(session)
    }

    /// Shows what is typed at a host, numbered from 1.
    pub(crate) fn typed(&self, host: usize, command: &str) {
        println!("host-{host} $ {command}");
    }

    /// Shows what comes of it.
    pub(crate) fn shown(&self, text: &str) {
        println!("{}\n", text.trim_end());
    }

    pub(crate) fn check(&mut self, what: &'static str, holds: bool) {
        self.checks.push((what, holds));
    }

    /// Lets time pass until all is as it should be.
    pub(crate) fn settle(&mut self) -> bool {
        let begun = self.cluster.now();
        match self.cluster.settle(LIMIT) {
            Ok(_) => true,
            Err(violation) => {
                println!("after {:?}: {violation}\n", self.cluster.now() - begun);
                false
            }
        }
    }

    /// `network ls` at the manager.
    pub(crate) fn list(&self) -> Outcome {
        self.typed(1, "network ls");
        self.shown(&listing::networks(&self.cluster.networks()?));
        Ok(())
    }

    /// `network ls` of what is on one host, as its places say.
    pub(crate) fn list_local(&self, host: usize) -> Outcome<usize> {
        let here = self.sandboxes(host);
        let networks =
            self.cluster.networks()?.into_iter().filter(|network| here.contains(&Place::Network(network.id)));
        self.typed(host, "network ls --local");
        self.shown(&listing::networks(&networks.collect::<Vec<_>>()));
        Ok(here.len())
    }

    /// The places of networks on a host.
    pub(crate) fn sandboxes(&self, host: usize) -> Vec<Place> {
        let places = self.cluster.places(host - 1).map(overlay_node::MemoryPlaces::places).unwrap_or_default();
        places.into_iter().map(|(place, _)| place).filter(|place| matches!(place, Place::Network(_))).collect()
    }

    /// Sends a packet from one container to another, shows its way, and says whether it was answered.
    pub(crate) fn ping(&self, host: usize, from: &str, to: &str) -> bool {
        let trace = self.cluster.probe(from, to);
        self.typed(host, &format!("exec {from} ping {to}"));
        // The fabric numbers nodes from 0; the hosts of this walk-through have names.
        self.shown(&(0..3).fold(trace.to_string(), |text, node| {
            text.replace(&format!("node {node}"), &format!("host-{}", node + 1))
        }));
        trace.arrives()
    }

    /// Sends packets: a ping and its answer, then a TCP connection on which something goes there and back. Shows what came of it, and says
    /// whether both did.
    pub(crate) fn exchange(&mut self, host: usize, from: &str, to: &str, bytes: &[u8]) -> bool {
        self.typed(host, &format!("exec {from} ping -c 1 {to}"));
        let ping = self.cluster.container(from).ping(to);
        self.shown(&said(&ping));
        self.typed(host, &format!("exec {from} nc {to} 80"));
        let answer = self.cluster.container(from).tcp(to, bytes);
        self.shown(&said(&answer));
        ping.is_ok() && answer.is_ok_and(|answer| answer.by == to && answer.bytes == bytes)
    }

    /// How many of the packets that went over host-1's cable so far have these bytes somewhere.
    pub(crate) fn seen_on_the_cable(&self, bytes: &[u8]) -> usize {
        let packets = self.cluster.captured().map(|capture| capture.packets()).unwrap_or_default();
        packets.iter().filter(|packet| packet.bytes.windows(bytes.len()).any(|window| window == bytes)).count()
    }

    /// Writes what went over host-1's cable.
    pub(crate) fn save(&self, file: Option<&str>) -> Outcome {
        let (Some(file), Some(capture)) = (file, self.cluster.captured()) else { return Ok(()) };
        std::fs::write(file, capture.pcapng())?;
        println!("{} packets of host-1's cable are in {file}.\n", capture.packets().len());
        Ok(())
    }

    /// Shows the table of checks; whether all hold.
    pub(crate) fn end(self) -> bool {
        let row =
            |(what, holds): &(&str, bool)| vec![if *holds { "ok" } else { "FAILED" }.to_owned(), (*what).to_owned()];
        println!("checks\n{}", listing::table(&self.checks.iter().map(row).collect::<Vec<_>>()));
        self.checks.iter().all(|(_, holds)| *holds)
    }
}

/// What came back, in words.
fn said(answer: &Result<Answer, Unanswered>) -> String {
    match answer {
        Ok(Answer { to, after, by, .. }) if by.is_empty() => format!("answer from {to} after {after:?}"),
        Ok(Answer { to, after, by, seen, bytes }) => {
            format!("{by} at {to} sees {seen}, and sends back \"{}\" after {after:?}", bytes.escape_ascii())
        }
        Err(why) => why.to_string(),
    }
}
