//! What a TAP and its user leave to each other: checksums, and many segments in one frame.

mod coalesce;
mod header;
mod segments;
mod shape;

pub use coalesce::{Coalescer, Merging};
pub use header::{Checksum, Gso, GsoKind, VnetError, VnetHeader};
pub use segments::{SegmentError, Segments};
