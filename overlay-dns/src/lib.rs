#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod answer;
mod metrics;
mod name;
mod record;
mod resolv_conf;
mod resolver;
#[cfg(feature = "tokio")]
mod server;
mod slow;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;
mod zone;

pub use hickory_proto;
pub use hickory_proto::rr::RecordType;
pub use ipnet::IpNet;
pub use metrics::{ByType, CacheMetrics, Forwards, Metrics, Results, UpstreamMetrics};
pub use name::{DnsName, DnsNameError};
pub use record::{Data, RecordTtl, Records, Srv, Txt, TxtError};
pub use resolv_conf::{Line, ResolvConf};
pub use resolver::{
    Client, Config, ConfigError, Handled, Path, Reason, Reply, Resolver, SocketId, Transmit, Transport, Upstreams,
};
#[cfg(feature = "tokio")]
pub use server::{Dial, Here, Limits, Listen, Server, ServerError, Stopped};
pub use source::{Asked, Lookup, Question, RecordSource};
pub use zone::{Endpoint, Given, Health, Mode, Policy, Service, View, Zone};
