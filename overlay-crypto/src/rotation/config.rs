//! How often, and how long others are waited for.

use std::time::Duration;

use crate::rotation::Usage;

/// When a [`Rotation`](crate::Rotation) begins by itself, and how long its stages last.
///
/// ```
/// use std::time::Duration;
/// use overlay_crypto::RotationConfig;
///
/// let hourly = RotationConfig { interval: Duration::from_secs(3600), ..RotationConfig::default() };
/// assert!(hourly.check().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationConfig {
    /// How long a key is used: 10 s to 30 days; 12 hours by default, as Docker's. Each time a tenth more or less, so that nodes do not rotate all at once.
    pub interval: Duration,
    /// How much may be sealed with one key until another is wanted: 1 MB to 304 GB, by default 300 GB, and 1,000 to 2²⁸·4/5 packets, by default 200 million. With a
    /// quarter more the key [ends](crate::Limits): [`Usage::MOST`] is never reached.
    pub usage: Usage,
    /// How long others are waited for in one stage: 1 s to 1 day; a minute by default. Who has not confirmed by then is left behind: it finds its way by what
    /// is published, and what it seals with an old key meanwhile is lost.
    pub limit: Duration,
    /// How long the old key is still opened when all have confirmed that they seal with the new: for what is on its way. 0 s to 1 hour; 5 s by default.
    pub rest: Duration,
}

/// A setting that is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotationConfigError {
    /// A time.
    #[error("{field} is {found:?}: {least:?} to {most:?} is right")]
    Span {
        /// Which.
        field: &'static str,
        /// What it is.
        found: Duration,
        /// The least it may be.
        least: Duration,
        /// The most.
        most: Duration,
    },
    /// An amount.
    #[error("{field} is {found}: {least} to {most} is right")]
    Amount {
        /// Which.
        field: &'static str,
        /// What it is.
        found: u64,
        /// The least it may be.
        least: u64,
        /// The most.
        most: u64,
    },
}

impl Default for RotationConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(12 * 3600),
            usage: Usage { bytes: 300_000_000_000, packets: 200_000_000 },
            limit: Duration::from_secs(60),
            rest: Duration::from_secs(5),
        }
    }
}

impl RotationConfig {
    /// Whether each is in its range.
    ///
    /// # Errors
    /// For the first that is not.
    pub fn check(&self) -> Result<(), RotationConfigError> {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let day = 24 * hour;
        for (field, found, least, most) in [
            ("interval", self.interval, 10 * second, 30 * day),
            ("limit", self.limit, second, day),
            ("rest", self.rest, Duration::ZERO, hour),
        ] {
            if found < least || found > most {
                return Err(RotationConfigError::Span { field, found, least, most });
            }
        }
        let of_safe = |most: u64| most / 5 * 4; // a quarter more is within it
        let Usage { bytes, packets } = Usage::MOST;
        for (field, found, least, most) in [
            ("usage.bytes", self.usage.bytes, 1_000_000, of_safe(bytes)),
            ("usage.packets", self.usage.packets, 1_000, of_safe(packets)),
        ] {
            if found < least || found > most {
                return Err(RotationConfigError::Amount { field, found, least, most });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_with_what_would_be_right() {
        let wrong = RotationConfig { limit: Duration::ZERO, ..RotationConfig::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "limit is 0ns: 1s to 86400s is right");
        assert!(RotationConfig { interval: Duration::from_secs(9), ..RotationConfig::default() }.check().is_err());
        let usage = Usage { packets: 1 << 28, ..RotationConfig::default().usage };
        let wrong = RotationConfig { usage, ..RotationConfig::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "usage.packets is 268435456: 1000 to 214748364 is right");
        assert!(RotationConfig { rest: Duration::from_secs(3601), ..RotationConfig::default() }.check().is_err());
    }
}
