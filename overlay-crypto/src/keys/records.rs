//! What a node publishes of its keys while they change.

use overlay_core::Malformed;
use serde::{Deserialize, Serialize};

use super::{Epoch, EpochRecord};
use crate::{Stage, version};

/// A node's present key, and while it [rotates](crate::Rotation) the next or the previous one: which of both, their epochs tell.
///
/// Others seal for the *present* one, and open what is sealed by the present and the next; the previous is told so that nobody forgets it too soon.
///
/// ```
/// use overlay_crypto::{Epoch, EpochRecord, EpochRecords, PublicKey};
///
/// let record = |epoch| Ok::<_, overlay_crypto::EpochError>(EpochRecord { epoch: Epoch::new(epoch)?, public: PublicKey::from_bytes([epoch as u8; 32]) });
/// let rotating = EpochRecords::of(record(7)?).beside(record(8)?);
/// assert_eq!((rotating.next(), rotating.previous()), (Some(record(8)?), None));
/// assert_eq!(EpochRecords::parse(&rotating.encode()), Ok(rotating));
/// # Ok::<(), overlay_crypto::EpochError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpochRecords {
    /// The present.
    pub current: EpochRecord,
    beside: Option<EpochRecord>,
}

const VERSION: u8 = 1;

impl EpochRecords {
    /// Of a node that has one key.
    pub const fn of(current: EpochRecord) -> Self {
        Self { current, beside: None }
    }

    /// With another: the next if its epoch is later, the previous if it is earlier; of the same epoch it is none.
    #[must_use]
    pub fn beside(self, other: EpochRecord) -> Self {
        Self { beside: Some(other).filter(|other| other.epoch != self.current.epoch), ..self }
    }

    /// The next.
    pub fn next(&self) -> Option<EpochRecord> {
        self.beside.filter(|beside| beside.epoch > self.current.epoch)
    }

    /// The previous.
    pub fn previous(&self) -> Option<EpochRecord> {
        self.beside.filter(|beside| beside.epoch < self.current.epoch)
    }

    /// The stage that a node which publishes this is in, as far as it says: it installs its next for a moment before it does.
    pub fn stage(&self) -> Stage {
        match (self.next(), self.previous()) {
            (Some(_), _) => Stage::Installing,
            (_, Some(_)) => Stage::Promoted,
            _ => Stage::Steady,
        }
    }

    /// What others are to open: the present and the next, the earlier first.
    pub fn to_open(&self) -> impl Iterator<Item = EpochRecord> {
        [self.current].into_iter().chain(self.next())
    }

    /// Whether one is of that epoch.
    pub fn contains(&self, epoch: Epoch) -> bool {
        [self.current].iter().chain(&self.beside).any(|record| record.epoch == epoch)
    }

    /// The format's number, 1, the present one's bytes, then the other's: 41 or 81.
    pub fn encode(&self) -> Vec<u8> {
        [VERSION].into_iter().chain([self.current].iter().chain(&self.beside).flat_map(EpochRecord::encode)).collect()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it is of another release's format, there are neither 41 nor 81 bytes, an epoch is 0, or both are of one epoch.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = version::behind(VERSION, "a node's keys", bytes)?;
        let (first, rest) = bytes.split_at(bytes.len().min(EpochRecord::LEN));
        let current = EpochRecord::parse(first)?;
        if rest.is_empty() {
            return Ok(Self::of(current));
        }
        let both = Self::of(current).beside(EpochRecord::parse(rest)?);
        if both.beside.is_none() {
            let found = current.epoch.get();
            return Err(Malformed::Range {
                field: "another epoch",
                found,
                least: found.saturating_add(1),
                most: u64::MAX,
            });
        }
        Ok(both)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PublicKey;

    fn record(epoch: u64) -> EpochRecord {
        EpochRecord { epoch: Epoch::new(epoch).unwrap(), public: PublicKey::from_bytes([epoch as u8; 32]) }
    }

    #[test]
    fn an_earlier_one_is_the_previous_and_a_later_one_the_next() {
        let (steady, installing) = (EpochRecords::of(record(7)), EpochRecords::of(record(7)).beside(record(8)));
        let promoted = EpochRecords::of(record(8)).beside(record(7));
        assert_eq!((steady.next(), steady.previous()), (None, None));
        let stages = [steady, installing, promoted].map(|records| records.stage());
        assert_eq!(stages, [Stage::Steady, Stage::Installing, Stage::Promoted]);
        assert_eq!((installing.next(), installing.previous()), (Some(record(8)), None));
        assert_eq!((promoted.next(), promoted.previous()), (None, Some(record(7))));
        assert!(installing.to_open().eq([record(7), record(8)]) && promoted.to_open().eq([record(8)]));
        assert!(promoted.contains(record(7).epoch) && !steady.contains(record(8).epoch));
        assert_eq!(steady.beside(record(7)), steady);
    }

    #[test]
    fn bytes_that_are_no_records_are_refused() {
        let twice = [&[1][..], &record(7).encode(), &record(7).encode()].concat();
        for bytes in [&twice[..], &twice[..80], &twice[..40], &[0; 41], &[1; 82], &[1], &[]] {
            assert!(EpochRecords::parse(bytes).is_err(), "{} bytes", bytes.len());
        }
        let mut later = EpochRecords::of(record(7)).encode();
        later[0] = 2;
        assert_eq!(EpochRecords::parse(&later), Err(Malformed::Version { found: 2, read: 1 }));
    }

    proptest! {
        #[test]
        fn what_parses_is_the_one_encoding(bytes in prop::collection::vec(0_u8..3, 0..83)) {
            if let Ok(records) = EpochRecords::parse(&bytes) {
                prop_assert_eq!(records.encode(), bytes);
            }
        }

        #[test]
        fn records_are_the_same_after_their_way_through_bytes(current in 1_u64.., other in 1_u64..) {
            for records in [EpochRecords::of(record(current)), EpochRecords::of(record(current)).beside(record(other))] {
                prop_assert_eq!(EpochRecords::parse(&records.encode()), Ok(records));
            }
        }
    }
}
