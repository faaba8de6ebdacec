//! The keys of two nodes.

use std::collections::BTreeSet;
use std::fmt;

use overlay_core::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::EpochRecord;
use super::derive::{Context, derive};
use crate::{Cipher, Epochs, Lane, SaKey, Spi};

/// Which way packets go, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the peer to this node.
    In,
    /// From this node to the peer.
    Out,
}

/// What one key is for, between two nodes in given epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// The network.
    pub network: NetworkId,
    /// Which of the tunnel's associations.
    pub lane: Lane,
    /// Which way.
    pub direction: Direction,
}

/// What two nodes in given epochs of theirs agreed upon: the source of all their keys, each of which it issues once.
///
/// Secret; wiped when it is dropped.
pub struct Pair {
    shared: Zeroizing<[u8; 32]>,
    ours: (NodeId, EpochRecord),
    theirs: (NodeId, EpochRecord),
    issued: BTreeSet<Use>,
}

/// The key of one association, and what else both ends derive with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its SPI: by chance, so another association of the receiver's may have it. Then the receiver needs a new epoch.
    pub spi: Spi,
    /// Its key.
    pub key: SaKey,
    /// The epochs it is of.
    pub epochs: Epochs,
}

/// The key was issued before, and is not again: no two senders count under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of network {}, lane {}, {} was issued already", .0.network.short(), .0.lane, .0.direction)]
pub struct AlreadyIssued(pub Use);

impl Pair {
    pub(super) fn new(shared: Zeroizing<[u8; 32]>, ours: (NodeId, EpochRecord), theirs: (NodeId, EpochRecord)) -> Self {
        Self { shared, ours, theirs, issued: BTreeSet::new() }
    }

    /// The key for `use`: HKDF-SHA256 (RFC 5869) of the secret, both nodes' ids, public keys and epochs in the order of sender and receiver, the
    /// network, the lane and the cipher; key, salt and SPI are one output of it.
    ///
    /// # Errors
    /// [`AlreadyIssued`] if it was issued before, for whatever cipher.
    pub fn issue(&mut self, r#use: Use, cipher: Cipher) -> Result<Issued, AlreadyIssued> {
        if self.issued.contains(&r#use) {
            return Err(AlreadyIssued(r#use));
        }
        let Use { network, lane, direction } = r#use;
        let (sender, receiver) = match direction {
            Direction::Out => (self.ours, self.theirs),
            Direction::In => (self.theirs, self.ours),
        };
        let context = Context { cipher, network, lane, sender, receiver };
        let (spi, key) = derive(&self.shared, &context).ok_or(AlreadyIssued(r#use))?; // its lengths are right
        self.issued.insert(r#use);
        Ok(Issued { spi, key, epochs: Epochs { sender: sender.1.epoch, receiver: receiver.1.epoch } })
    }

    /// The peer.
    pub fn peer(&self) -> NodeId {
        self.theirs.0
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &[u8; 32] {
        &self.shared
    }

    /// The peer's record that it comes of.
    pub fn record(&self) -> EpochRecord {
        self.theirs.1
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared: _, ours, theirs, issued } = self;
        let mut shown = f.debug_struct("Pair");
        shown.field("ours", ours).field("theirs", theirs).field("issued", issued).finish_non_exhaustive()
    }
}
