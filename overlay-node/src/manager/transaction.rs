//! Decisions over the catalogue.

use std::sync::Arc;

use overlay_core::{Commit, CommitError, Key, Prefix, Snapshot, StoreError, Transaction, TransactionError, Undecided};
use overlay_ipam::IpamError;
use serde::de::DeserializeOwned;

use super::Manager;
use crate::catalogue::record::{Flaw, Held, Object};
use crate::{ControlError, Refused};

/// What a decision over a snapshot comes to.
pub(super) type Decided<T> = Result<(Commit, T), Undecided<ControlError>>;

/// Why something was not allocated.
pub(super) enum Trouble {
    /// It cannot be had, for good or for now.
    Refused(Refused),
    /// It is not known, or not finished.
    Stuck(ControlError),
}

impl From<IpamError> for Trouble {
    fn from(error: IpamError) -> Self {
        match error {
            IpamError::Subnet(refused) => Self::Refused(Refused::Subnet(refused)),
            error => Self::Stuck(ControlError::InDoubt(Arc::new(error))),
        }
    }
}

impl From<ControlError> for Trouble {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused(refused) => Self::Refused(refused),
            error => Self::Stuck(in_doubt(error)),
        }
    }
}

impl Manager {
    /// Reads, decides, commits; and again if somebody was faster.
    pub(super) async fn run<T: Send>(
        &self,
        decide: impl FnMut(&Snapshot) -> Decided<T> + Send,
    ) -> Result<T, ControlError> {
        Transaction::on(&*self.store).run(decide).await.map(|done| done.output).map_err(failed)
    }

    /// What is under a key, for a decision.
    pub(super) fn held<T: Object>(
        &self,
        snapshot: &Snapshot,
        key: &Key,
    ) -> Result<Option<Held<T>>, Undecided<ControlError>> {
        let entry = snapshot.get(key)?;
        let held = entry.map(|entry| Held::decode(&self.keys, key, entry)).transpose();
        held.map_err(|flaw| Undecided::Refused(flaw.into()))
    }

    /// What is under a key now.
    pub(super) async fn load<T: Object>(&self, key: &Key) -> Result<Option<Held<T>>, ControlError> {
        let entry = self.store.get(key).await?;
        Ok(entry.map(|entry| Held::decode(&self.keys, key, &entry)).transpose()?)
    }

    /// All objects under a prefix.
    pub(super) async fn all<T: Object>(&self, prefix: &Prefix) -> Result<Vec<Held<T>>, ControlError> {
        let entries = self.store.list(prefix).await?.entries;
        let held = entries.iter().map(|(key, entry)| Held::decode(&self.keys, key, entry));
        Ok(held.collect::<Result<_, _>>()?)
    }
}

/// A decision's refusal.
pub(super) fn refuse<T>(refused: Refused) -> Result<T, Undecided<ControlError>> {
    Err(Undecided::Refused(refused.into()))
}

/// The id that is written under a key.
pub(super) fn id_in<I: std::str::FromStr>(key: &Key, value: &[u8]) -> Result<I, ControlError> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| ControlError::Corrupt { key: key.to_string(), flaw: "it is no id".to_owned() })
}

/// Nothing has the id.
pub(super) fn not_found<T: Object>(id: T::Id) -> Refused {
    Refused::NotFound { what: T::WHAT, reference: id.to_string() }
}

/// Somebody removed it while it was being made.
pub(super) fn withdrawn<T: Object>(id: &T::Id) -> Refused {
    Refused::Withdrawn { what: T::WHAT, id: id.to_string() }
}

/// Why something was not given back.
pub(super) fn unreleased(error: IpamError) -> ControlError {
    ControlError::InDoubt(Arc::new(error))
}

/// What is undone is refused; what is not may yet come to be.
pub(super) fn undone(error: ControlError) -> ControlError {
    match error {
        ControlError::Refused(_) => error,
        error => in_doubt(error),
    }
}

/// What is under a key beside the objects.
pub(super) fn json<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, ControlError> {
    let corrupt = |error: serde_json::Error| ControlError::Corrupt { key: key.to_string(), flaw: error.to_string() };
    serde_json::from_slice(value).map_err(corrupt)
}

/// Half of it is done: whatever happened, the same call again finds out, and goes on.
pub(super) fn in_doubt(error: ControlError) -> ControlError {
    match error {
        ControlError::InDoubt(_) => error,
        error => ControlError::InDoubt(Arc::new(error)),
    }
}

pub(super) fn failed(error: TransactionError<ControlError>) -> ControlError {
    match error {
        TransactionError::Refused(error) => error,
        TransactionError::Contended { attempts, .. } => ControlError::Contended { attempts },
        TransactionError::InDoubt(error) => ControlError::InDoubt(Arc::new(error)),
        TransactionError::Store(error) => error.into(),
        TransactionError::Commit(CommitError::TooLarge { what, size, limit }) => {
            Refused::TooLarge { what: what.to_string(), size, limit }.into()
        }
        error => {
            ControlError::Store(Arc::new(StoreError::Failed { doing: "decide", source: error.to_string().into() }))
        }
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Flaw> for ControlError {
    fn from(Flaw { key, flaw }: Flaw) -> Self {
        Self::Corrupt { key: key.to_string(), flaw }
    }
}
