//! Who serves.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use overlay_core::{AddressSet, IpFamily};
use serde::{Deserialize, Serialize};

use crate::service::of_family;

/// An endpoint that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its addresses: one of each family at most, one at least.
    pub addresses: AddressSet,
    /// How much of the work it gets, for schedulers that weigh.
    pub weight: Weight,
    /// Whether it gets any.
    pub condition: Condition,
}

impl Replica {
    /// One that is active, of the least weight.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { addresses: addresses.into_iter().collect(), weight: Weight::ONE, condition: Condition::Active }
    }

    /// The same of another weight.
    #[must_use]
    pub fn weighing(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    /// The same in another condition.
    #[must_use]
    pub fn being(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }

    /// Its address of a family.
    pub fn address(&self, family: IpFamily) -> Option<IpAddr> {
        of_family(&self.addresses, family)
    }
}

/// What a replica gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// New flows.
    #[default]
    Active,
    /// No new flows; those that it has go on.
    Draining,
    /// Nothing: its flows are cut.
    Down,
}

/// A replica's share of the work, relative to the others': 1 to 65,535. One that is to get none is [`Condition::Draining`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The least.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// Checks that `weight` is not 0.
    pub const fn new(weight: u16) -> Result<Self, WeightError> {
        match NonZeroU16::new(weight) {
            Some(weight) => Ok(Self(weight)),
            None => Err(WeightError),
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// Weight 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a weight is 1 to 65535, this is 0; a replica that is to get no new flows is draining")]
pub struct WeightError;

impl Default for Weight {
    /// The least.
    fn default() -> Self {
        Self::ONE
    }
}

impl TryFrom<u16> for Weight {
    type Error = WeightError;

    fn try_from(weight: u16) -> Result<Self, WeightError> {
        Self::new(weight)
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.get()
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        write!(f, "{} weight {}, {}", texts.join(" and "), self.weight, self.condition)
    }
}
