//! What a carrier has done.

use overlay_datapath::Counts;

/// What a [`Carrier`](super::Carrier) has done since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarrierCounts {
    /// What its datapath has, packet by packet.
    pub datapath: Counts,
    /// How often its thread had something to do.
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
}
