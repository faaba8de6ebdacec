//! How far an object is, and who may take it further.
//!
//! *Accepted*: anybody may claim for it, since what is claimed is its own whoever asks. *Allocated*: said by one commit that
//! finds it accepted still. *Removing*: said by one commit before anything is given back, so nobody allocates it with a lease
//! that is gone. What is claimed for it after that is nobody's, and found by the audit.

use overlay_core::{Commit, Compare, Key, Snapshot, Transaction, TransactionError, Undecided, UnixTime, Unread};
use serde::{Deserialize, Serialize};

use super::Manager;
use super::transaction::{Decided, Trouble, failed, in_doubt, json, not_found, refuse, undone};
use crate::catalogue::keys::Keys;
use crate::catalogue::record::{Held, Object, encode};
use crate::{Condition, ControlError, Refused};

/// Where an object that was being allocated is now.
#[derive(Debug)]
pub(super) enum Fate<T> {
    /// As far as was wanted.
    Taken(Held<T>),
    /// Somebody else has allocated it.
    Allocated(Held<T>),
    /// It is being removed, or is gone.
    Gone,
}

/// An object that was written down, or was there.
pub(super) enum Accepted<T> {
    New(T),
    Known(Held<T>),
}

/// What is left of an object for a while: a commit from before its removal that comes late conflicts with it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Grave {
    pub(super) at: UnixTime,
    /// Whether nothing may have its id. Subnets are given back by a network's id alone, so who is late with that must find no
    /// other network of the id.
    pub(super) spent: bool,
}

/// An object for which something is claimed when it comes, and given back when it goes.
pub(super) trait Claiming: Object {
    /// Claims what an accepted one needs, and says that it has it.
    fn allocate(
        manager: &Manager,
        held: &Held<Self>,
        now: UnixTime,
    ) -> impl Future<Output = Result<Self, Trouble>> + Send;

    /// Gives back what one has that is being removed, and deletes it.
    fn finish(
        manager: &Manager,
        held: &Held<Self>,
        now: UnixTime,
    ) -> impl Future<Output = Result<(), ControlError>> + Send;

    /// The same, of one that was never allocated, since it was refused.
    fn withdraw(
        manager: &Manager,
        held: &Held<Self>,
        _refused: &Refused,
        now: UnixTime,
    ) -> impl Future<Output = Result<(), ControlError>> + Send {
        Self::finish(manager, held, now)
    }
}

/// An object that others use, which is not removed meanwhile.
pub(super) trait Usable: Claiming {
    fn key_of(keys: &Keys, id: Self::Id) -> Key;

    /// What says that nobody uses it; refused if somebody does.
    fn unused(
        manager: &Manager,
        id: Self::Id,
        now: UnixTime,
    ) -> impl Future<Output = Result<Vec<Compare>, ControlError>> + Send;
}

impl Manager {
    /// Takes an accepted object to where it is allocated; what cannot be had is not kept.
    pub(super) async fn complete<T: Claiming>(&self, held: Held<T>, now: UnixTime) -> Result<T, ControlError> {
        if !held.is_pending() {
            return Ok(held.object);
        }
        match T::allocate(self, &held, now).await {
            Ok(object) => Ok(object),
            Err(Trouble::Stuck(error)) => Err(error),
            Err(Trouble::Refused(refused)) => self.undo(&held, refused, now).await.map_err(undone),
        }
    }

    /// Takes an accepted object back whose allocation was refused: unless another manager has allocated it meanwhile.
    async fn undo<T: Claiming>(&self, held: &Held<T>, refused: Refused, now: UnixTime) -> Result<T, ControlError> {
        match self.end_allocation(held, Condition::Removing).await? {
            Fate::Allocated(allocated) => return Ok(allocated.object),
            Fate::Gone => {}
            Fate::Taken(removing) => T::withdraw(self, &removing, &refused, now).await?,
        }
        Err(refused.into())
    }

    /// Removes what nobody uses. That nobody does is compared by the commit that says it is being removed; who comes after that finds
    /// it said.
    pub(super) async fn unmake<T: Usable>(&self, id: T::Id, now: UnixTime) -> Result<T, ControlError> {
        let held = self.begin_unused_removal::<T>(id, now).await?;
        T::finish(self, &held, now).await.map_err(in_doubt)?;
        Ok(held.object)
    }

    async fn begin_unused_removal<T: Usable>(&self, id: T::Id, now: UnixTime) -> Result<Held<T>, ControlError> {
        let key = T::key_of(&self.keys, id);
        for _ in 0..Transaction::ATTEMPTS {
            let unused = T::unused(self, id, now).await?;
            let begun = Transaction::on(&*self.store).attempts(2).run(|snapshot| {
                let (commit, held) = self.begin_removal::<T>(snapshot, &key)?;
                let Some(held) = held else { return refuse(not_found::<T>(id)) };
                Ok((unused.iter().cloned().fold(commit, Commit::compare), held))
            });
            match begun.await {
                Err(TransactionError::Contended { .. }) => {}
                begun => return begun.map(|done| done.output).map_err(failed),
            }
        }
        Err(ControlError::Contended { attempts: Transaction::ATTEMPTS })
    }

    /// Writes an object down.
    pub(super) async fn accept<T: Object>(
        &self,
        decide: impl FnMut(&Snapshot) -> Decided<Accepted<T>> + Send,
    ) -> Result<Held<T>, ControlError> {
        let done = Transaction::on(&*self.store).run(decide).await.map_err(failed)?;
        Ok(match done.output {
            Accepted::Known(held) => held,
            Accepted::New(object) => Held { object, claim: done.at.0, leases: Vec::new() },
        })
    }

    /// Adds an object's grave, which is a new one even where there was one.
    pub(super) fn bury<T: Object>(
        &self,
        snapshot: &Snapshot,
        commit: Commit,
        (id, grave): (T::Id, Grave),
    ) -> Result<Commit, Unread> {
        let key = self.keys.gone(T::WHAT, id);
        snapshot.get(&key)?;
        Ok(commit.put(key, encode(&grave)))
    }

    /// Opens an object's grave, if there is one. Refused if its id is spent.
    pub(super) fn exhume<T: Object>(
        &self,
        snapshot: &Snapshot,
        commit: Commit,
        id: T::Id,
    ) -> Result<Commit, Undecided<ControlError>> {
        let key = self.keys.gone(T::WHAT, id);
        let Some(entry) = snapshot.get(&key)? else { return Ok(commit) };
        let Grave { spent, .. } = json(&key, &entry.value).map_err(Undecided::Refused)?;
        match spent {
            true => refuse(Refused::Spent { what: T::WHAT, id: id.to_string() }),
            false => Ok(commit.delete(key)),
        }
    }

    /// Ends the allocation of `held`, unless somebody else has.
    pub(super) async fn end_allocation<T: Object>(
        &self,
        held: &Held<T>,
        condition: Condition,
    ) -> Result<Fate<T>, ControlError> {
        let key = held.object.key(&self.keys);
        self.run(|snapshot| {
            let fate = match self.fate(snapshot, &key, held)? {
                Fate::Taken(pending) if *pending.object.condition() == condition => Fate::Taken(pending),
                Fate::Taken(pending) => {
                    let ended = pending.with(condition.clone());
                    return Ok((Commit::new().put(key.clone(), ended.encode()), Fate::Taken(ended)));
                }
                fate => fate,
            };
            Ok((Commit::new(), fate))
        })
        .await
    }

    /// Whether `held` is pending still.
    pub(super) fn fate<T: Object>(
        &self,
        snapshot: &Snapshot,
        key: &Key,
        held: &Held<T>,
    ) -> Result<Fate<T>, Undecided<ControlError>> {
        let now: Option<Held<T>> = self.held(snapshot, key)?;
        Ok(match now.filter(|now| now.claim == held.claim) {
            Some(now) if now.is_pending() => Fate::Taken(now),
            Some(now) if !now.is_removing() => Fate::Allocated(now),
            _ => Fate::Gone,
        })
    }

    /// Writes down that a removal has begun; gives what is being removed, `None` if there is nothing.
    pub(super) fn begin_removal<T: Object>(&self, snapshot: &Snapshot, key: &Key) -> Decided<Option<Held<T>>> {
        let Some(held) = self.held::<T>(snapshot, key)? else { return Ok((Commit::new(), None)) };
        if held.is_removing() {
            return Ok((Commit::new(), Some(held)));
        }
        let removing = held.with(Condition::Removing);
        Ok((Commit::new().put(key.clone(), removing.encode()), Some(removing)))
    }

    /// Deletes an object that is being removed, if it is still there, with the keys that say it is this one's. Gives the commit to
    /// which its other keys are added; `None` if it is gone.
    pub(super) fn delete<T: Object>(
        &self,
        snapshot: &Snapshot,
        held: &Held<T>,
    ) -> Result<Option<Commit>, Undecided<ControlError>> {
        let key = held.object.key(&self.keys);
        let now: Option<Held<T>> = self.held(snapshot, &key)?;
        Ok(now.filter(|now| now.claim == held.claim).map(|_| Commit::new().delete(key)))
    }

    /// Deletes a key if what is under it is this text.
    pub(super) fn delete_own(
        &self,
        snapshot: &Snapshot,
        commit: Commit,
        key: Key,
        own: &str,
    ) -> Result<Commit, Unread> {
        match snapshot.get(&key)?.is_some_and(|entry| entry.value == own.as_bytes()) {
            true => Ok(commit.delete(key)),
            false => Ok(commit),
        }
    }
}
