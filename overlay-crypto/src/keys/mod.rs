//! Keys that two nodes agree on, from what each publishes.

mod chance;
mod derive;
mod epoch;
mod pair;
mod public;
mod records;

pub use chance::Chance;
pub use epoch::{AgreeError, EpochSecret};
pub use pair::{AlreadyIssued, Direction, Issued, Pair, Use};
pub use public::{Epoch, EpochError, EpochRecord, PublicKey};
pub use records::EpochRecords;
