//! What managers left half-done: finished, or undone.

use overlay_core::UnixTime;

use super::Manager;
use super::allocate::Claiming;
use super::transaction::Trouble;
use crate::catalogue::record::{Held, Object};
use crate::{Condition, ControlError, Endpoint, Network, Node, Refused, Service};

/// What [settling](Manager::settle) came to.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// Objects that were accepted and are allocated now, and networks that have the subnets now that they were to grow by.
    pub allocated: usize,
    /// Objects that were accepted and cannot be had now: their [condition](Condition::Failed) says why. The next settling tries
    /// again.
    pub failed: usize,
    /// Objects whose removal was begun and is complete now.
    pub removed: usize,
    /// Addresses, subnets, VNIs and ports that were claimed for nobody who is there, and are free again.
    pub reclaimed: usize,
    /// Objects that were removed an hour ago or more and are not remembered any more.
    pub forgotten: usize,
    /// What could not be settled, and why: the next settling tries again. Records that cannot be read are among them.
    pub troubles: Vec<ControlError>,
}

impl Manager {
    /// Goes on with what was begun and not finished, by a manager that died say: what is accepted is allocated or says why it
    /// cannot be; what is being removed goes; what was claimed and belongs to nobody is given back.
    ///
    /// Call it now and then, once a minute say; under a [`Term`](overlay_core::Term) if only one manager should, which saves work and
    /// is not needed for anything else. It reads the whole catalogue and all leases.
    ///
    /// # Errors
    /// If the catalogue could not be read. What was in the way of single objects is in what it gives.
    pub async fn settle(&self, now: UnixTime) -> Result<Settled, ControlError> {
        let mut settled = Settled::default();
        self.settle_all::<Network>(&mut settled, now).await?;
        self.settle_growth(&mut settled, now).await?;
        self.settle_all::<Service>(&mut settled, now).await?;
        for held in self.unsettled::<Node>(&mut settled).await? {
            let done = self.finish_node(&held, now).await;
            self.note(&mut settled, &held, done.map(|_| None).map_err(Trouble::from)).await;
        }
        self.settle_all::<Endpoint>(&mut settled, now).await?;
        match self.join_mesh(now).await {
            Ok(troubles) => settled.troubles.extend(troubles),
            Err(error) => settled.troubles.push(error),
        }
        settled.troubles.extend(self.leave_replicas(now).await.err());
        match self.reclaim(now).await {
            Ok(reclaimed) => settled.reclaimed = reclaimed,
            Err(error) => settled.troubles.push(error),
        }
        match self.forget(now).await {
            Ok(forgotten) => settled.forgotten = forgotten,
            Err(error) => settled.troubles.push(error),
        }
        Ok(settled)
    }

    async fn settle_all<T: Claiming>(&self, settled: &mut Settled, now: UnixTime) -> Result<(), ControlError> {
        for held in self.unsettled::<T>(settled).await? {
            let done = match held.is_removing() {
                true => T::finish(self, &held, now).await.map(|()| None).map_err(Trouble::from),
                false => T::allocate(self, &held, now).await.map(|_| Some(())),
            };
            self.note(settled, &held, done).await;
        }
        Ok(())
    }

    /// The objects of a kind that are neither allocated nor gone.
    async fn unsettled<T: Object>(&self, settled: &mut Settled) -> Result<Vec<Held<T>>, ControlError> {
        let (mut held, unreadable) = self.readable::<T>().await?;
        settled.troubles.extend(unreadable.into_values());
        held.retain(|held| held.is_pending() || held.is_removing());
        Ok(held)
    }

    /// What became of one: allocated, or, with `None`, removed.
    async fn note<T: Object>(&self, settled: &mut Settled, held: &Held<T>, done: Result<Option<()>, Trouble>) {
        match done {
            Ok(Some(())) => settled.allocated += 1,
            Ok(None) => settled.removed += 1,
            Err(Trouble::Stuck(error)) => settled.troubles.push(error),
            Err(Trouble::Refused(refused)) => match self.fail(held, &refused).await {
                Ok(()) => settled.failed += 1,
                Err(error) => settled.troubles.push(error),
            },
        }
    }

    /// Says in an object why it cannot be had, unless it is had by now.
    pub(super) async fn fail<T: Object>(&self, held: &Held<T>, refused: &Refused) -> Result<(), ControlError> {
        let failed = Condition::Failed { reason: refused.to_string() };
        self.end_allocation(held, failed).await.map(drop)
    }
}
