//! Virtual services in a Linux kernel.

mod amend;
mod ipvs;
mod lower;
mod native;
mod nftables;
mod standing;

pub use self::ipvs::{Ipvs, IpvsNative, IpvsStep, Marks};
pub use self::native::{Meaning, Native, NativeStep, Withdrawn};
pub use self::nftables::Nftables;
