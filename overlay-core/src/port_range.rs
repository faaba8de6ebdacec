//! Ranges of transport ports.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Port;

/// Ports from one to another, both included.
///
/// ```
/// use overlay_core::{Port, PortRange};
///
/// let ports = PortRange::new(Port::new(32_768)?, Port::new(60_999)?)?;
/// assert_eq!(ports.pick(0), ports.first());
/// assert_eq!(ports.pick(u64::MAX), ports.last());
/// assert!(PortRange::new(ports.last(), ports.first()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ends", into = "Ends")]
pub struct PortRange {
    first: Port,
    last: Port,
}

impl PortRange {
    /// 49,152 to 65,535, the dynamic ports (RFC 6335 §6), which RFC 7348 §5 recommends for VXLAN's source ports.
    pub const DYNAMIC: Self = Self { first: Port::DYNAMIC, last: Port::MAX };

    /// 29,200 to 29,455, of which encrypted networks usually have one each that ask for a port of their own: assigned to nobody, and below those that
    /// kernels give out by themselves.
    pub const VXLAN_ENCRYPTED: Self = Self { first: known(29_200), last: known(29_455) };

    /// The ports from `first` to `last`.
    ///
    /// # Errors
    /// If `last` is below `first`.
    pub const fn new(first: Port, last: Port) -> Result<Self, PortRangeError> {
        if last.get() < first.get() {
            return Err(PortRangeError { first, last });
        }
        Ok(Self { first, last })
    }

    /// One port.
    pub const fn one(port: Port) -> Self {
        Self { first: port, last: port }
    }

    /// The lowest.
    pub const fn first(self) -> Port {
        self.first
    }

    /// The highest.
    pub const fn last(self) -> Port {
        self.last
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: Port) -> bool {
        self.first.get() <= port.get() && port.get() <= self.last.get()
    }

    /// One of them for a hash, all equally often; its high 32 bits choose.
    #[inline]
    pub const fn pick(self, hash: u64) -> Port {
        let count = (self.last.get() - self.first.get()) as u64 + 1;
        let offset = ((hash >> 32) * count) >> 32; // below `count`
        match Port::new(self.first.get() + offset as u16) {
            Ok(port) => port,
            Err(_) => self.first,
        }
    }
}

const fn known(port: u16) -> Port {
    match Port::new(port) {
        Ok(port) => port,
        Err(_) => Port::MAX,
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A range of ports that ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a range of ports ends where it begins or above, this begins at {first} and ends at {last}")]
pub struct PortRangeError {
    /// The first port given.
    pub first: Port,
    /// The last port given.
    pub last: Port,
}

/// How a range is written.
#[derive(Serialize, Deserialize)]
struct Ends {
    first: Port,
    last: Port,
}

impl TryFrom<Ends> for PortRange {
    type Error = PortRangeError;

    fn try_from(ends: Ends) -> Result<Self, PortRangeError> {
        Self::new(ends.first, ends.last)
    }
}

impl From<PortRange> for Ends {
    fn from(range: PortRange) -> Self {
        Self { first: range.first, last: range.last }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any::port_range;

    #[test]
    fn json_is_checked_too() {
        let refused = serde_json::from_str::<PortRange>(r#"{"first":2,"last":1}"#).unwrap_err();
        assert!(refused.to_string().starts_with("a range of ports ends where it begins or above"));
    }

    proptest! {
        #[test]
        fn what_is_picked_is_in_the_range_and_the_ends_are_reached(range in port_range(), hash in any::<u64>()) {
            prop_assert!(range.contains(range.pick(hash)));
            prop_assert_eq!(range.pick(0), range.first());
            prop_assert_eq!(range.pick(u64::MAX), range.last());
        }
    }
}
