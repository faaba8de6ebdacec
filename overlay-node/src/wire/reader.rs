//! Reads fields off the front of bytes.

use std::net::IpAddr;

use super::Malformed;

/// Gives one field after the other, each by its name for the error's sake. Numbers are in network order.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(Malformed::Truncated { field, need: N, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// The first byte of a fact.
    pub(super) fn version(&mut self, read: u8) -> Result<(), Malformed> {
        match self.u8("version")? {
            found if found == read => Ok(()),
            found => Err(Malformed::Version { found, read }),
        }
    }

    /// A byte that is `least` to `most`.
    pub(super) fn small(&mut self, field: &'static str, least: u8, most: u8) -> Result<u8, Malformed> {
        let found = self.u8(field)?;
        if !(least..=most).contains(&found) {
            return Err(Malformed::Range { field, found: found.into(), least: least.into(), most: most.into() });
        }
        Ok(found)
    }

    /// 4 or 6, and an address of that family.
    pub(super) fn address(&mut self, field: &'static str) -> Result<IpAddr, Malformed> {
        match self.u8(field)? {
            4 => self.array::<4>(field).map(IpAddr::from),
            6 => self.array::<16>(field).map(IpAddr::from),
            found => Err(Malformed::Range { field, found: found.into(), least: 4, most: 6 }),
        }
    }

    /// Bytes with their number, in one byte, before them.
    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let need = self.u8(field)?.into();
        self.take(need, field)
    }

    /// Text with its length in bytes, in two bytes, before it.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, Malformed> {
        let need = self.u16(field)?.into();
        str::from_utf8(self.take(need, field)?).map_err(|_| Malformed::Text { field })
    }

    fn take(&mut self, need: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let Some((bytes, rest)) = self.rest.split_at_checked(need) else {
            return Err(Malformed::Truncated { field, need, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// The end of `field`, after which nothing may follow.
    pub(super) const fn end(self, field: &'static str) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(Malformed::Trailing { field, extra }),
        }
    }
}

/// Appends what [`Reader::address`] reads.
pub(super) fn put_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend_from_slice(&address.octets());
        }
    }
}
