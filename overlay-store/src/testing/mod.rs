//! Servers for tests, ours and yours (feature `testing`): [`EtcdServer`].

mod etcd_server;

pub use etcd_server::{EtcdServer, ServerCertificates};
