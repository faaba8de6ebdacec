//! Borrowed views of the headers around VXLAN's own: each holds a reference to its fixed bytes, proved present by
//! `parse`, so that reading a field neither checks a bound nor copies the header.

pub(crate) mod checksum;
mod ethernet;
mod ip;
mod ipv4;
mod ipv6;
mod transport;

pub use ethernet::Ethernet;
pub use ip::Ip;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use transport::{Icmp, Sctp, Tcp, Transport, Udp};

pub(crate) use ethernet::{IPV4, IPV6};
pub(crate) use transport::UDP;

use crate::malformed::Flaw;

/// Splits the `N` fixed bytes of a header off.
#[inline(always)]
fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), Flaw> {
    match bytes.split_first_chunk() {
        Some(parts) => Ok(parts),
        None => Err(Flaw::Truncated { need: N, have: bytes.len() }),
    }
}
