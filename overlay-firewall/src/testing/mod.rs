//! For tests, ours and yours (feature `testing`): states, packets made for them, and a second judge.
//!
//! - [`state()`], [`host`], [`sandbox`]: proptest strategies for states that pass their check.
//! - [`packets`](fn@packets): packets that are about the rules of a state, for and against each of them.
//! - [`judge_by_list`]: the same verdicts by reading the state from the top, for comparison with [`Judge`](crate::Judge).

mod list;
mod packets;
mod states;

pub use list::judge_by_list;
pub use packets::{HERE, LAN, OUTSIDE, packets};
pub use states::{host, sandbox, state};
