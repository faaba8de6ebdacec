//! This node's own changes.

use bytes::Bytes;
use overlay_core::{Instant, NetworkId};

use crate::tables::chain::Outcome;
use crate::tables::wire::Change;
use crate::tables::{DIRECTORY, Refused, Replica, Tables, VALUE_LIMIT};
use crate::{Key, Sequence, TableId};

impl Tables {
    /// Subscribes to a network: its entries come, and the others hear of it. Nothing happens if it is subscribed to.
    ///
    /// # Errors
    /// For the reserved network, and at the limit of networks.
    pub(crate) fn subscribe(&mut self, network: NetworkId, now: Instant) -> Result<(), Refused> {
        if network == DIRECTORY {
            return Err(Refused::Reserved);
        }
        if self.replicas.contains_key(&network) {
            return Ok(());
        }
        let found = self.replicas.len() - 1;
        if found >= self.config.networks_limit {
            return Err(Refused::TooManyNetworks { found });
        }
        let base = self.numbers.get(&network).copied().unwrap_or(self.number_floor);
        let value = if base == 0 { Bytes::new() } else { Bytes::copy_from_slice(&base.to_be_bytes()) };
        self.write(DIRECTORY, (TableId(0), Key::of_network(network)), Some(value), now)?;
        self.numbers.remove(&network);
        self.replicas.insert(network, Replica::new(now));
        self.replica_begins(network, now);
        Ok(())
    }

    /// Forgets a network; the others drop this node's entries in it. Nothing happens if it is not subscribed to.
    pub(crate) fn unsubscribe(&mut self, network: NetworkId, now: Instant) {
        if network == DIRECTORY {
            return;
        }
        let Some(replica) = self.replicas.remove(&network) else {
            return;
        };
        if let Some(chain) = replica.chain(self.me) {
            self.numbers.insert(network, chain.seen().last());
        }
        if self.numbers.len() > self.config.networks_limit
            && let Some((_, number)) = self.numbers.pop_first()
        {
            self.number_floor = self.number_floor.max(number);
        }
        self.fresh.forget(network, None);
        self.events.forget(network);
        self.pulls.forget_network(network);
        self.confirms.retain(|(_, of)| *of != network);
        self.unacted.forget_network(network);
        // Removing makes a tombstone in place of an entry, for which there is room.
        let _ = self.write(DIRECTORY, (TableId(0), Key::of_network(network)), None, now);
    }

    /// Makes or changes an entry of this node. A value that it has already makes no change.
    ///
    /// The sequence is the change's: it has come to all once the watermark is there.
    ///
    /// # Errors
    /// For a network not subscribed to, a value above 64 KiB, and at the limits.
    pub(crate) fn put(
        &mut self,
        network: NetworkId,
        (table, key): (TableId, Key),
        value: Bytes,
        now: Instant,
    ) -> Result<Sequence, Refused> {
        self.check(network)?;
        if value.len() > VALUE_LIMIT {
            return Err(Refused::ValueTooLong { found: value.len() });
        }
        let slot = self.replicas.get(&network).and_then(|replica| replica.chain(self.me)?.slot(table, &key));
        match slot.filter(|slot| slot.value.as_ref() == Some(&value)) {
            Some(slot) => Ok(Sequence(slot.sequence)),
            None => self.write(network, (table, key), Some(value), now),
        }
    }

    /// Removes an entry of this node; none if there is no such entry.
    ///
    /// # Errors
    /// For a network not subscribed to.
    pub(crate) fn remove(
        &mut self,
        network: NetworkId,
        (table, key): (TableId, Key),
        now: Instant,
    ) -> Result<Option<Sequence>, Refused> {
        self.check(network)?;
        match self.get(network, self.me, table, &key) {
            Some(_) => self.write(network, (table, key), None, now).map(Some),
            None => Ok(None),
        }
    }

    fn check(&self, network: NetworkId) -> Result<(), Refused> {
        match network {
            DIRECTORY => Err(Refused::Reserved),
            _ if self.replicas.contains_key(&network) => Ok(()),
            _ => Err(Refused::NotSubscribed { network }),
        }
    }

    pub(super) fn write(
        &mut self,
        network: NetworkId,
        (table, key): (TableId, Key),
        value: Option<Bytes>,
        now: Instant,
    ) -> Result<Sequence, Refused> {
        let (me, incarnation, room) = (self.me, self.incarnation, self.room(network, usize::MAX));
        let signature = self.signature_len();
        let Some(replica) = self.replicas.get_mut(&network) else {
            return Err(Refused::NotSubscribed { network });
        };
        let written = replica.edit(me, incarnation, |chain| {
            let change = chain.next(table, key.clone(), value);
            let (sequence, len) = (change.sequence, change.encoded_len() + signature);
            match chain.apply(change, room, now) {
                Outcome::Applied => Ok((sequence, len)),
                _ => Err(Refused::Full { entries: chain.len() - chain.tombstones(), bytes: chain.bytes() }),
            }
        });
        let (sequence, len) = written?;
        self.counts.made += 1;
        self.owe_signature(network, sequence);
        self.tell((network, me, table, key), false, len, now);
        self.settle(network, now);
        Ok(Sequence(sequence))
    }
}

impl Change {
    /// Bytes that a change takes in a message of its own.
    pub(crate) fn lonely_len(len: usize) -> usize {
        len + LONELY
    }
}

/// Kind, network, owner, incarnation, stable number and count, at their longest.
const LONELY: usize = 1 + 16 + 16 + 10 + 10 + 1;
