//! Attributes as they are read (`linux/netlink.h`, `struct nlattr`): length, kind, value, padded to 4 bytes.

use std::fmt;
use std::iter::FusedIterator;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Malformed;

/// One attribute of a message: a kind, which means something only where it stands, and a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What it is, without the flags for nesting and byte order.
    pub kind: u16,
    /// Its value, as it came.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// One byte.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(u8::from_ne_bytes)
    }

    /// Two bytes in this machine's order.
    pub fn u16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    /// Four bytes in this machine's order.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Eight bytes in this machine's order.
    pub fn u64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Two bytes in network order.
    pub fn be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes in network order.
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes in network order.
    pub fn be64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A text up to its closing zero.
    pub fn text(&self) -> Result<&'a str, Malformed> {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        str::from_utf8(&self.value[..end]).map_err(|_| Malformed::new("a text that is not UTF-8"))
    }

    /// An address, of the family that its length tells.
    pub fn ip(&self) -> Result<IpAddr, Malformed> {
        match self.value.len() {
            4 => self.array::<4>().map(|octets| Ipv4Addr::from(octets).into()),
            16 => self.array::<16>().map(|octets| Ipv6Addr::from(octets).into()),
            _ => Err(Malformed::new("an address neither of 4 nor of 16 bytes")),
        }
    }

    /// The value if it has exactly `N` bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed::new("an attribute of another length than its kind has"))
    }

    /// The attributes inside, for kinds that nest.
    pub const fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

impl fmt::Debug for Attribute<'_> {
    /// Without the value: it can be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute").field("kind", &self.kind).field("size", &self.value.len()).finish_non_exhaustive()
    }
}

/// Attributes, one after the other; ends after the first that is cut.
///
/// ```
/// use overlay_kernel::netlink::Attributes;
///
/// let bytes = [8, 0, 1, 0, 42, 0, 0, 0, 5, 0, 2, 0, 7, 0, 0, 0]; // two attributes, the second padded
/// let second = Attributes::new(&bytes).find(2)?;
/// assert_eq!(second.map(|attribute| attribute.u8()), Some(Ok(7)));
/// # Ok::<(), overlay_kernel::netlink::Malformed>(())
/// ```
#[derive(Clone)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The first of this kind.
    pub fn find(self, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
        for attribute in self {
            let attribute = attribute?;
            if attribute.kind == kind {
                return Ok(Some(attribute));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d, ..] = *self.0 else {
            let cut = !std::mem::take(&mut self.0).is_empty();
            return cut.then_some(Err(Malformed::new("a cut attribute")));
        };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & KIND;
        let Some(value) = self.0.get(4..length) else {
            self.0 = &[];
            return Some(Err(Malformed::new("a cut attribute")));
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Attribute { kind, value }))
    }
}

impl FusedIterator for Attributes<'_> {}

impl fmt::Debug for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

const KIND: u16 = 0x3fff; // NLA_TYPE_MASK: without NLA_F_NESTED and NLA_F_NET_BYTEORDER
