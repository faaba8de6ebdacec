//! A virtual network of machines (feature `testing`), for tests of yours too.
//!
//! A [`Net`] holds machines and a clock of its own. It delivers what they send after a delay, loses, doubles and reorders
//! some of it, cuts links, stops and restarts nodes: all as a seed says, so that a run can be repeated.
//!
//! ```
//! use std::time::Duration;
//! use overlay_gossip::testing::{Conditions, Net};
//! use overlay_gossip::{Config, Gossip};
//!
//! let mut net: Net<Gossip> = Net::new(Conditions { loss: 0.1, ..Conditions::lan() }, 7);
//! for _ in 0..5 {
//!     net.add_gossip(&Config::lan());
//! }
//! net.join_all();
//! let everybody = |net: &Net<Gossip>| net.running().all(|n| net.machine(n).is_some_and(|gossip| gossip.live() == 4));
//! assert!(net.run_until(Duration::from_secs(5), everybody).is_some(), "{net:?}");
//! ```

mod cluster;
mod conditions;
mod machine;
mod net;
mod queue;
mod seeds;

pub use conditions::Conditions;
pub use machine::Machine;
pub use net::{Net, Sent};
pub use seeds::seeds;
