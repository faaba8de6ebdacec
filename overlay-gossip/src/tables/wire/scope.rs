//! Some of a network's owners, by where their ids hash to.

use crate::Malformed;
use crate::tables::wire::BUCKETS;
use crate::wire::Reader;

/// Pieces of a part, and parts of a network, are as many.
pub(crate) const PIECES: usize = BUCKETS * BUCKETS;

/// The piece of a network's owners that one of them is in, below [`PIECES`]: its part's number, then its own within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u16);

impl Place {
    pub(crate) const fn of_hash(hash: u64) -> Self {
        let parts = BUCKETS as u64;
        Self((hash % parts * parts + hash / parts % parts) as u16)
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) const fn part(self) -> usize {
        self.index() / BUCKETS
    }

    /// Its bit among those of its part.
    const fn bit(self) -> u32 {
        1 << (self.index() % BUCKETS)
    }
}

/// A set of pieces: a bit for each, in one number for each part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope([u32; BUCKETS]);

impl Scope {
    pub(crate) const NONE: Self = Self([0; BUCKETS]);
    pub(crate) const ALL: Self = Self([u32::MAX; BUCKETS]);

    /// All pieces of some parts, a bit each.
    pub(crate) fn of_parts(parts: u32) -> Self {
        Self(std::array::from_fn(|part| if parts >> part & 1 == 1 { u32::MAX } else { 0 }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    pub(crate) fn contains(&self, place: Place) -> bool {
        self.0[place.part()] & place.bit() != 0
    }

    pub(crate) fn insert(&mut self, place: Place) {
        self.0[place.part()] |= place.bit();
    }

    /// Its pieces in their order.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        (0..PIECES as u16).map(Place).filter(|place| self.contains(*place))
    }

    /// Parts with any piece in it; of them, those that are not in it with all.
    fn parts(&self) -> (u32, u32) {
        let bits =
            |is: fn(u32) -> bool| (0..BUCKETS).filter(|part| is(self.0[*part])).fold(0, |all, part| all | 1 << part);
        (bits(|pieces| pieces != 0), bits(|pieces| pieces != 0 && pieces != u32::MAX))
    }

    /// Which parts; if any, which of them in part; of these, which pieces each.
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let any = reader.u32("parts")?;
        let mut scope = Self::of_parts(any);
        let split = if any == 0 { 0 } else { reader.u32("split parts")? };
        if split & !any != 0 {
            return Err(Malformed::Misplaced { message: "a split part that is not among the parts" });
        }
        for part in (0..BUCKETS).filter(|part| split >> part & 1 == 1) {
            let pieces = reader.u32("pieces")?;
            let [least, most] = [1, u64::from(u32::MAX - 1)];
            if !(least..=most).contains(&pieces.into()) {
                return Err(Malformed::Range { field: "pieces of a split part", found: pieces.into(), least, most });
            }
            scope.0[part] = pieces;
        }
        Ok(scope)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (any, split) = self.parts();
        out.extend_from_slice(&any.to_be_bytes());
        if any != 0 {
            out.extend_from_slice(&split.to_be_bytes());
        }
        for (_, pieces) in self.0.iter().enumerate().filter(|(part, _)| split >> part & 1 == 1) {
            out.extend_from_slice(&pieces.to_be_bytes());
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let (any, split) = self.parts();
        if any == 0 { 4 } else { 8 + 4 * split.count_ones() as usize }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn scope() -> impl Strategy<Value = Scope> {
        let pieces = prop_oneof![Just(0), Just(u32::MAX), any::<u32>()];
        proptest::collection::vec(pieces, BUCKETS).prop_map(|parts| Scope(parts.try_into().unwrap()))
    }

    proptest! {
        #[test]
        fn a_scope_is_made_of_its_places(scope in scope()) {
            let mut again = Scope::NONE;
            scope.places().for_each(|place| again.insert(place));
            prop_assert_eq!(again, scope);
        }

        #[test]
        fn a_part_is_all_its_pieces(hash: u64, parts: u32) {
            let place = Place::of_hash(hash);
            prop_assert!(place.index() < PIECES);
            prop_assert_eq!(Scope::of_parts(parts).contains(place), parts >> place.part() & 1 == 1);
        }
    }
}
