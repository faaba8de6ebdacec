//! A kit for tests on a real kernel (feature `testing`).
//!
//! - [`kill_at`]: ends a process at a chosen boundary of a system call, to show that what it leaves can be finished.
//! - [`judge()`]: asks an independent tool inside a namespace.
//! - [`once_free()`]: opens what a program that is starting may hold for a moment.

mod judge;
mod kill;
mod once_free;

pub use judge::judge;
pub use kill::{Fate, await_go, kill_at};
pub use once_free::once_free;
