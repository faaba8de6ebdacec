//! What a machine has done and how long its queues are.

use serde::Serialize;

use crate::wire::{self, Kind};
use crate::{Class, TablesMetrics};

/// Counts since the start, and lengths now, of the membership protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MembershipMetrics {
    /// Members alive, oneself not included.
    pub alive: usize,
    /// Members suspected now.
    pub suspected: usize,
    /// Members suspended now.
    pub suspended: usize,
    /// Members that left and are still remembered.
    pub left: usize,
    /// Pieces of news that are still being told.
    pub news: usize,
    /// Probes under way.
    pub probes: usize,
    /// Members, or later starts and words of theirs, that are not taken yet as nothing is known by which their signatures could be verified.
    pub claims: usize,
    /// Local health: 0 is well; the greater, the slower this node is believed to be.
    pub health: u8,
    /// Probes begun in turn, and to verify a suspicion.
    pub probes_begun: u64,
    /// Probes without an answer.
    pub probes_failed: u64,
    /// Suspicions heard of or raised, each once per member and number.
    pub suspicions: u64,
    /// Suspicions that this node raised or confirmed.
    pub accusations: u64,
    /// Times that this node objected to what was said of it.
    pub refutations: u64,
    /// Members that this node's own clock suspended.
    pub declared: u64,
    /// Digests in probes and answers that differed from one's own.
    pub digest_mismatches: u64,
    /// Comparisons of membership begun.
    pub syncs: u64,
    /// Calls to seeds and suspended members.
    pub calls: u64,
    /// Times that a deadline was served late by more than half a probe's timeout.
    pub late: u64,
    /// Newcomers refused since the list was full.
    pub refused_full: u64,
    /// Goodbyes that were never said: in this node's name, or where goodbyes are [signed](crate::Verify), without the signature of who
    /// is said to have left.
    pub forged_leaves: u64,
    /// Words of members on themselves that they have not [signed](crate::Verify), or shown what is not theirs.
    pub forged: u64,
    /// Such words without any signature.
    pub unsigned: u64,
    /// Such words that were not looked at, since too many were forged of late, or something before them in the same message.
    pub unverified: u64,
    /// How often it was asked what a member has shown of itself.
    pub proofs_asked: u64,
    /// Messages that were not for this node, or answered nothing that it asked.
    pub stray: u64,
}

/// A snapshot of a machine's counts and queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Of membership.
    pub membership: MembershipMetrics,
    /// Of the tables.
    pub tables: TablesMetrics,
    /// What was sent, unsealed.
    pub sent: Traffic,
    /// What arrived, unsealed.
    pub received: Traffic,
    /// Messages not read: in this node's own name, of strangers beyond their rate, for more members while many answers wait, or
    /// after this node's goodbye.
    pub refused: u64,
    /// Payloads that were no messages.
    pub malformed: u64,
    /// Messages of the tables for nodes that are not known any more.
    pub unroutable: u64,
    /// Messages waiting for [`poll_transmit`](crate::Gossip::poll_transmit), the tables' included.
    pub transmits: usize,
    /// Events waiting for [`poll_event`](crate::Gossip::poll_event), the tables' included.
    pub events: usize,
}

/// Messages and bytes by class, and messages by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes, without seal, UDP and IP.
    pub datagram_bytes: u64,
    /// Messages on streams.
    pub streams: u64,
    /// Their bytes, without seal, TCP and IP.
    pub stream_bytes: u64,
    /// Probes, and probes in others' stead.
    pub pings: Count,
    /// Their answers.
    pub acks: Count,
    /// Requests for a probe in one's stead.
    pub ping_requests: Count,
    /// Word that such a probe is not answered.
    pub nacks: Count,
    /// Membership news.
    pub news: Count,
    /// Comparisons of membership.
    pub syncs: Count,
    /// What members have shown of themselves, and requests for it.
    pub proofs: Count,
    /// What the tables tell each other.
    pub tables: Count,
    /// foca's messages.
    pub foca: Count,
}

/// Messages of one kind, several of which may be in one datagram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// How many.
    pub messages: u64,
    /// Their bodies' bytes.
    pub bytes: u64,
}

impl Traffic {
    pub(crate) const fn count(&mut self, class: Class, len: usize) {
        match class {
            Class::Datagram => {
                self.datagrams += 1;
                self.datagram_bytes += len as u64;
            }
            Class::Stream => {
                self.streams += 1;
                self.stream_bytes += len as u64;
            }
        }
    }

    /// Counts each message of a payload.
    pub(crate) fn count_kinds(&mut self, payload: &[u8]) {
        for (kind, len) in wire::bodies(payload) {
            let count = match kind {
                Kind::Ping => &mut self.pings,
                Kind::Ack => &mut self.acks,
                Kind::PingRequest => &mut self.ping_requests,
                Kind::Nack => &mut self.nacks,
                Kind::News => &mut self.news,
                Kind::SyncRequest | Kind::SyncReply | Kind::SyncPush => &mut self.syncs,
                Kind::Prove | Kind::Proofs => &mut self.proofs,
                Kind::Table => &mut self.tables,
                Kind::Foca => &mut self.foca,
            };
            count.messages += 1;
            count.bytes += len as u64;
        }
    }
}
