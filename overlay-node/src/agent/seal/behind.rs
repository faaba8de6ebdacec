//! Nodes that seal with a key that others have left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::Instant;
use overlay_crypto::gossip::KeyId;

/// Who has sealed last with a key that is not the primary, and with which: it may have no other, so it is answered with that one, until it seals with the primary.
///
/// One in [`PROBE`] messages to it is sealed with the primary all the same: so two that take each other for behind find out that neither is.
#[derive(Debug, Default)]
pub(super) struct Behind(BTreeMap<SocketAddr, Mark>);

#[derive(Debug)]
struct Mark {
    key: KeyId,
    /// Until when it counts.
    until: Instant,
    /// Messages to it so far.
    sent: u64,
}

const PROBE: u64 = 4;
/// How long it counts what somebody sealed with.
const COUNTS: Duration = Duration::from_secs(10);
/// So many are known at most.
const MOST: usize = 4096;

impl Behind {
    /// Somebody has sealed with a key, by which it is told that it is behind if `is_left`.
    pub(super) fn heard(&mut self, from: SocketAddr, key: KeyId, is_left: bool, now: Instant) {
        if !is_left {
            return self.follows(from);
        }
        if self.0.len() >= MOST && !self.0.contains_key(&from) {
            self.0.retain(|_, mark| mark.until > now);
        }
        if self.0.len() < MOST {
            let sent = self.0.get(&from).map_or(0, |mark| mark.sent);
            self.0.insert(from, Mark { key, until: now + COUNTS, sent });
        }
    }

    /// Somebody has said that it opens the primary.
    pub(super) fn follows(&mut self, address: SocketAddr) {
        self.0.remove(&address);
    }

    /// The key to seal the next message to somebody with, if not with the primary.
    pub(super) fn key_for(&mut self, to: SocketAddr, now: Instant) -> Option<KeyId> {
        let mark = self.0.get_mut(&to).filter(|mark| mark.until > now)?;
        mark.sent += 1;
        (!mark.sent.is_multiple_of(PROBE)).then_some(mark.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: KeyId = KeyId::from_bytes([1; 4]);

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn who_is_behind_is_answered_with_its_key_but_for_one_message_in_four_until_it_is_not() {
        let (mut behind, now) = (Behind::default(), Instant::ZERO);
        assert_eq!(behind.key_for(at(1), now), None);
        behind.heard(at(1), OLD, true, now);
        let keys: Vec<_> = (0..8).map(|_| behind.key_for(at(1), now).is_some()).collect();
        assert_eq!(keys, [true, true, true, false, true, true, true, false]);
        assert_eq!(behind.key_for(at(1), now + COUNTS), None, "that was long ago");
        behind.heard(at(1), KeyId::from_bytes([2; 4]), false, now);
        assert_eq!(behind.key_for(at(1), now), None);
    }

    #[test]
    fn what_is_known_has_a_limit_and_what_is_old_makes_room() {
        let (mut behind, now) = (Behind::default(), Instant::ZERO);
        (0..MOST as u16 + 9).for_each(|port| behind.heard(at(port), OLD, true, now));
        assert_eq!(behind.0.len(), MOST);
        behind.heard(at(60_000), OLD, true, now + COUNTS);
        assert_eq!(behind.0.len(), 1);
    }
}
