//! The number that names a security association to its receiver.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A security parameters index (RFC 4303 §2.1): 256 or more, as 0 is for local use and 1 to 255 are reserved.
///
/// ```
/// use overlay_crypto::Spi;
///
/// assert_eq!(Spi::new(0x1001)?.to_string(), "0x00001001");
/// assert_eq!(Spi::new(7).unwrap_err().to_string(), "SPI 7 is reserved, 256 is the least (RFC 4303 §2.1)");
/// # Ok::<(), overlay_crypto::SpiError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Spi(u32);

/// A number that is no SPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SPI {0} is reserved, 256 is the least (RFC 4303 §2.1)")]
pub struct SpiError(pub u32);

impl Spi {
    /// The least.
    pub const MIN: Self = Self(256);

    /// An SPI of that number.
    ///
    /// # Errors
    /// Below 256.
    pub const fn new(spi: u32) -> Result<Self, SpiError> {
        if spi < Self::MIN.0 { Err(SpiError(spi)) } else { Ok(Self(spi)) }
    }

    /// The SPI that a number drawn by chance, or derived, stands for: itself, or 256 more where that would be reserved.
    pub const fn of_chance(drawn: u32) -> Self {
        Self(if drawn < Self::MIN.0 { drawn + Self::MIN.0 } else { drawn })
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Any number at all, for published vectors that use reserved ones.
    #[cfg(test)]
    pub(crate) const fn unchecked(spi: u32) -> Self {
        Self(spi)
    }
}

impl TryFrom<u32> for Spi {
    type Error = SpiError;

    fn try_from(spi: u32) -> Result<Self, SpiError> {
        Self::new(spi)
    }
}

impl From<Spi> for u32 {
    fn from(spi: Spi) -> Self {
        spi.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_chance_leads_to_a_reserved_number() {
        for drawn in (0..1000).chain([u32::MAX]) {
            assert!(Spi::new(Spi::of_chance(drawn).get()).is_ok(), "{drawn}");
        }
        assert!(serde_json::from_str::<Spi>("255").is_err());
        assert_eq!(serde_json::from_str::<Spi>("256").unwrap(), Spi::MIN);
    }
}
