//! What nodes are, and that they are not any more.

use overlay_core::{Commit, NodeId, Snapshot, Undecided, UnixTime};

use super::record::{Keys, NodeRecord, Refused, decode, encode};
use super::store::{StoreAuthority, refused, trouble};
use super::{Denied, Known, Member, RemoveRefusal, Removed, RenewRefusal, RoleRefusal, SealingKey, Standing, Trouble};
use crate::pki::{Certificate, Role};

impl StoreAuthority {
    /// Notes what a node has, and says how it stands. Any manager may: nothing is granted by it.
    pub(super) async fn see(&self, shown: &Certificate, now: UnixTime) -> Result<Standing, Denied<RenewRefusal>> {
        let node = self.node_of_certificate(shown)?;
        let until = shown.validity().until;
        if until.as_secs() < now.as_secs() {
            return Err(Denied::Refused(RenewRefusal::Expired { until, now }));
        }
        let key = self.keys.node(node);
        let keys = [key.clone(), self.keys.refused(node), self.keys.roots.clone(), self.keys.revision.clone()];
        let decide = |snapshot: &Snapshot| {
            let mut record = self.member(snapshot, node)?;
            let news = record.see(shown);
            let opened = self.opened(snapshot)?;
            let revision = snapshot.peek(&self.keys.revision)?.map_or(0, |entry| entry.revision.0);
            let standing = Standing { role: record.role, renew: record.wants(&opened.roots), revision };
            let commit = if news { Commit::new().put(key.clone(), encode(&record)) } else { Commit::new() };
            Ok((commit, standing))
        };
        let done = overlay_core::Transaction::on(&*self.store).reading(keys).run(decide).await;
        Ok(done.map_err(Denied::<RenewRefusal>::from)?.output)
    }

    pub(super) async fn all_members(&self) -> Result<Vec<Member>, Trouble> {
        let opened = self.load().await?;
        let records = self.records().await?;
        let member = |(node, record): (NodeId, NodeRecord)| {
            let renew = record.wants(&opened.roots);
            Member { node, role: record.role, held: record.held, renew }
        };
        Ok(records.into_iter().map(member).collect())
    }

    /// All nodes' records.
    pub(super) async fn records(&self) -> Result<Vec<(NodeId, NodeRecord)>, Trouble> {
        let prefix = self.keys.prefix("node/");
        let listing = self.store.list(&prefix).await.map_err(Trouble::Store)?;
        let mut records = Vec::with_capacity(listing.entries.len());
        for (key, entry) in &listing.entries {
            let node = Keys::named(key, &prefix).ok_or_else(|| Trouble::damaged(key, &"it names no node"))?;
            records.push((node, decode(key, entry)?));
        }
        Ok(records)
    }

    pub(super) async fn change_role(&self, node: NodeId, role: Role) -> Result<(), Denied<RoleRefusal>> {
        let demoted = self.keys.demoted(node);
        let keys = vec![self.keys.node(node), self.keys.managers.clone(), demoted.clone(), self.keys.revision.clone()];
        let decide = |snapshot: &Snapshot| {
            let record = self.record(snapshot, node)?.ok_or_else(|| refused(RoleRefusal::Stranger { node }))?;
            if record.role == role {
                return Ok((Commit::new(), ()));
            }
            let mut managers = self.managers(snapshot)?;
            snapshot.get(&self.keys.revision)?;
            let mut commit = Commit::new().put(self.keys.revision.clone(), encode(&node));
            match role {
                Role::Manager => {
                    managers.0.insert(node, false);
                    if snapshot.get(&demoted)?.is_some() {
                        commit = commit.delete(demoted.clone());
                    }
                }
                Role::Worker => {
                    managers = managers.without(node).ok_or_else(|| refused(RoleRefusal::LastManager { node }))?;
                    // Its manager's certificate may count for long yet: nobody is to believe it as a manager's.
                    snapshot.get(&demoted)?;
                    let until = record.until + self.config.skew;
                    commit = commit.put(demoted.clone(), encode(&Refused { until, role }));
                }
            }
            let commit = commit.put(self.keys.node(node), encode(&NodeRecord { role, ..record }));
            Ok((commit.put(self.keys.managers.clone(), encode(&managers)), ()))
        };
        self.run(keys, decide).await
    }

    pub(super) async fn ask_for_renewal(&self, node: NodeId) -> Result<(), Denied<RoleRefusal>> {
        let decide = |snapshot: &Snapshot| {
            let record = self.record(snapshot, node)?.ok_or_else(|| refused(RoleRefusal::Stranger { node }))?;
            let asked = Some(record.number);
            if record.asked == asked {
                return Ok((Commit::new(), ()));
            }
            Ok((Commit::new().put(self.keys.node(node), encode(&NodeRecord { asked, ..record })), ()))
        };
        self.run(vec![self.keys.node(node)], decide).await
    }

    pub(super) async fn remove_node(&self, node: NodeId, now: UnixTime) -> Result<Removed, Denied<RemoveRefusal>> {
        let of_node = [self.keys.node(node), self.keys.refused(node)];
        let keys = of_node.into_iter().chain([self.keys.managers.clone(), self.keys.revision.clone()]).collect();
        let gone = self.run(keys, |snapshot| self.decide_removal(snapshot, node, now)).await?;
        let knew = match gone.role {
            Role::Worker => vec![Known::GossipKey, Known::Tokens],
            Role::Manager => vec![Known::GossipKey, Known::Tokens, Known::Root, Known::UnlockKey],
        };
        Ok(Removed { until: gone.until, knew })
    }

    fn decide_removal(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
        now: UnixTime,
    ) -> Result<(Commit, Refused), Undecided<Denied<RemoveRefusal>>> {
        let Some(record) = self.record(snapshot, node)? else {
            let gone = self.refusal(snapshot, node)?.ok_or_else(|| refused(RemoveRefusal::Stranger { node }))?;
            return Ok((Commit::new(), gone)); // done before
        };
        // What it was as long as a certificate says so: a manager that was demoted knows what managers know.
        let was = [record.role, record.held.role, record.issued.role];
        let role = if was.contains(&Role::Manager) { Role::Manager } else { Role::Worker };
        let gone = Refused { until: record.until.max(now) + self.config.skew, role };
        snapshot.get(&self.keys.revision)?;
        snapshot.get(&self.keys.refused(node))?;
        let mut commit = Commit::new().delete(self.keys.node(node)).put(self.keys.refused(node), encode(&gone));
        commit = commit.put(self.keys.revision.clone(), encode(&node));
        let managers = self.managers(snapshot)?;
        if managers.0.contains_key(&node) {
            let managers = managers.without(node).ok_or_else(|| refused(RemoveRefusal::LastManager { node }))?;
            commit = commit.put(self.keys.managers.clone(), encode(&managers));
        }
        Ok((commit, gone))
    }

    /// Any manager that has it gives it to any other.
    pub(super) async fn give_sealing_key(
        &self,
        asking: &Certificate,
        now: UnixTime,
    ) -> Result<SealingKey, Denied<RenewRefusal>> {
        let node = self.node_of_certificate(asking)?;
        if !asking.validity().contains(now) {
            return Err(Denied::Refused(RenewRefusal::Expired { until: asking.validity().until, now }));
        }
        let decide = |snapshot: &Snapshot| {
            let record = self.member(snapshot, node)?;
            let says = asking.identity().map(|identity| identity.role);
            let known = [&record.held.serial, &record.issued.serial].contains(&asking.serial());
            match (record.role, says, known) {
                (Role::Manager, Some(Role::Manager), true) => Ok((Commit::new(), ())),
                _ => Err(refused(RenewRefusal::Role { wanted: Role::Manager })),
            }
        };
        let keys = [self.keys.node(node), self.keys.refused(node)];
        let checked = overlay_core::Transaction::on(&*self.store).reading(keys).run(decide).await;
        checked.map_err(Denied::<RenewRefusal>::from)?;
        self.sealing().ok_or(Denied::Trouble(Trouble::Sealed))
    }

    /// Says in the store that this manager, `node`, has kept the key that it [holds](Self::hold): from then on the last manager that does is neither demoted nor removed,
    /// as nobody could sign any more. To be called once the key is kept.
    ///
    /// # Errors
    /// [`RenewRefusal::Role`] of who is no manager, or what was in the way: [`Trouble::Sealed`] where the key does not unseal the root's.
    pub async fn announce(&self, node: NodeId) -> Result<(), Denied<RenewRefusal>> {
        let keys = [self.keys.managers.clone(), self.keys.roots.clone()];
        let decide = |snapshot: &Snapshot| {
            let opened = self.opened(snapshot)?;
            let key = opened.roots.signing().certificate.key();
            opened.signer(key).map_err(trouble)?;
            let mut managers = self.managers(snapshot)?;
            match managers.0.insert(node, true) {
                Some(true) => Ok((Commit::new(), ())),
                Some(false) => Ok((Commit::new().put(self.keys.managers.clone(), encode(&managers)), ())),
                None => Err(refused(RenewRefusal::Role { wanted: Role::Manager })),
            }
        };
        let announced = overlay_core::Transaction::on(&*self.store).reading(keys).run(decide).await;
        announced.map(drop).map_err(Denied::<RenewRefusal>::from)
    }

    /// What was removed, or demoted, and cannot be believed by anybody any more is forgotten, some at a time.
    pub(super) async fn forget_refusals(&self, now: UnixTime) -> Result<usize, Trouble> {
        Ok(self.forget("trust/refused/", now).await? + self.forget("trust/demoted/", now).await?)
    }

    async fn forget(&self, below: &str, now: UnixTime) -> Result<usize, Trouble> {
        let prefix = self.keys.prefix(below);
        let listing = self.store.list(&prefix).await.map_err(Trouble::Store)?;
        let mut over = Vec::new();
        for (key, entry) in &listing.entries {
            if decode::<Refused>(key, entry)?.until < now {
                over.push(key.clone());
            }
        }
        let mut forgotten = 0;
        for some in over.chunks(32) {
            let keys = some.iter().chain([&self.keys.revision]).cloned().collect();
            let decide = |snapshot: &Snapshot| {
                snapshot.get(&self.keys.revision)?;
                let mut commit = Commit::new().put(self.keys.revision.clone(), encode(&some.len()));
                for key in some {
                    match snapshot.get(key)?.map(|entry| decode::<Refused>(key, entry)).transpose().map_err(trouble)? {
                        Some(gone) if gone.until < now => commit = commit.delete(key.clone()),
                        _ => {}
                    }
                }
                Ok((if commit.deletes.is_empty() { Commit::new() } else { commit }, ()))
            };
            self.run(keys, decide).await.map_err(only_trouble)?;
            forgotten += some.len();
        }
        Ok(forgotten)
    }
}

/// What refuses nothing has troubles alone.
pub(super) fn only_trouble(denied: Denied<std::convert::Infallible>) -> Trouble {
    match denied {
        Denied::Trouble(trouble) => trouble,
        Denied::Refused(never) => match never {},
    }
}
