//! Sealers of one tunnel's lanes.

use std::ops::Range;

use super::seal::{SealError, Sealer};
use crate::{Lanes, LanesError};

/// The sealers of one tunnel to one peer, a lane each.
///
/// One core may seal all lanes, or [each its own](Self::into_lanes): packets of a flow stay on their lane, so nothing is shared.
#[derive(Debug)]
pub struct Sealers {
    lanes: Lanes,
    sealers: Vec<Sealer>,
}

impl Sealers {
    /// A sealer for each lane, in the order of lanes.
    ///
    /// # Errors
    /// If they are not as many as there can be [`Lanes`].
    pub fn new(sealers: Vec<Sealer>) -> Result<Self, LanesError> {
        Ok(Self { lanes: Lanes::new(sealers.len())?, sealers })
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> Lanes {
        self.lanes
    }

    /// Seals a UDP datagram, in place, on the lane of its source port; as [`Sealer::seal`] with next header 17.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    #[inline]
    pub fn seal(&mut self, buffer: &mut [u8], datagram: Range<usize>) -> Result<Range<usize>, SealError> {
        let Range { start, end } = datagram;
        let outside = SealError::Range { start, end, have: buffer.len() };
        let source_port = match buffer.get(datagram.clone()).ok_or(outside)? {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0, // no datagram, but as good on one lane as on another
        };
        let lane = self.lanes.of_source_port(source_port);
        let sealer = self.sealers.get_mut(usize::from(lane.get())).ok_or(outside)?; // there is one for each lane
        sealer.seal(buffer, datagram, UDP)
    }

    /// Each lane's sealer, in the order of lanes.
    pub fn iter(&self) -> impl Iterator<Item = &Sealer> {
        self.sealers.iter()
    }

    /// The sealers, in the order of lanes, to give each to a core.
    pub fn into_lanes(self) -> Vec<Sealer> {
        self.sealers
    }
}

const UDP: u8 = 17;
