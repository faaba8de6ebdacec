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
//!
//! A test of something that uses tables: node 3 makes an entry, is cut off, and its entry is out of sight until it is back.
//!
//! ```
//! # use std::time::Duration;
//! # use overlay_core::{NetworkId, NodeId};
//! # use overlay_gossip::testing::{Conditions, Net};
//! # use overlay_gossip::{Config, EntryKey, Gossip, Key, TableId};
//! let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
//! let network = NetworkId::from_bytes([9; 16]);
//! for _ in 0..5 {
//!     let node = net.add_gossip(&Config::lan());
//!     net.with(node, |gossip, now| gossip.subscribe(network, now));
//! }
//! net.join_all();
//! let at = EntryKey { network, table: TableId(1), key: Key::new("10.0.9.3")? };
//! net.with(3, |gossip, now| gossip.put(at.clone(), "02:42:0a:00:09:03".into(), now));
//! let owner: NodeId = Net::<Gossip>::node_id(3);
//! let in_sight = |net: &Net<Gossip>| net.machine(0).is_some_and(|gossip| gossip.get(owner, &at).is_some());
//! assert!(net.run_until(Duration::from_secs(2), in_sight).is_some(), "{net:?}");
//! net.isolate([3]);
//! assert!(net.run_until(Duration::from_secs(20), |net| !in_sight(net)).is_some(), "{net:?}");
//! net.heal();
//! assert!(net.run_until(Duration::from_secs(2), in_sight).is_some(), "{net:?}");
//! # Ok::<(), overlay_gossip::KeyError>(())
//! ```

mod cluster;
mod conditions;
mod forgery;
mod keys;
mod machine;
mod net;
mod queue;
mod seeds;

pub use conditions::Conditions;
pub use forgery::Forgery;
pub use keys::TestKeys;
pub use machine::Machine;
pub use net::{Net, Sent};
pub use seeds::seeds;
