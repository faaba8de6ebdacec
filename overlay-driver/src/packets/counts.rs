//! What a carrier has done.

use overlay_datapath::Counts;
use serde::Serialize;

/// What a [`Carrier`](super::Carrier) has done since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CarrierCounts {
    /// What its datapath has, packet by packet.
    pub datapath: Counts,
    /// How often a thread of its had something to do.
    pub wakes: u64,
    /// Frames that were read from taps: each several packets, where it was to be cut.
    pub frames_read: u64,
    /// Frames that were written to taps: each several packets, where they were gathered.
    pub frames_written: u64,
    /// Frames of taps that were not what they said: dropped.
    pub malformed: u64,
    /// Packets of taps or of the underlay that are longer than the carrier takes: dropped.
    pub too_long: u64,
    /// Sends to the underlay: each of several datagrams, where they followed one another.
    pub sends: u64,
    /// Datagrams that the kernel refused to send, or had no room for.
    pub unsent: u64,
    /// Frames that a tap did not take.
    pub unwritten: u64,
    /// Taps that were let go as they could be read no more: deleted, or the kernel refused. One that was opened for several queues counts for each that read it.
    pub taps_lost: u64,
}

impl CarrierCounts {
    /// What two queues have done; what is decided they decide together.
    pub(super) fn and(self, other: &Self) -> Self {
        Self {
            datapath: self.datapath,
            wakes: self.wakes + other.wakes,
            frames_read: self.frames_read + other.frames_read,
            frames_written: self.frames_written + other.frames_written,
            malformed: self.malformed + other.malformed,
            too_long: self.too_long + other.too_long,
            sends: self.sends + other.sends,
            unsent: self.unsent + other.unsent,
            unwritten: self.unwritten + other.unwritten,
            taps_lost: self.taps_lost + other.taps_lost,
        }
    }
}
