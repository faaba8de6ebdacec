//! A hash of tuples that only those who know its key can steer.

use super::Tuple;

/// The key of a hash: five secret words. Folded multiplication, as in wyhash: not for cryptography, but whoever sends packets
/// knows no key and sees no hash.
#[derive(Clone)]
pub(crate) struct Key([u64; 5]);

impl Key {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut words = [0; 5];
        let mut state = 0_u64;
        for (at, word) in words.iter_mut().enumerate() {
            let part = seed.iter().skip(at % 4 * 8).take(8).fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            state = fold(part ^ 0x9e37_79b9_7f4a_7c15, state ^ 0xbf58_476d_1ce4_e5b9 ^ (at as u64) << 32);
            *word = state ^ part.rotate_left(29);
        }
        Self(words)
    }

    /// Of all five parts of a tuple.
    #[inline]
    pub(crate) fn of(&self, tuple: &Tuple) -> u64 {
        let [a, b, c, d, e] = self.0;
        let (from, to) = (tuple.from, tuple.to);
        let ports =
            u64::from(tuple.from_port) << 32 | u64::from(tuple.to_port) << 8 | u64::from(tuple.protocol.number());
        let first = fold(from as u64 ^ a, (from >> 64) as u64 ^ b);
        let second = fold(to as u64 ^ c, (to >> 64) as u64 ^ d);
        fold(first ^ ports, second ^ e)
    }

    /// Of an address.
    #[inline]
    pub(crate) fn of_address(&self, address: u128) -> u64 {
        let [a, b, c, d, _] = self.0;
        fold(fold(address as u64 ^ a, (address >> 64) as u64 ^ b) ^ c, d)
    }
}

const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}
