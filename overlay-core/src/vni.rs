//! VXLAN network identifiers.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A VXLAN network identifier (RFC 7348 §5): 24 bits, 1 to 16,777,215.
///
/// Zero is left out: no network of ours has it, so that a field never set cannot pass for one.
///
/// ```
/// use overlay_core::Vni;
///
/// let vni = Vni::new(4096)?;
/// assert_eq!(vni.get(), 4096);
/// assert!(Vni::new(0).is_err() && Vni::new(1 << 24).is_err());
/// # Ok::<(), overlay_core::VniError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(NonZeroU32);

impl Vni {
    /// The smallest, 1.
    pub const MIN: Self = Self(NonZeroU32::MIN);
    /// The largest, 2²⁴ − 1.
    pub const MAX: Self = match NonZeroU32::new(0xff_ffff) {
        Some(largest) => Self(largest),
        None => Self::MIN,
    };

    /// Checks that `vni` is 1 to 16,777,215.
    pub const fn new(vni: u32) -> Result<Self, VniError> {
        match NonZeroU32::new(vni) {
            Some(value) if vni <= 0xff_ffff => Ok(Self(value)),
            _ => Err(VniError { found: vni }),
        }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(vni: u32) -> Result<Self, VniError> {
        Self::new(vni)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.get()
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vni({self})")
    }
}

/// A number that is no VNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a VNI is 1 to 16777215, this is {found}")]
pub struct VniError {
    /// The number given.
    pub found: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_two_to_the_24_are_refused_and_the_edges_are_not() {
        assert_eq!(Vni::new(0), Err(VniError { found: 0 }));
        assert_eq!(Vni::new(1), Ok(Vni::MIN));
        assert_eq!(Vni::new((1 << 24) - 1), Ok(Vni::MAX));
        assert_eq!(Vni::new(1 << 24), Err(VniError { found: 1 << 24 }));
        assert_eq!(Vni::new(u32::MAX), Err(VniError { found: u32::MAX }));
    }

    #[test]
    fn json_is_a_checked_number() {
        assert_eq!(serde_json::from_str::<Vni>("4096").unwrap(), Vni::new(4096).unwrap());
        let refused = serde_json::from_str::<Vni>("16777216").unwrap_err();
        assert!(refused.to_string().starts_with("a VNI is 1 to 16777215, this is 16777216"));
    }
}
