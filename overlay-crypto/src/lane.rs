//! Several security associations for one pair of nodes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many security associations a tunnel sends by: 1, 2, 4, 8 or 16, each a lane of its own.
///
/// One association is one sequence of numbers, so one core's work: with several, each core seals and opens lanes of its own, and the
/// underlay sees several flows. Which lane a datagram takes is said by the lowest bits of its UDP source port, which for VXLAN is
/// the flow's hash (RFC 7348 §5): so a flow stays in order, and a kernel chooses alike by a selector of source ports with a mask.
///
/// ```
/// use overlay_crypto::Lanes;
///
/// let lanes = Lanes::new(4)?;
/// assert_eq!(lanes.of_source_port(49_153).get(), 1);
/// assert_eq!(Lanes::new(3).unwrap_err().to_string(), "3 lanes: a tunnel has 1, 2, 4, 8 or 16");
/// # Ok::<(), overlay_crypto::LanesError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct Lanes(u8);

/// A count that no tunnel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} lanes: a tunnel has 1, 2, 4, 8 or 16")]
pub struct LanesError(pub usize);

/// One of the [`Lanes`] of a tunnel, 0 to 15.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Lane(u8);

impl Default for Lanes {
    /// One.
    fn default() -> Self {
        Self::ONE
    }
}

impl Lanes {
    /// One lane: all in one sequence.
    pub const ONE: Self = Self(1);
    /// As many as there can be.
    pub const MAX: Self = Self(16);

    /// So many lanes.
    ///
    /// # Errors
    /// If it is no power of two, or above 16.
    pub const fn new(lanes: usize) -> Result<Self, LanesError> {
        match lanes {
            1 | 2 | 4 | 8 | 16 => Ok(Self(lanes as u8)),
            _ => Err(LanesError(lanes)),
        }
    }

    /// How many.
    pub const fn count(self) -> usize {
        self.0 as usize
    }

    /// Each lane, from 0.
    pub fn iter(self) -> impl Iterator<Item = Lane> {
        (0..self.0).map(Lane)
    }

    /// The lane of a datagram with that UDP source port.
    pub const fn of_source_port(self, port: u16) -> Lane {
        Lane(port as u8 & (self.0 - 1))
    }
}

impl Lane {
    /// The lane of that number.
    ///
    /// # Errors
    /// Above 15.
    pub const fn new(lane: u8) -> Result<Self, LanesError> {
        if lane < Lanes::MAX.0 { Ok(Self(lane)) } else { Err(LanesError(lane as usize + 1)) }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<usize> for Lanes {
    type Error = LanesError;

    fn try_from(lanes: usize) -> Result<Self, LanesError> {
        Self::new(lanes)
    }
}

impl From<Lanes> for usize {
    fn from(lanes: Lanes) -> Self {
        lanes.count()
    }
}

impl TryFrom<u8> for Lane {
    type Error = LanesError;

    fn try_from(lane: u8) -> Result<Self, LanesError> {
        Self::new(lane)
    }
}

impl From<Lane> for u8 {
    fn from(lane: Lane) -> Self {
        lane.0
    }
}

impl fmt::Display for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
