//! Laws, faults and schedules for tests, ours and yours (feature `testing`).
//!
//! - [`laws`]: what every [`State`](crate::State) and every [`Backend`](crate::Backend) must hold to, as functions
//!   that a property test or a fuzzer calls with values of its own.
//! - [`store_laws`]: the same for every [`Store`](crate::Store).
//! - [`seeded_faults`]: failures for [`Flaky`](crate::Flaky), chosen by a seed.
//! - [`FlakyStore`]: a store whose calls stall and fail, answers that get lost among them, chosen by a seed.
//! - [`Executor`]: polls futures on one thread in an order that is a function of its seed.
//! - [`block_on()`]: runs one future on this thread.
//! - [`any`]: proptest strategies for the values of this crate.
//! - [`kernel_test()`]: the gate that tests on a real kernel pass through, so that none is skipped in silence.
//! - [`CopiedProgram`]: a program where every user may run it.
//! - [`Lamps`]: the smallest state there is, for examples.

pub mod any;
mod block_on;
mod executor;
mod faults;
mod flaky_store;
mod kernel_test;
mod lamps;
pub mod laws;
#[cfg(unix)]
mod program;
pub mod store_laws;

pub use block_on::block_on;
pub use executor::{Executor, Stalled, Task, yield_now};
pub use faults::{Dice, seeded_faults};
pub use flaky_store::{FlakyStore, Injected};
pub use kernel_test::{Kernel, kernel_test, kernel_test_judged_by};
pub use lamps::{LampStep, Lamps};
#[cfg(unix)]
pub use program::CopiedProgram;
