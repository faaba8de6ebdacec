//! What nodes tell each other by gossip: one file per fact, all of one shape.

mod malformed;
mod reader;
mod remote_endpoint;
mod underlay;

pub use malformed::Malformed;
pub use remote_endpoint::{FACT_LIMIT, TooLong};
pub use underlay::Underlay;

use reader::Reader;
