//! Packets in place: what they are, and how they are translated.

mod answer;
mod checksum;
mod icmp;
mod nat;
mod view;

pub(crate) use self::answer::{echo_reply, refusal, stir};
pub(crate) use self::icmp::Quote;
pub(crate) use self::nat::rewrite;
pub use self::nat::{Untranslatable, translate};
pub(crate) use self::view::{Content, Segment, View};
