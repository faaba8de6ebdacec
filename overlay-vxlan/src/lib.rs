//! VXLAN (RFC 7348): the wire codec, without I/O.
//!
//! - [`Header`]: the 8 bytes in front of an inner frame.
//! - [`Packet`] and [`Frame`]: borrowed views of a whole packet and of its inner frame, every length checked.
//! - [`Outer`]: the headers to write in front of a frame, in the caller's headroom.
//! - [`Flow`] and [`SourcePorts`]: the outer UDP source port that spreads inner flows over the underlay's paths.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod flow;
mod header;
mod malformed;
mod outer;
mod packet;
mod wire;

pub use flow::{Flow, SourcePorts, SourcePortsError};
pub use header::Header;
pub use malformed::{Flaw, Layer, Malformed};
pub use outer::{Addresses, Macs, Outer, OuterError};
pub use packet::{Frame, Packet};
pub use wire::{Ethernet, Icmp, Ip, Ipv4, Ipv6, Sctp, Tcp, Transport, Udp};
