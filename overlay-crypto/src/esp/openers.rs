//! Openers of many associations.

use std::collections::BTreeMap;

use super::open::{OpenCounts, OpenError, Opened, Opener, split};
use crate::Spi;

/// The openers of one receiver, found by packets' SPIs: O(log n) for n associations. One core's; each core has its own for the
/// lanes that it opens.
///
/// What an SPI means is the destination's alone, so all of them are of one destination address.
#[derive(Debug, Default)]
pub struct Openers {
    by_spi: BTreeMap<Spi, Opener>,
    strays: OpenCounts,
}

impl Openers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an opener.
    ///
    /// # Errors
    /// Gives it back if there is one of its SPI, which stays: one SPI never carries two keys.
    pub fn insert(&mut self, opener: Opener) -> Result<(), Box<Opener>> {
        let spi = opener.spi();
        if self.by_spi.contains_key(&spi) {
            return Err(Box::new(opener));
        }
        self.by_spi.insert(spi, opener);
        Ok(())
    }

    /// Removes the opener of `spi`, if there is one.
    pub fn remove(&mut self, spi: Spi) -> Option<Opener> {
        self.by_spi.remove(&spi)
    }

    /// The opener of `spi`.
    pub fn get(&self, spi: Spi) -> Option<&Opener> {
        self.by_spi.get(&spi)
    }

    /// Opens `packet` with the opener of its SPI, and says whose it was; as [`Opener::open`].
    ///
    /// # Errors
    /// As [`Opener::open`]; what is none's is counted in [`strays`](Self::strays).
    pub fn open<'p>(&mut self, packet: &'p mut [u8]) -> Result<(Spi, Opened<'p>), OpenError> {
        let error = match packet.first_chunk() {
            None => OpenError::Truncated { need: Opener::MIN_LEN, have: packet.len() },
            Some(header) => {
                let (number, _) = split(*header);
                match Spi::new(number).ok().and_then(|spi| self.by_spi.get_mut(&spi)) {
                    Some(opener) => return Ok((opener.spi(), opener.open(packet)?)),
                    None => OpenError::Foreign { spi: number },
                }
            }
        };
        self.strays.add(&Err(error));
        Err(error)
    }

    /// What was refused before an opener was found.
    pub fn strays(&self) -> OpenCounts {
        self.strays
    }

    /// All openers, by SPI.
    pub fn iter(&self) -> impl Iterator<Item = &Opener> {
        self.by_spi.values()
    }
}
