//! The seam to where the catalogue is kept, and what claims through it.

mod commit;
mod error;
mod key;
mod memory;
mod seam;
mod shelves;
mod snapshot;
mod term;
mod text;
mod transaction;
mod watch;

pub use commit::{Commit, CommitError, Compare, Limit, Limits};
pub use error::StoreError;
pub use key::{Key, KeyError, Prefix};
pub use memory::MemoryStore;
pub use seam::{Entry, Listing, Reading, Revision, Store};
pub use snapshot::{Snapshot, Undecided, Unread};
pub use term::{Seat, Term, TermRefusal};
pub use transaction::{Done, Transaction, TransactionError};
pub use watch::{KeyChange, Watch, WatchEvent};
