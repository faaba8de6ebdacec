#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod occupied;
mod pool;
mod range;
mod request;
mod request_error;
mod set;
mod subnet;
mod subnets;

pub use ipnet::IpNet;
pub use occupied::{Occupant, Occupation, Occupied};
pub use pool::{Pool, PoolError};
pub use range::{AddressRange, AddressRangeError};
pub use request::{Gateway, SubnetOptions, SubnetRequest, Wanted};
pub use request_error::RequestError;
pub use set::{AddressSet, Draw, Order};
pub use subnet::{Reserved, Subnet, SubnetKind, Use};
pub use subnets::{SubnetError, Subnets};
