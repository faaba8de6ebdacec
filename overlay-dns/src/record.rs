//! What names stand for.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use overlay_core::Port;

use crate::DnsName;

/// How long an answer may be kept, in whole seconds: 0 to 2³¹ − 1 (RFC 2181 §8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordTtl(u32);

impl RecordTtl {
    /// Not to be kept at all.
    pub const ZERO: Self = Self(0);
    /// The longest there is, 68 years.
    pub const MAX: Self = Self((1 << 31) - 1);

    /// So many seconds; the longest, if they are more than that.
    pub const fn from_secs(seconds: u32) -> Self {
        if seconds > Self::MAX.0 { Self::MAX } else { Self(seconds) }
    }

    /// What a TTL field says: one with its highest bit set is to be taken for zero (RFC 2181 §8).
    pub const fn from_wire(field: u32) -> Self {
        if field > Self::MAX.0 { Self::ZERO } else { Self(field) }
    }

    /// Seconds.
    pub const fn as_secs(self) -> u32 {
        self.0
    }
}

impl From<RecordTtl> for Duration {
    fn from(ttl: RecordTtl) -> Self {
        Self::from_secs(ttl.0.into())
    }
}

/// Where a service is offered (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Srv {
    /// The lowest is tried first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// The port at the target.
    pub port: Port,
    /// The name that has the addresses.
    pub target: DnsName,
}

/// One text record: one or more strings of up to 255 bytes (RFC 1035 §3.3.14).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txt(Box<[u8]>); // each string after its length

impl Txt {
    /// A record of these strings.
    ///
    /// # Errors
    /// [`TxtError`] for no string, one above 255 bytes, and above 65,535 bytes altogether.
    pub fn new<T: AsRef<[u8]>>(strings: impl IntoIterator<Item = T>) -> Result<Self, TxtError> {
        let mut wire = Vec::new();
        for string in strings {
            let string = string.as_ref();
            wire.push(u8::try_from(string.len()).map_err(|_| TxtError::String { found: string.len() })?);
            wire.extend_from_slice(string);
        }
        match wire.len() {
            0 => Err(TxtError::Empty),
            1..=0xffff => Ok(Self(wire.into())),
            found => Err(TxtError::Length { found }),
        }
    }

    /// The strings.
    pub fn strings(&self) -> impl Iterator<Item = &[u8]> {
        crate::name::labels(&self.0)
    }

    pub(crate) fn as_wire(&self) -> &[u8] {
        &self.0
    }
}

/// Why strings are no [`Txt`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TxtError {
    /// Without strings.
    #[error("a text record has one string at least")]
    Empty,
    /// A string that its length byte cannot tell.
    #[error("a string of a text record has 255 bytes or fewer, this has {found}")]
    String {
        /// Bytes of the string.
        found: usize,
    },
    /// Too long altogether.
    #[error("a text record has 65535 bytes or fewer, this has {found}")]
    Length {
        /// Bytes of all strings and their lengths.
        found: usize,
    },
}

/// The records of one name and type, and how long they may be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records<'z> {
    /// The same for all (RFC 2181 §5.2).
    pub ttl: RecordTtl,
    /// At least one; several are given in a random order each time.
    pub data: Data<'z>,
}

impl Records<'_> {
    /// The same, borrowed from nobody.
    pub fn into_owned(self) -> Records<'static> {
        Records { ttl: self.ttl, data: self.data.into_owned() }
    }
}

/// Records of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'z> {
    /// IPv4 addresses (RFC 1035 §3.4.1).
    A(Cow<'z, [Ipv4Addr]>),
    /// IPv6 addresses (RFC 3596 §2.1).
    Aaaa(Cow<'z, [Ipv6Addr]>),
    /// Names of an address (RFC 1035 §3.3.12).
    Ptr(Cow<'z, [DnsName]>),
    /// Where a service is (RFC 2782).
    Srv(Cow<'z, [Srv]>),
    /// Texts (RFC 1035 §3.3.14).
    Txt(Cow<'z, [Txt]>),
}

impl Data<'_> {
    /// The same, borrowed from nobody.
    pub fn into_owned(self) -> Data<'static> {
        match self {
            Self::A(all) => Data::A(all.into_owned().into()),
            Self::Aaaa(all) => Data::Aaaa(all.into_owned().into()),
            Self::Ptr(all) => Data::Ptr(all.into_owned().into()),
            Self::Srv(all) => Data::Srv(all.into_owned().into()),
            Self::Txt(all) => Data::Txt(all.into_owned().into()),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::A(all) => all.len(),
            Self::Aaaa(all) => all.len(),
            Self::Ptr(all) => all.len(),
            Self::Srv(all) => all.len(),
            Self::Txt(all) => all.len(),
        }
    }

    /// Whether there are none, which a source never gives: it says [`NoData`](crate::Lookup::NoData) instead.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
