//! The benchmarks' harness: figures, each beside a yardstick measured in the same moments, one JSON line per figure.
//!
//! A group is a function that takes a [`Bench`] and reports figures. To add one: a file in `src/bin/overlay-bench/`, a
//! line in its `GROUPS`.
//!
//! ```
//! use std::hint::black_box;
//! use overlay_bench::{Bench, Pace};
//!
//! let mut lines = Vec::new();
//! let mut bench = Bench::new(Pace::Quick, &mut lines);
//! let numbers = [3_u64, 1, 2];
//! bench
//!     .figure("demo/sum", "ns")
//!     .each(|n| { black_box(black_box(&numbers).iter().sum::<u64>() + n as u64); })
//!     .yardstick("max", |_| { black_box(black_box(&numbers).iter().max()); })
//!     .report()?;
//! assert!(lines.starts_with(br#"{"bench":"demo/sum","value":"#));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The line
//!
//! `{"bench": NAME, "value": V, "unit": U, "yardstick": {"name": …, "value": …}, "ratio": V / yardstick}`, the value of a
//! yardstick in the same unit. Without a yardstick, `yardstick` and `ratio` are left out. Where there are several, the first is
//! the `yardstick` and `also` lists the others, each with its own `ratio`.
//!
//! # How it measures
//!
//! Subject and yardsticks take turns (A B A B …), so that whatever else the machine does falls on both; the median of
//! each one's rounds is reported. A round repeats a short operation for 15 ms (quick: 1.5 ms), the count found by a warm-up;
//! an operation of milliseconds ([`Figure::once`]) is run once per round.

#![forbid(unsafe_code)]

mod figure;

pub use figure::{Bench, Figure, Pace};
