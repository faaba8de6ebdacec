//! Native state `xfrm`: ESP security associations and the policies that use them.
//!
//! [`State`] mirrors the kernel's objects one to one; it is pure, so all of it but [`Xfrm`] is tested without privilege. The kernel
//! keeps no mark of who made an object, so what is a state's is told by a [`Claim`]: associations by their request id, policies by
//! their priority.
//!
//! An association is never changed: another key, window or lifetime is another SPI. Putting one in place of another under the same
//! SPI would count from 1 again, and under the same key that repeats nonces.

mod check;
mod expiry;
mod kernel;
mod key;
mod policy;
mod sa;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;

pub use expiry::{Expiries, Expiry, Heard};
pub use kernel::{Claim, Missing, Reading, Readings, Xfrm};
pub use key::{Key, KeySource};
pub use policy::{Action, Direction, Policy, PolicyKey, Ports, Selector, Template};
pub use sa::{Aead, Lifetimes, Limits, Mode, Sa, SaId, UdpPorts};
pub use state::{SpiTaken, State};
pub use step::Step;
