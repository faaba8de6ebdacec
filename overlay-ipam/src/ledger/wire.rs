//! Reading and writing records: a format byte, then fields of fixed size, big-endian.

use overlay_core::UnixTime;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// It is of a format that this release does not know: a later one wrote it, or something else.
    #[error("format {found}, of which this release knows nothing")]
    Format {
        /// Its first byte.
        found: u8,
    },
    /// It ends too early.
    #[error("it ends too early")]
    Short,
    /// Something follows its end.
    #[error("{extra} bytes follow its end")]
    Long {
        /// How many.
        extra: usize,
    },
    /// A field has a value that it cannot have.
    #[error("its {field} makes no sense")]
    Field {
        /// Which.
        field: &'static str,
    },
}

/// What is left to read of a record.
pub(crate) struct Reader<'r>(&'r [u8]);

impl<'r> Reader<'r> {
    /// A record whose format is `format`.
    pub(crate) fn new(record: &'r [u8], format: u8) -> Result<Self, Flaw> {
        match record.split_first() {
            Some((found, rest)) if *found == format => Ok(Self(rest)),
            Some((found, _)) => Err(Flaw::Format { found: *found }),
            None => Err(Flaw::Short),
        }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Flaw::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'r [u8], Flaw> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(Flaw::Short)?;
        self.0 = rest;
        Ok(field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Flaw> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Flaw> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Flaw> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Flaw> {
        self.take().map(u128::from_be_bytes)
    }

    pub(crate) fn time(&mut self) -> Result<UnixTime, Flaw> {
        self.u64().map(UnixTime::from_millis)
    }

    pub(crate) fn end(self) -> Result<(), Flaw> {
        match self.0.len() {
            0 => Ok(()),
            extra => Err(Flaw::Long { extra }),
        }
    }
}
