//! What a node publishes of the keys it has.

use std::collections::BTreeSet;

use overlay_core::{Malformed, NodeId};

use super::{Generation, Keyring};
use crate::{PublicKey, version};

/// What a node says of the keys of gossip that it has, in a table whose entries have one writer each: names and numbers, never a key.
///
/// All in it but the public key only ever grows, so that whoever [hears](super::Succession::hear) of what all others say, in whatever order, comes to the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessionRecord {
    /// What keys are wrapped with for this start of the node.
    pub public: PublicKey,
    /// The key that it seals with.
    pub primary: Generation,
    /// The first that it opens with: all before were retired.
    pub floor: Generation,
    /// What the floor is to be raised to, once all seal with that key or a later one.
    pub aim: Generation,
    /// What it opens with, [`Keyring::LIMIT`] at most.
    pub holds: Vec<Generation>,
    /// The nodes that get no key any more; [`WITHOUT`](Self::WITHOUT) at most.
    pub without: BTreeSet<NodeId>,
}

const FIELD: &str = "a record of gossip's keys";
const VERSION: u8 = 1;

impl SuccessionRecord {
    /// So many nodes can be left out at once.
    pub const WITHOUT: usize = 32;

    /// Whether the node opens with that key.
    pub fn holds(&self, generation: Generation) -> bool {
        self.holds.iter().any(|held| held.id == generation.id)
    }

    /// The format's number, 1, public key, primary, floor and aim, then what it holds and who is left out, each after its number in a byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.public.to_bytes());
        [self.primary, self.floor, self.aim].iter().for_each(|it| bytes.extend_from_slice(&it.encode()));
        let holds = self.holds.iter().take(Keyring::LIMIT);
        bytes.push(holds.len() as u8);
        holds.for_each(|it| bytes.extend_from_slice(&it.encode()));
        let without = self.without.iter().take(Self::WITHOUT);
        bytes.push(without.len() as u8);
        without.for_each(|it| bytes.extend_from_slice(&it.to_bytes()));
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it is of another release's format, there are fewer bytes or more, there is too much of something, or a number is out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Rest { bytes: version::behind(VERSION, FIELD, bytes)?, have: bytes.len() };
        let public = PublicKey::from_bytes(*rest.chunk::<32>()?);
        let [primary, floor, aim] = [rest.generation()?, rest.generation()?, rest.generation()?];
        let holds =
            (0..rest.count("keys held", Keyring::LIMIT)?).map(|_| rest.generation()).collect::<Result<_, _>>()?;
        let count = rest.count("nodes left out", Self::WITHOUT)?;
        let without = (0..count).map(|_| rest.chunk().map(|id| NodeId::from_bytes(*id))).collect::<Result<_, _>>()?;
        match rest.bytes.len() {
            0 => Ok(Self { public, primary, floor, aim, holds, without }),
            extra => Err(Malformed::Trailing { field: FIELD, extra }),
        }
    }
}

/// What is still to be read.
struct Rest<'a> {
    bytes: &'a [u8],
    have: usize,
}

impl<'a> Rest<'a> {
    fn chunk<const LEN: usize>(&mut self) -> Result<&'a [u8; LEN], Malformed> {
        let read = self.have - self.bytes.len();
        let truncated = Malformed::Truncated { field: FIELD, need: read + LEN, have: self.have };
        let (chunk, rest) = self.bytes.split_first_chunk().ok_or(truncated)?;
        self.bytes = rest;
        Ok(chunk)
    }

    fn generation(&mut self) -> Result<Generation, Malformed> {
        Generation::parse(self.chunk()?)
    }

    fn count(&mut self, field: &'static str, most: usize) -> Result<usize, Malformed> {
        let [count] = *self.chunk()?;
        match usize::from(count) {
            count if count <= most => Ok(count),
            found => Err(Malformed::Range { field, found: found as u64, least: 0, most: most as u64 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gossip::KeyId;

    fn generations() -> impl Strategy<Value = Generation> {
        (0..=Generation::MOST, any::<[u8; 4]>())
            .prop_map(|(number, id)| Generation { number, id: KeyId::from_bytes(id) })
    }

    proptest! {
        #[test]
        fn a_record_is_the_same_after_its_way_through_bytes_and_no_part_of_them_is_one(
            public: [u8; 32],
            three in [generations(), generations(), generations()],
            holds in prop::collection::vec(generations(), 0..=8),
            without in prop::collection::btree_set(any::<[u8; 16]>().prop_map(NodeId::from_bytes), 0..=32),
        ) {
            let [primary, floor, aim] = three;
            let record = SuccessionRecord { public: PublicKey::from_bytes(public), primary, floor, aim, holds, without };
            let bytes = record.encode();
            prop_assert_eq!(SuccessionRecord::parse(&bytes), Ok(record));
            prop_assert!((0..bytes.len()).all(|end| SuccessionRecord::parse(&bytes[..end]).is_err()));
            prop_assert!(SuccessionRecord::parse(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn what_is_read_is_written_as_it_was(bytes: Vec<u8>) {
            if let Ok(record) = SuccessionRecord::parse(&bytes) {
                prop_assert_eq!(SuccessionRecord::parse(&record.encode()), Ok(record));
            }
        }
    }

    #[test]
    fn too_much_of_anything_is_refused_by_name() {
        let mut bytes = [&[1][..], &[0; 32 + 36], &[9]].concat();
        let said = |bytes: &[u8]| SuccessionRecord::parse(bytes).unwrap_err().to_string();
        assert!(said(&bytes).starts_with("keys held is 9"), "{}", said(&bytes));
        bytes[69] = 0;
        bytes.push(33);
        assert!(said(&bytes).starts_with("nodes left out is 33"), "{}", said(&bytes));
        bytes[33] = 0xff;
        assert!(said(&bytes).starts_with("a key's number is"), "{}", said(&bytes));
        bytes[0] = 2;
        assert_eq!(SuccessionRecord::parse(&bytes), Err(Malformed::Version { found: 2, read: 1 }));
    }
}
