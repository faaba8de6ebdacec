//! What managers do: one leads, the others hold what it takes to.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::block_on;
use overlay_core::{Prefix, Seat, Term, TermRefusal, TransactionError};
use overlay_crypto::pki::{AuthorityConfig, CertificateAuthority, Denied, Life, Role, StoreAuthority};

use super::{CLUSTER, LIFE, World, id_of};

impl World {
    /// The authority of a manager that starts.
    pub(crate) fn authority(&mut self) -> StoreAuthority {
        let config = AuthorityConfig { life: Life::new(LIFE).unwrap(), ..AuthorityConfig::default() };
        let store = Arc::clone(&self.store);
        StoreAuthority::new(store, &Prefix::ALL, CLUSTER, self.dice.seed()).unwrap().with_config(config)
    }

    pub(crate) fn usurp(&self, at: usize) -> Result<Term, TransactionError<TermRefusal>> {
        let seat = Seat::new(&Prefix::new("manager/").unwrap(), id_of(at)).unwrap();
        block_on(Term::usurp(&*self.store, &seat, self.now))
    }

    /// Somebody who can sign leads, if nobody does.
    pub(crate) fn campaign(&mut self) {
        let can = |at: &usize| {
            let node = &self.nodes[*at];
            !node.gone
                && node.cut <= self.now
                && node.jumped.is_none()
                && node.authority.is_some()
                && node.sealing.is_some()
        };
        let able: Vec<usize> = (0..self.nodes.len()).filter(can).collect();
        let Some(at) = able.get(self.dice.below(able.len())).copied() else { return };
        if let Ok(term) = self.usurp(at) {
            self.nodes[at].authority.as_ref().unwrap().lead(term);
            self.leader = Some(at);
            if self.deposed == Some(at) {
                self.deposed = None;
            }
        }
    }

    /// What the leader does now and then.
    pub(crate) fn lead(&mut self) {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if node.role() != Role::Manager || node.gone {
                (node.authority, node.sealing) = (None, None);
            } else if node.authority.is_none() {
                let authority = self.authority();
                self.nodes[at].authority = Some(authority);
            }
        }
        let now = self.now;
        let leads = |at: &usize| self.nodes[*at].authority.is_some() && self.nodes[*at].cut <= now;
        if self.leader.filter(leads).is_none() {
            self.leader = None;
            self.campaign();
        }
        if let Some(leader) = self.leader.filter(|_| self.next_tend <= self.now) {
            self.next_tend = self.now + Duration::from_secs(240);
            let node = &self.nodes[leader];
            let tended = block_on(node.authority.as_ref().unwrap().tend(node.clock(self.now)));
            self.counts.roots += u64::from(tended.is_ok_and(|tended| tended.root_changed));
        }
    }

    /// Who signs for one that asks at a manager: the leader, if that manager reaches it; now and then one that led before and does not know better.
    pub(crate) fn signer(&mut self, through: usize) -> Option<usize> {
        let stale = self.deposed.filter(|at| self.nodes[*at].authority.is_some() && !self.nodes[*at].gone);
        if let Some(stale) = stale.filter(|_| self.dice.one_in(2)) {
            return Some(stale);
        }
        let leader = self.leader?;
        let reached = leader == through || !self.chaos || !self.dice.one_in(10);
        (reached && self.nodes[leader].cut <= self.now).then_some(leader)
    }

    /// A manager that cannot sign yet has the key given, by any that has it, and says so once it has kept it.
    pub(crate) fn ask_for_sealing(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.gone || node.authority.is_none() || node.sealing.is_some() {
            return;
        }
        let Some(to) = self.reach(at, false).filter(|to| *to != at) else { return };
        let (server, asking) = (&self.nodes[to], self.nodes[at].own().clone());
        let given = block_on(server.authority.as_ref().unwrap().sealing_key(&asking, server.clock(self.now)));
        let key = match given {
            Ok(key) => key,
            Err(Denied::Trouble(_) | Denied::Refused(_)) => return, // demoted meanwhile, say
        };
        let node = &mut self.nodes[at];
        let authority = node.authority.as_ref().unwrap();
        authority.hold(key.clone());
        if block_on(authority.announce(node.id)).is_ok() {
            node.sealing = Some(key);
            self.counts.given += 1;
        }
    }
}
