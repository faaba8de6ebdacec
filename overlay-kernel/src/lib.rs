#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod errno;
pub mod link;
mod namespace;
pub mod netlink;

pub use errno::{errno_kind, failed};
pub use namespace::{Namespace, NamespaceDir, enter_private};
