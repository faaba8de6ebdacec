#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "etcd")]
mod etcd;
mod redb;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "etcd")]
pub use crate::etcd::{EtcdConfig, EtcdError, EtcdSecurity, EtcdStore};
pub use crate::redb::{OpenError, RedbStore};
