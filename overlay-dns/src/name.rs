//! Domain names.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use overlay_core::Name;
use smallvec::SmallVec;

/// An absolute domain name of up to 127 labels and 255 bytes on the wire (RFC 1035 §3.1).
///
/// It is held as it goes on the wire, uncompressed. Capitals are kept, and do not count when names are compared
/// (RFC 4343). As text, a dot or backslash in a label is written `\.` or `\\`, and what is not printable `\DDD`.
///
/// ```
/// use overlay_dns::DnsName;
///
/// let name: DnsName = "Tasks.web.customoverlay".parse()?;
/// assert_eq!(name.to_string(), "Tasks.web.customoverlay.");
/// assert_eq!(name, "tasks.WEB.customoverlay.".parse()?);
/// assert_eq!(DnsName::reverse([10, 0, 9, 3].into()).to_string(), "3.9.0.10.in-addr.arpa.");
/// # Ok::<(), overlay_dns::DnsNameError>(())
/// ```
#[derive(Default)]
pub struct DnsName {
    wire: SmallVec<[u8; 40]>, // each label after its length; the root's zero is left out
}

impl DnsName {
    /// The longest, in bytes on the wire, the root's zero included.
    pub const MAX_LEN: usize = 255;

    /// The root: no labels.
    pub fn root() -> Self {
        Self::default()
    }

    /// The name of these labels, the leftmost first.
    ///
    /// # Errors
    /// For a label that is empty or has more than 63 bytes, and when all are too long together.
    pub fn from_labels<L: AsRef<[u8]>>(labels: impl IntoIterator<Item = L>) -> Result<Self, DnsNameError> {
        let mut name = Self::root();
        for label in labels {
            name.push(label.as_ref())?;
        }
        Ok(name)
    }

    /// The name by which the address is looked up backwards: in `in-addr.arpa` (RFC 1035 §3.5) or `ip6.arpa`
    /// (RFC 3596 §2.5).
    pub fn reverse(address: IpAddr) -> Self {
        let mut wire = SmallVec::new();
        match address {
            IpAddr::V4(v4) => {
                for octet in v4.octets().iter().rev() {
                    push_decimal(&mut wire, *octet);
                }
                wire.extend_from_slice(IN_ADDR_ARPA);
            }
            IpAddr::V6(v6) => {
                for octet in v6.octets().iter().rev() {
                    wire.extend_from_slice(&[1, HEX[usize::from(octet & 15)], 1, HEX[usize::from(octet >> 4)]]);
                }
                wire.extend_from_slice(IP6_ARPA);
            }
        }
        Self { wire }
    }

    /// The address that this name looks up backwards, if it is such a name.
    pub fn to_address(&self) -> Option<IpAddr> {
        reversed(&self.fold())
    }

    /// This name with `suffix` after it.
    ///
    /// # Errors
    /// When both are too long together.
    pub fn join(&self, suffix: &Self) -> Result<Self, DnsNameError> {
        let mut wire = self.wire.clone();
        wire.extend_from_slice(&suffix.wire);
        Self::checked(wire)
    }

    /// This name with another label after it.
    ///
    /// # Errors
    /// When both are too long together.
    pub(crate) fn under(&self, label: &Name) -> Result<Self, DnsNameError> {
        let label = label.as_str();
        let mut wire = SmallVec::with_capacity(self.wire.len() + 1 + label.len());
        wire.extend_from_slice(&self.wire);
        wire.push(label.len() as u8); // 63 at most
        wire.extend_from_slice(label.as_bytes());
        Self::checked(wire)
    }

    /// The name of one label, as something is displayed.
    ///
    /// # Errors
    /// For a text that is empty or has more than 63 bytes.
    pub(crate) fn displayed(label: impl fmt::Display) -> Result<Self, DnsNameError> {
        let mut text = Text(SmallVec::from_slice(&[0]));
        write!(text, "{label}").map_err(|_| DnsNameError::Label { found: 0 })?;
        match (text.0.len() - 1, text.0.first_mut()) {
            (found @ 1..=63, Some(length)) => *length = found as u8,
            (found, _) => return Err(DnsNameError::Label { found }),
        }
        Ok(Self { wire: text.0 })
    }

    /// The labels, the leftmost first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.wire)
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.wire.is_empty()
    }

    /// The name as it goes on the wire, uncompressed, but for the zero byte that closes it.
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }

    /// What [`as_wire`](Self::as_wire) gave, perhaps in other letters.
    pub(crate) fn from_checked_wire(wire: &[u8]) -> Self {
        Self { wire: SmallVec::from_slice(wire) }
    }

    /// The wire form in small letters. Lengths are below 64, so they are no letters and stay as they are.
    pub(crate) fn fold(&self) -> SmallVec<[u8; 40]> {
        let mut folded = SmallVec::from_slice(&self.wire);
        folded.make_ascii_lowercase();
        folded
    }

    fn push(&mut self, label: &[u8]) -> Result<(), DnsNameError> {
        let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
        if length == 0 || length > MAX_LABEL {
            return Err(DnsNameError::Label { found: label.len() });
        }
        self.wire.push(length);
        self.wire.extend_from_slice(label);
        Self::checked(std::mem::take(&mut self.wire)).map(|name| *self = name)
    }

    fn checked(wire: SmallVec<[u8; 40]>) -> Result<Self, DnsNameError> {
        match wire.len() + 1 {
            0..=Self::MAX_LEN => Ok(Self { wire }),
            found => Err(DnsNameError::Length { found }),
        }
    }
}

/// A name of one label. Every [`Name`] is a label.
impl From<&Name> for DnsName {
    fn from(name: &Name) -> Self {
        let mut wire = SmallVec::new();
        wire.push(name.as_str().len() as u8); // 63 at most
        wire.extend_from_slice(name.as_str().as_bytes());
        Self { wire }
    }
}

impl FromStr for DnsName {
    type Err = DnsNameError;

    /// A dot at the end changes nothing; `.` alone is the root.
    fn from_str(text: &str) -> Result<Self, DnsNameError> {
        let mut name = Self::root();
        if text == "." {
            return Ok(name);
        }
        let mut label = SmallVec::<[u8; 63]>::new();
        let mut bytes = text.bytes();
        let mut closed = false;
        while let Some(byte) = bytes.next() {
            closed = byte == b'.';
            match byte {
                b'.' => {
                    name.push(&label)?;
                    label.clear();
                }
                b'\\' => label.push(escaped(&mut bytes).ok_or(DnsNameError::Escape)?),
                _ => label.push(byte),
            }
        }
        if !closed {
            name.push(&label)?;
        }
        Ok(name)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7e => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsName({self})")
    }
}

impl Clone for DnsName {
    fn clone(&self) -> Self {
        Self::from_checked_wire(&self.wire) // copied at once, not byte by byte
    }
}

impl PartialEq for DnsName {
    fn eq(&self, other: &Self) -> bool {
        self.wire.eq_ignore_ascii_case(&other.wire)
    }
}

impl Eq for DnsName {}

impl Ord for DnsName {
    fn cmp(&self, other: &Self) -> Ordering {
        let folded = |name: &Self| name.fold();
        folded(self).cmp(&folded(other))
    }
}

impl PartialOrd for DnsName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for DnsName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fold().hash(state);
    }
}

/// A text that is written without allocation if it is short.
struct Text(SmallVec<[u8; 40]>);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Why a text or labels are no [`DnsName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsNameError {
    /// A label without bytes or with too many.
    #[error("a label has 1 to 63 bytes, this has {found}")]
    Label {
        /// Bytes of the label.
        found: usize,
    },
    /// Too long altogether.
    #[error("a domain name has 255 bytes or fewer on the wire, this has {found}")]
    Length {
        /// Bytes on the wire.
        found: usize,
    },
    /// A backslash that is not followed by a character or by three digits up to 255.
    #[error("a backslash in a domain name is followed by a character or by three digits up to 255")]
    Escape,
}

/// The labels of a wire form that was checked before.
pub(crate) fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = wire.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        wire = rest;
        Some(label)
    })
}

/// Whether these bytes are labels, and not the front of one that was cut in two.
pub(crate) fn are_whole(front: &[u8]) -> bool {
    labels(front).map(|label| label.len() + 1).sum::<usize>() == front.len()
}

/// The address that a name in small letters looks up backwards.
pub(crate) fn reversed(folded: &[u8]) -> Option<IpAddr> {
    if let Some(front) = folded.strip_suffix(IN_ADDR_ARPA).filter(|front| are_whole(front)) {
        let mut octets = [0; 4];
        let mut count = 0;
        for label in labels(front) {
            *octets.get_mut(3_usize.checked_sub(count)?)? = decimal(label)?;
            count += 1;
        }
        return (count == 4).then(|| Ipv4Addr::from(octets).into());
    }
    let front: &[u8; 64] = folded.strip_suffix(IP6_ARPA)?.try_into().ok()?;
    let mut octets = [0; 16];
    let (pairs, _) = front.as_chunks::<4>();
    for (octet, pair) in octets.iter_mut().rev().zip(pairs) {
        let [1, low, 1, high] = *pair else { return None };
        *octet = nibble(high)? << 4 | nibble(low)?;
    }
    Some(Ipv6Addr::from(octets).into())
}

const MAX_LABEL: u8 = 63; // RFC 1035 §2.3.4
const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa";
const IP6_ARPA: &[u8] = b"\x03ip6\x04arpa";
const HEX: &[u8; 16] = b"0123456789abcdef";

fn nibble(digit: u8) -> Option<u8> {
    Some(char::from(digit).to_digit(16)? as u8)
}

fn decimal(label: &[u8]) -> Option<u8> {
    if label.len() > 3 || label.starts_with(b"0") && label != b"0" || !label.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(label).ok()?.parse().ok()
}

fn push_decimal(wire: &mut SmallVec<[u8; 40]>, octet: u8) {
    let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| b'0' + digit);
    let digits = match octet {
        0..10 => &digits[2..],
        10..100 => &digits[1..],
        _ => &digits[..],
    };
    wire.push(digits.len() as u8);
    wire.extend_from_slice(digits);
}

/// What a backslash stands for, with the bytes that follow it.
fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let digits = [first, bytes.next()?, bytes.next()?];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::dns_name;

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_no_name_is_refused_by_what_is_wrong() {
        let of = |text: &str| text.parse::<DnsName>().unwrap_err();
        assert_eq!(of(""), DnsNameError::Label { found: 0 });
        assert_eq!(of("a..b"), DnsNameError::Label { found: 0 });
        assert_eq!(of(&"a".repeat(64)), DnsNameError::Label { found: 64 });
        assert_eq!(of(&"a.".repeat(128)), DnsNameError::Length { found: 257 });
        assert_eq!(of("a\\"), DnsNameError::Escape);
        assert_eq!(of("a\\25"), DnsNameError::Escape);
        assert_eq!(of("a\\256"), DnsNameError::Escape);
        assert_eq!(name(&"a.".repeat(127)).as_wire().len(), 254);
    }

    #[test]
    fn only_whole_and_plain_reverse_names_have_an_address() {
        for text in [
            "1.0.0.10.in-addr.arpa",
            "3.2.1.0.0.10.in-addr.arpa",
            "0.0.10.in-addr.arpa",
            "01.0.0.10.in-addr.arpa",
            "256.0.0.10.in-addr.arpa",
            "+1.0.0.10.in-addr.arpa",
            "1.ip6.arpa",
            "in-addr.arpa",
        ] {
            assert_eq!(name(text).to_address().is_some(), text.starts_with("1.0"), "{text}");
        }
    }

    #[test]
    fn a_label_that_only_looks_like_two_is_one() {
        assert_eq!(name("1.0.0.10.\\007in-addr\\004arpa").to_address(), None);
        assert_ne!(name("a\\.b"), name("a.b"));
        assert_eq!(name("a\\.b").labels().count(), 1);
    }

    proptest! {
        #[test]
        fn a_name_is_read_back_from_its_text(name in dns_name()) {
            let read: DnsName = name.to_string().parse().unwrap();
            prop_assert_eq!(read.as_wire(), name.as_wire());
        }

        #[test]
        fn letters_of_any_size_are_one_name(name in dns_name()) {
            let shouted: DnsName = name.to_string().to_ascii_uppercase().parse().unwrap();
            prop_assert_eq!(shouted.cmp(&name), Ordering::Equal);
            prop_assert_eq!(&shouted, &name);
            prop_assert_eq!(shouted.fold(), name.fold());
        }

        #[test]
        fn every_address_has_a_reverse_name_and_comes_back(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>()) {
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                prop_assert_eq!(DnsName::reverse(address).to_address(), Some(address));
            }
        }
    }
}
