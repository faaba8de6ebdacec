#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod allocator;
mod error;
mod ipam;
#[cfg(feature = "kernel")]
mod kernel;
mod lease;
mod ledger;
mod numbers;
mod occupied;
mod pool;
mod range;
mod request;
mod request_error;
mod set;
mod subnet;
mod subnets;
#[cfg(feature = "testing")]
pub mod testing;
mod usage;
mod word;

pub use allocator::{Allocator, Audit, Config, PickOrder, RootError};
pub use error::{ClaimError, ClaimRefusal, IpamError, PoolName};
pub use ipam::{AddressRequest, Ipam};
pub use ipnet::IpNet;
#[cfg(feature = "kernel")]
pub use kernel::HostNetworks;
pub use lease::{Lease, LeaseOwner, LeaseOwnerError, Release};
pub use ledger::wire::Flaw;
pub use numbers::{NumberLease, Ports, Vnis};
pub use occupied::{Occupant, Occupation, Occupied};
pub use pool::{Pool, PoolError};
pub use range::{AddressRange, AddressRangeError};
pub use request::{Gateway, SubnetOptions, SubnetRequest, Wanted};
pub use request_error::RequestError;
pub use set::{AddressSet, Draw, Order};
pub use subnet::{Reserved, Subnet, SubnetKind, Use};
pub use subnets::{SubnetError, Subnets};
pub use usage::{PoolUsage, SubnetUsage, Usage};
