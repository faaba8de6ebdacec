//! One change of one entry.

use bytes::Bytes;

use crate::tables::{Intervals, SIGNATURE_LIMIT, VALUE_LIMIT};
use crate::wire::{Reader, put_bytes, put_varint, varint_len};
use crate::{Key, Malformed, TableId};

/// What its owner made of one entry. It has seen the change of a number who has this change or a later one of the same key, so
/// a change says which numbers before it were of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) sequence: u64,
    /// Numbers of earlier changes of the key, greatest first: those that not everybody is known to have seen, at most
    /// [`Change::COVERS`].
    pub(crate) covers: Vec<u64>,
    pub(crate) table: TableId,
    pub(crate) key: Key,
    /// None: the entry is removed.
    pub(crate) value: Option<Bytes>,
    /// The owner's, or nothing.
    pub(crate) signature: Bytes,
}

impl Change {
    /// The most numbers that a change names as covered; gaps that are left are closed by comparison.
    pub(crate) const COVERS: usize = 8;

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let sequence = within(reader.varint("sequence")?, "sequence", 1, Intervals::MOST)?;
        let count = within(reader.u8("covered numbers")?.into(), "covered numbers", 0, Self::COVERS as u64)?;
        let mut covers = Vec::new();
        let mut above = sequence;
        for _ in 0..count {
            let less = within(reader.varint("covered number")?, "covered number", 0, above.saturating_sub(2))?;
            if above < 2 {
                return Err(Malformed::Range {
                    field: "covered number",
                    found: above,
                    least: 2,
                    most: Intervals::MOST,
                });
            }
            above -= less + 1;
            covers.push(above);
        }
        let table = TableId(within(reader.varint("table")?, "table", 0, u16::MAX.into())? as u16);
        let key_len = reader.u8("key length")?;
        let key = Key::of(reader.take(key_len.into(), "key")?);
        let key = key.map_err(|_| Malformed::Range { field: "key length", found: 0, least: 1, most: 255 })?;
        let flags = within(reader.u8("flags")?.into(), "flags", 0, u64::from(PUT | SIGNED))? as u8;
        let value =
            if flags & PUT == 0 { None } else { Some(limited(reader.bytes("value")?, "value length", VALUE_LIMIT)?) };
        let signature = if flags & SIGNED == 0 {
            Bytes::new()
        } else {
            let bytes = reader.bytes("signature")?;
            within(bytes.len() as u64, "signature length", 1, SIGNATURE_LIMIT as u64)?;
            Bytes::copy_from_slice(bytes)
        };
        Ok(Self { sequence, covers, table, key, value, signature })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.encode_unsigned(!self.signature.is_empty(), out);
        if !self.signature.is_empty() {
            put_bytes(&self.signature, out);
        }
    }

    /// What a signature is about, but for whose and which network's change it is.
    pub(crate) fn encode_unsigned(&self, signed: bool, out: &mut Vec<u8>) {
        put_varint(self.sequence, out);
        out.push(self.covers.len() as u8);
        let mut above = self.sequence;
        for covered in &self.covers {
            put_varint(above - covered - 1, out);
            above = *covered;
        }
        put_varint(self.table.0.into(), out);
        out.push(self.key.as_bytes().len() as u8);
        out.extend_from_slice(self.key.as_bytes());
        out.push(if self.value.is_some() { PUT } else { 0 } | if signed { SIGNED } else { 0 });
        if let Some(value) = &self.value {
            put_bytes(value, out);
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let with_len = |len: usize| varint_len(len as u64) + len;
        let mut above = self.sequence;
        let covers: usize = self.covers.iter().map(|c| varint_len(std::mem::replace(&mut above, *c) - c - 1)).sum();
        let value = self.value.as_ref().map_or(0, |value| with_len(value.len()));
        let signature = if self.signature.is_empty() { 0 } else { with_len(self.signature.len()) };
        let numbers = varint_len(self.sequence) + 1 + covers + varint_len(self.table.0.into());
        numbers + 1 + self.key.as_bytes().len() + 1 + value + signature
    }
}

const PUT: u8 = 1;
const SIGNED: u8 = 2;

pub(crate) fn within(found: u64, field: &'static str, least: u64, most: u64) -> Result<u64, Malformed> {
    if (least..=most).contains(&found) { Ok(found) } else { Err(Malformed::Range { field, found, least, most }) }
}

fn limited(bytes: &[u8], field: &'static str, most: usize) -> Result<Bytes, Malformed> {
    within(bytes.len() as u64, field, 0, most as u64)?;
    Ok(Bytes::copy_from_slice(bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn change() -> impl Strategy<Value = Change> {
        let numbers = prop_oneof![1..2_000_u64, 1..=Intervals::MOST];
        let value = proptest::option::of(vec(any::<u8>(), 0..200));
        let key = vec(any::<u8>(), 1..=255);
        (numbers, btree_set(1..2_000_u64, 0..=8), any::<u16>(), key, value, vec(any::<u8>(), 0..80)).prop_map(
            |(sequence, covers, table, key, value, signature)| Change {
                sequence,
                covers: covers.into_iter().rev().filter(|number| *number < sequence).collect(),
                table: TableId(table),
                key: Key::new(key).unwrap(),
                value: value.map(Bytes::from),
                signature: signature.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back_and_is_as_long_as_foretold(change in change()) {
            let mut out = Vec::new();
            change.encode(&mut out);
            prop_assert_eq!(out.len(), change.encoded_len());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(Change::parse(&mut reader), Ok(change));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn a_cut_change_is_refused(change in change(), cut in any::<prop::sample::Index>()) {
            let mut out = Vec::new();
            change.encode(&mut out);
            prop_assert!(Change::parse(&mut Reader::new(&out[..cut.index(out.len())])).is_err());
        }
    }
}
