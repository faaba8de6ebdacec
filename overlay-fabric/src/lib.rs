#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod observed;
mod probe;
mod trace;

pub use observed::{Observed, ObservedNode, ObservedPlace};
pub use trace::{Broken, Hop, Trace};
