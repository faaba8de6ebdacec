//! Chance for one key after the other.

use std::fmt;

use crate::provider::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

/// 32 bytes of chance, from which those of any number of secrets are drawn, one after the other.
///
/// With each draw it becomes another (HKDF-SHA256, RFC 5869), so what was drawn before does not follow from what is left. It cannot be copied, and is wiped when it
/// is dropped.
///
/// ```
/// use overlay_core::NodeId;
/// use overlay_crypto::{Chance, Epoch, EpochSecret};
///
/// # let from_the_operating_system = [7; 32];
/// let mut chance = Chance::new(from_the_operating_system);
/// let me = NodeId::from_bytes([1; 16]);
/// let first = EpochSecret::generate(me, Epoch::FIRST, |to| chance.draw(to));
/// let second = EpochSecret::generate(me, Epoch::new(2)?, |to| chance.draw(to));
/// assert_ne!(first.record().public, second.record().public);
/// # Ok::<(), overlay_crypto::EpochError>(())
/// ```
pub struct Chance(Zeroizing<[u8; 32]>);

impl Chance {
    /// From 32 bytes that must come from a source that is fit for keys, never from a seed that may come again. The caller wipes its own copy.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Fills the first 32 bytes of `to` at most.
    pub fn draw(&mut self, to: &mut [u8]) {
        let mut output = Zeroizing::new([0; 64]);
        let pseudorandom = Salt::new(HKDF_SHA256, LABEL).extract(self.0.as_slice());
        let filled = pseudorandom.expand(&[LABEL], Len).and_then(|okm| okm.fill(output.as_mut_slice()));
        debug_assert!(filled.is_ok(), "its length is right");
        let (drawn, left) = output.split_at(32);
        to.iter_mut().zip(drawn).for_each(|(to, from)| *to = *from);
        self.0.iter_mut().zip(left).for_each(|(to, from)| *to = *from);
    }
}

const LABEL: &[u8] = b"overlay-crypto chance 1";

struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        64
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(chance: &mut Chance) -> [u8; 32] {
        let mut bytes = [0; 32];
        chance.draw(&mut bytes);
        bytes
    }

    #[test]
    fn each_draw_is_another_and_none_is_what_it_was_made_of() {
        let mut chance = Chance::new([7; 32]);
        let all: Vec<_> = (0..10).map(|_| drawn(&mut chance)).collect();
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one) && *one != [7; 32] && *one != [0; 32]);
        }
        assert_ne!(drawn(&mut Chance::new([8; 32])), all[0]);
        assert_eq!(format!("{chance:?}"), "Chance(..)");
    }
}
