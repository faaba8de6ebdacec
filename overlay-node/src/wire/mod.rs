//! What nodes tell each other by gossip: one file per fact, all of one shape.

mod reader;
mod remote_endpoint;
mod underlay;

pub use overlay_core::Malformed;
pub use remote_endpoint::{FACT_LIMIT, TooLong};
pub use underlay::Underlay;

use reader::Reader;
