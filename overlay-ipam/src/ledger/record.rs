//! The small records: a lease, and who works in which block.

use bytes::Bytes;
use overlay_core::{NodeId, UnixTime};

use super::wire::{Flaw, Reader};
use crate::Use;

/// What an owner has. Format 1: the plot (1 byte), the purpose (1), the number (16), the generation (8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) plot: u8,
    pub(crate) purpose: Use,
    pub(crate) number: u128,
    pub(crate) generation: u64,
}

const FORMAT: u8 = 1;

impl Held {
    pub(crate) fn parse(record: &[u8]) -> Result<Self, Flaw> {
        let mut reader = Reader::new(record, FORMAT)?;
        let plot = reader.u8()?;
        let purpose = match reader.u8()? {
            0 => Use::Endpoint,
            1 => Use::Vip,
            _ => return Err(Flaw::Field { field: "purpose" }),
        };
        let held = Self { plot, purpose, number: reader.u128()?, generation: reader.u64()? };
        reader.end()?;
        Ok(held)
    }

    /// Bytes of a record.
    pub(crate) const LEN: usize = 27;

    pub(crate) fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.record())
    }

    pub(crate) fn record(&self) -> [u8; Self::LEN] {
        let mut record = [0; Self::LEN];
        record[0] = FORMAT;
        record[1] = self.plot;
        record[2] = u8::from(self.purpose == Use::Vip);
        record[3..19].copy_from_slice(&self.number.to_be_bytes());
        record[19..].copy_from_slice(&self.generation.to_be_bytes());
        record
    }
}

/// Where claims in a window go on, and which blocks managers hold for themselves, each until a date.
///
/// A hold is a preference: it keeps managers out of each other's way. What keeps them from taking the same number is that a
/// commit compares its blocks. Format 1: the next block (16 bytes), then for each hold manager (16), block (16) and date (8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Holds {
    pub(crate) next: u128,
    pub(crate) holds: Vec<Hold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) manager: NodeId,
    pub(crate) block: u128,
    pub(crate) until: UnixTime,
}

/// Holds of more managers than this are forgotten, those that end first before others.
const MOST: usize = 16;

impl Holds {
    /// Whether somebody other than `manager` holds `block`.
    pub(crate) fn is_others(&self, block: u128, manager: NodeId, now: UnixTime) -> bool {
        self.holds.iter().any(|hold| hold.block == block && hold.manager != manager && now < hold.until)
    }

    /// What `manager` held last, though it may be over.
    pub(crate) fn of(&self, manager: NodeId) -> Option<Hold> {
        self.holds.iter().find(|hold| hold.manager == manager).copied()
    }

    pub(crate) fn hold(&mut self, hold: Hold) {
        self.holds.retain(|other| other.manager != hold.manager && other.block != hold.block);
        self.holds.push(hold);
        if self.holds.len() > MOST {
            self.holds.sort_by_key(|hold| hold.until);
            self.holds.remove(0);
        }
    }

    pub(crate) fn parse(record: &[u8]) -> Result<Self, Flaw> {
        let mut reader = Reader::new(record, FORMAT)?;
        let next = reader.u128()?;
        let count = record.len().saturating_sub(17) / 40;
        if count > MOST {
            return Err(Flaw::Field { field: "holds" });
        }
        let mut holds = Vec::with_capacity(count);
        for _ in 0..count {
            let manager = NodeId::from_bytes(reader.take()?);
            holds.push(Hold { manager, block: reader.u128()?, until: reader.time()? });
        }
        reader.end()?;
        Ok(Self { next, holds })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut record = Vec::with_capacity(17 + 40 * self.holds.len());
        record.push(FORMAT);
        record.extend(self.next.to_be_bytes());
        for hold in &self.holds {
            record.extend(hold.manager.to_bytes());
            record.extend(hold.block.to_be_bytes());
            record.extend(hold.until.as_millis().to_be_bytes());
        }
        record.into()
    }
}
