//! A cluster to which everything happens that can.

use std::time::Duration;

use overlay_core::IpFamily;
use overlay_core::testing::Dice;
use overlay_fabric::{Checked, Cluster, ClusterConfig, FabricError};
use overlay_gossip::testing::Conditions;
use overlay_ipam::SubnetRequest;
use overlay_node::{Encryption, NetworkSpec, UpkeepConfig};

/// How often what happened, over all seeds: so that nobody can say that nothing did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) checked: Checked,
    pub(crate) chaos: [u64; What::Last as usize],
}

/// What can happen.
#[derive(Clone, Copy)]
pub(crate) enum What {
    Crash,
    Outage,
    Restart,
    Partition,
    Growth,
    Move,
    MoveOffDeadNode,
    Drift,
    Refusal,
    FailedJob,
    StoppedPlace,
    StoreFault,
    LostAnswer,
    Reset,
    BrokenCall,
    Last,
}

impl Seen {
    pub(crate) fn count(&mut self, what: What, times: u64) {
        self.chaos[what as usize] += times;
    }
}

/// A cluster, and what was made in it.
pub(crate) struct Storm {
    pub(crate) cluster: Cluster,
    pub(crate) dice: Dice,
    containers: Vec<String>,
    networks: Vec<String>,
    made: usize,
}

impl Storm {
    /// So many nodes, on a line and with a history that the dice choose.
    pub(crate) fn of(seed: u64, nodes: impl FnOnce(&mut Dice) -> usize) -> Self {
        let mut dice = Dice::new([seed as u8, (seed >> 8) as u8, 9, 9, 9, 9, 9, 9].repeat(4).try_into().unwrap());
        let lossy = Conditions { loss: 0.02, duplication: 0.02, reordering: 0.05, ..Conditions::lan() };
        let config = ClusterConfig {
            conditions: if dice.one_in(2) { lossy } else { Conditions::lan() },
            upkeep: UpkeepConfig { drift: Some(Duration::from_secs(5)), ..UpkeepConfig::default() },
            history: if dice.one_in(2) { 4 } else { 4096 },
            ..ClusterConfig::default()
        };
        let nodes = nodes(&mut dice);
        let cluster = Cluster::with(config, seed, nodes).unwrap();
        let mut storm = Self { cluster, dice, containers: Vec::new(), networks: Vec::new(), made: 0 };
        for _ in 0..2 {
            storm.create_network().unwrap();
        }
        storm
    }

    fn node(&mut self) -> usize {
        self.dice.below(self.cluster.len())
    }

    fn pick(&mut self, of: fn(&Self) -> &Vec<String>) -> Option<String> {
        let count = of(self).len();
        let at = self.dice.below(count);
        of(self).get(at).cloned()
    }

    fn create_network(&mut self) -> Result<(), FabricError> {
        self.made += 1;
        let name = format!("net-{}", self.made);
        let mut subnets = vec![SubnetRequest::any(IpFamily::V4)];
        if self.dice.one_in(3) {
            subnets.push(SubnetRequest::this(format!("fd00:{:x}::/64", self.made).parse().unwrap()));
        }
        let internal = self.dice.one_in(4);
        let encryption = [Encryption::Own, Encryption::None, Encryption::Shared, Encryption::None][self.made % 4];
        let spec = NetworkSpec {
            attachable: true,
            internal,
            encryption,
            subnets,
            ..NetworkSpec::overlay(name.parse().unwrap())
        };
        self.cluster.create_network(spec)?;
        self.networks.push(name);
        Ok(())
    }

    fn attach_new(&mut self) -> Result<(), FabricError> {
        self.made += 1;
        let (name, node) = (format!("c-{}", self.made), self.node());
        let Some(network) = self.pick(|it| &it.networks) else { return Ok(()) };
        self.cluster.attach(&name, node, &network)?;
        self.containers.push(name);
        Ok(())
    }

    fn attach_more(&mut self) -> Result<(), FabricError> {
        let (container, network) = (self.pick(|it| &it.containers), self.pick(|it| &it.networks));
        let (Some(container), Some(network)) = (container, network) else { return Ok(()) };
        let Some(node) = self.cluster.node_of(&container.parse().unwrap()) else { return Ok(()) };
        self.cluster.attach(&container, node, &network).map(drop)
    }

    fn stop(&mut self) -> Result<(), FabricError> {
        let Some(container) = self.pick(|it| &it.containers) else { return Ok(()) };
        self.cluster.stop(&container)?;
        self.containers.retain(|it| *it != container);
        Ok(())
    }

    fn relocate(&mut self, seen: &mut Seen) -> Result<(), FabricError> {
        let (Some(container), to) = (self.pick(|it| &it.containers), self.node()) else { return Ok(()) };
        let from = self.cluster.node_of(&container.parse().unwrap());
        self.cluster.relocate(&container, to)?;
        seen.count(What::Move, u64::from(from != Some(to)));
        let dead = from.is_some_and(|from| from != to && self.cluster.agent(from).is_none());
        seen.count(What::MoveOffDeadNode, u64::from(dead));
        Ok(())
    }

    fn remove_network(&mut self) -> Result<(), FabricError> {
        let Some(network) = self.pick(|it| &it.networks) else { return Ok(()) };
        self.cluster.remove_network(&network)?;
        self.networks.retain(|it| *it != network);
        Ok(())
    }

    /// A living network gets a subnet more.
    fn grow(&mut self, seen: &mut Seen) -> Result<(), FabricError> {
        self.made += 1;
        let Some(network) = self.pick(|it| &it.networks) else { return Ok(()) };
        let mut spec = self.cluster.network(&network)?.spec;
        spec.subnets.push(match self.dice.one_in(2) {
            true => SubnetRequest::any(IpFamily::V4),
            false => SubnetRequest::this(format!("fd01:{:x}::/64", self.made).parse().unwrap()),
        });
        self.cluster.change_network(&network, spec)?;
        seen.count(What::Growth, 1);
        Ok(())
    }

    /// Somebody flushes what a place holds.
    fn drift(&mut self, seen: &mut Seen) {
        let node = self.node();
        let Some((_, held)) = self.cluster.places(node).and_then(|places| places.places().pop()) else { return };
        held.routes.update(|routes| routes.to.clear());
        let first = self.cluster.places(node).and_then(|places| places.places().into_iter().nth(1));
        if let Some((_, held)) = first {
            held.vxlan.update(|state| state.segments.values_mut().for_each(|segment| segment.peers.clear()));
            seen.count(What::Drift, 1);
        }
    }

    fn crash(&mut self, seen: &mut Seen) {
        let node = self.node();
        if (0..self.cluster.len()).filter(|it| self.cluster.agent(*it).is_some()).count() < 2 {
            return;
        }
        if self.dice.one_in(6) {
            // The first ones are the managers: there may be none for a while.
            let last = self.cluster.len() - 1;
            (0..last).for_each(|node| self.cluster.crash(node));
            return seen.count(What::Crash, last as u64);
        }
        match self.dice.one_in(3) {
            true => self.cluster.power_off(node),
            false => self.cluster.crash(node),
        }
        seen.count(What::Crash, 1);
    }

    fn restart(&mut self, seen: &mut Seen) -> Result<(), FabricError> {
        let node = self.node();
        seen.count(What::Restart, u64::from(self.cluster.agent(node).is_none()));
        self.cluster.restart(node)
    }

    fn partition(&mut self, seen: &mut Seen) {
        let (one, other) = (self.node(), self.node());
        match self.dice.below(3) {
            0 => self.cluster.partition([one]),
            1 => self.cluster.partition([one, other]),
            _ => self.cluster.cut(one, other),
        }
        seen.count(What::Partition, 1);
    }

    fn happen(&mut self, seen: &mut Seen) -> Result<(), FabricError> {
        match self.dice.below(19) {
            0..=2 => self.attach_new()?,
            3 => self.attach_more()?,
            4 => self.stop()?,
            5 | 6 => self.relocate(seen)?,
            7 => self.create_network()?,
            8 => self.remove_network()?,
            9 => self.crash(seen),
            10 | 11 => self.restart(seen)?,
            12 => self.partition(seen),
            13 => self.cluster.heal(),
            14 => {
                let (node, span) = (self.node(), Duration::from_millis(self.dice.below(4_000) as u64));
                self.cluster.pause(node, span);
                self.cluster.skew(node, self.dice.below(60_000) as i64 - 30_000);
            }
            15 => {
                let (node, rate) = (self.node(), [0, 3, 8][self.dice.below(3)]);
                self.cluster.fail_places(node, rate);
            }
            16 => {
                self.cluster.fail_store([0, 5, 20][self.dice.below(3)]);
                self.cluster.break_calls([0, 3][self.dice.below(2)]);
            }
            17 => self.grow(seen)?,
            _ => self.drift(seen),
        }
        Ok(())
    }

    pub(crate) fn calm(&mut self) {
        self.cluster.heal();
        self.cluster.fail_store(0);
        self.cluster.break_calls(0);
        for node in 0..self.cluster.len() {
            self.cluster.fail_places(node, 0);
            self.cluster.restart(node).unwrap();
        }
    }

    pub(crate) fn remove_all(&mut self) {
        for container in std::mem::take(&mut self.containers) {
            self.cluster.stop(&container).unwrap();
        }
        for network in std::mem::take(&mut self.networks) {
            self.cluster.remove_network(&network).unwrap();
        }
    }

    /// One thing happens, or is refused.
    pub(crate) fn strike(&mut self, seen: &mut Seen) {
        match self.happen(seen) {
            Ok(()) => {}
            Err(FabricError::Control(error)) if error.refusal().is_some() => seen.count(What::Refusal, 1),
            Err(FabricError::NoManager) => seen.count(What::Outage, 1),
            Err(error) => panic!("seed {}: {error}", self.cluster.seed()),
        }
    }

    /// Lets so much time pass, in which nothing may ever be open that should not be.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.cluster.run_for(span);
        self.cluster.check_always().unwrap_or_else(|violation| panic!("{violation}"));
    }

    pub(crate) fn settled(&mut self) -> Checked {
        self.cluster.settle(Duration::from_secs(60)).unwrap_or_else(|violation| panic!("{violation}"))
    }

    /// What the cluster itself has counted.
    pub(crate) fn tally(&self, seen: &mut Seen) {
        let (upkeep, store) = (self.cluster.upkeep_counts(), self.cluster.store_faults());
        seen.count(What::FailedJob, upkeep.failed_jobs);
        seen.count(What::StoppedPlace, upkeep.stopped_places);
        seen.count(What::StoreFault, store.refused);
        seen.count(What::LostAnswer, store.lost_answers + store.late_done);
        seen.count(What::Reset, store.resets);
        seen.count(What::BrokenCall, self.cluster.broken_calls());
    }
}
