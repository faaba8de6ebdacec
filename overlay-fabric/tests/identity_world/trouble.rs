//! What goes wrong.

use std::time::Duration;

use overlay_core::testing::block_on;
use overlay_crypto::pki::{Algorithm, CertificateAuthority, Denied, KeyDigest, NextRoot, Role, Trouble};

use super::node::Node;
use super::{LIFE, RECOVERY, World};

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    /// Now and then, one thing.
    pub(crate) fn disturb(&mut self) {
        self.set_clocks_right();
        if !self.dice.one_in(6) {
            return;
        }
        let at = self.dice.below(self.nodes.len());
        match self.dice.below(16) {
            0..4 => self.nodes[at].skew = self.dice.below(1_800_000) as i64 - 900_000, // a quarter of an hour either way
            4..6 => self.nodes[at].cut = self.now + MINUTE * self.dice.below(20) as u32,
            6 => self.cut_for_long(at),
            7 => self.jump(at),
            8..10 => self.lose_leader(),
            10 => self.begin_root(),
            11 if self.dice.one_in(3) => self.abort_root(),
            12..14 => self.change_role(at),
            14 if self.dice.one_in(6) => self.remove(at),
            _ => {}
        }
    }

    /// All reach all, and no clock is wrong.
    pub(crate) fn heal(&mut self) {
        let now = self.now;
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            node.skew = 0;
            if node.jumped.take().is_some() || node.excused > now {
                (node.cut, node.excused) = (now, now + RECOVERY);
            }
        }
    }

    /// For longer than its certificate counts, often. Not those who might have to sign: nothing is promised where no manager is reached.
    fn cut_for_long(&mut self, at: usize) {
        if self.nodes[at].authority.is_some() {
            return;
        }
        let until = self.now + LIFE.mul_f64(0.5 + self.dice.below(100) as f64 / 100.0);
        self.nodes[at].cut = until;
        self.excuse(at, until);
        self.counts.outages += 1;
    }

    /// Its clock is days off for a while. Of one that leads, that is more than anybody bears, so it leads no more.
    fn jump(&mut self, at: usize) {
        if self.leader == Some(at) || self.deposed == Some(at) || self.nodes[at].authority.is_some() {
            return;
        }
        let days = self.dice.below(7) as i64 - 3;
        let until = self.now + MINUTE * (1 + self.dice.below(90) as u32);
        let node = &mut self.nodes[at];
        (node.skew, node.jumped) = (days * 86_400_000 + 7_200_000, Some(until));
        self.excuse(at, until);
        self.counts.jumps += 1;
    }

    fn set_clocks_right(&mut self) {
        let now = self.now;
        for node in self.nodes.iter_mut().filter(|node| node.jumped.is_some_and(|until| until <= now)) {
            (node.skew, node.jumped) = (0, None);
        }
    }

    /// It dies, or is cut off, or stalls and wakes: another leads, and it may not know.
    fn lose_leader(&mut self) {
        let Some(leader) = self.leader.take() else { return };
        self.counts.leaders += 1;
        match self.dice.below(3) {
            0 => self.nodes[leader].cut = self.now + MINUTE * self.dice.below(15) as u32,
            1 => self.deposed = Some(leader),
            _ => {
                let authority = self.authority();
                if let Some(sealing) = self.nodes[leader].sealing.clone() {
                    authority.hold(sealing); // as it is kept
                }
                self.nodes[leader].authority = Some(authority);
            }
        }
        self.campaign();
    }

    fn begin_root(&mut self) {
        let Some(leader) = self.leader else { return };
        if self.most_missed(leader) >= 3 {
            return; // an operator sees who is lost, and removes it first
        }
        let algorithm = if self.dice.one_in(2) { Algorithm::EcdsaP256 } else { Algorithm::Ed25519 };
        let node = &self.nodes[leader];
        let begun = block_on(
            node.authority.as_ref().unwrap().rotate_root(&NextRoot::Generate(algorithm), node.clock(self.now)),
        );
        self.counts.begun += u64::from(begun.is_ok());
    }

    /// How many changes of the root any node has missed.
    fn most_missed(&mut self, leader: usize) -> usize {
        let authority = self.nodes[leader].authority.as_ref().unwrap();
        let present = loop {
            if let Ok(trusted) = block_on(authority.trusted()) {
                break trusted.roots[0].key();
            }
        };
        if self.roots.last() != Some(&present) {
            self.roots.push(present);
        }
        let missed = |node: &Node| {
            let knows = |root: &KeyDigest| node.issued.roots.iter().any(|certificate| certificate.key() == *root);
            self.roots.iter().rev().take_while(|root| !knows(root)).count()
        };
        self.nodes.iter().filter(|node| !node.gone).map(missed).max().unwrap_or(0)
    }

    fn abort_root(&mut self) {
        let Some(leader) = self.leader else { return };
        let node = &self.nodes[leader];
        let aborted = block_on(node.authority.as_ref().unwrap().abort_root(node.clock(self.now)));
        self.counts.aborted += u64::from(aborted.is_ok());
    }

    fn change_role(&mut self, at: usize) {
        let (Some(leader), id) = (self.leader, self.nodes[at].id) else { return };
        let role = if self.nodes[at].role() == Role::Worker { Role::Manager } else { Role::Worker };
        let changed = block_on(self.nodes[leader].authority.as_ref().unwrap().set_role(id, role));
        self.counts.roles += u64::from(changed.is_ok());
    }

    fn remove(&mut self, at: usize) {
        let Some(leader) = self.leader.filter(|leader| *leader != at) else { return };
        if self.nodes[at].gone || self.nodes.iter().filter(|node| !node.gone).count() < 4 {
            return;
        }
        let (id, node) = (self.nodes[at].id, &self.nodes[leader]);
        let authority = node.authority.as_ref().unwrap();
        // Asked again until it is known: a removal whose answer was lost may be done.
        while let Err(Denied::Trouble(Trouble::InDoubt(_) | Trouble::Store(_) | Trouble::Contended)) =
            block_on(authority.remove(id, node.clock(self.now)))
        {}
        let members = loop {
            if let Ok(members) = block_on(authority.members(self.now)) {
                break members;
            }
        };
        if members.iter().any(|member| member.node == id) {
            return; // the last that can sign
        }
        self.counts.removals += 1;
        let revision = loop {
            if let Ok(trusted) = block_on(authority.trusted()) {
                break trusted.revision;
            }
        };
        self.removed.insert(id, revision);
        self.nodes[at].gone = true;
        if self.deposed == Some(at) {
            self.deposed = None;
        }
    }
}
