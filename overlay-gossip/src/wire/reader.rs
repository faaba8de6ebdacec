//! Reads fields off the front of bytes.

use overlay_core::{NetworkId, NodeId};

use crate::Malformed;

/// A view that gives one field after the other, each by its name for the error's sake.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are still to be read.
    pub(crate) const fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(Malformed::Truncated { field, need: N, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(crate) fn node_id(&mut self, field: &'static str) -> Result<NodeId, Malformed> {
        self.array(field).map(NodeId::from_bytes)
    }

    pub(crate) fn network_id(&mut self, field: &'static str) -> Result<NetworkId, Malformed> {
        self.array(field).map(NetworkId::from_bytes)
    }

    /// A number in groups of seven bits, least first; the shortest form only, so that a number has one encoding.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            let wrong = (shift == 63 && byte > 1) || (shift > 0 && byte == 0);
            if wrong {
                return Err(Malformed::Range { field, found: byte.into(), least: 1, most: 1 });
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Range { field, found: 0x80, least: 0, most: 1 })
    }

    /// As many bytes as are asked for.
    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(Malformed::Truncated { field, need: len, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// Bytes with their number, as a varint, before them.
    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.varint(field)?).unwrap_or(usize::MAX);
        self.take(len, field)
    }

    /// The end of `field`, after which nothing may follow.
    pub(crate) fn end(self, field: &'static str) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(Malformed::Trailing { field, extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{put_bytes, put_varint, varint_len};

    proptest! {
        #[test]
        fn a_varint_has_one_encoding_of_the_length_foretold(value in prop_oneof![any::<u64>(), 0..300_u64]) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("value"), Ok(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn what_parses_as_a_varint_is_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint("value") {
                let mut again = Vec::new();
                put_varint(value, &mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - reader.len()]);
            }
        }

        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_bytes(&bytes, &mut out);
            prop_assert_eq!(Reader::new(&out).bytes("bytes"), Ok(&bytes[..]));
        }
    }
}
