#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)] // which `tap` alone lifts

pub mod conntrack;
mod errno;
mod esp;
pub mod ipvs;
pub mod link;
pub mod listeners;
mod namespace;
pub mod netlink;
pub mod nft;
mod probe;
mod rtnl;
pub mod sock_diag;
mod sockets;
mod sysctl;
mod tap;
#[cfg(feature = "testing")]
pub mod testing;
pub mod xfrm;

pub use errno::{errno_kind, failed};
pub use esp::EspSocket;
pub use namespace::{Namespace, NamespaceDir, enter_private};
pub use probe::{Feature, Finding, Found, Report, probe};
pub use sockets::take_unsummed;
pub use sysctl::Sysctl;
pub use tap::{Offloads, QueueFlags, TapQueue};
