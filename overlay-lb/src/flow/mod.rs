//! Flows in user space: which packets belong together, and who serves them.

mod entry;
mod hash;
mod index;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use overlay_core::Protocol;

pub use self::entry::Stage;
pub(crate) use self::hash::Key as HashKey;
pub use self::table::{FlowId, FlowTable, Signal, TableError};

/// A flow: a client, the VIP that it spoke to, the replica that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// What it spoke to.
    pub vip: SocketAddr,
    /// Who serves it.
    pub replica: SocketAddr,
    /// The client's port as the replica sees it: the client's own, unless another flow of the client to this replica has it.
    pub alias: u16,
    /// A number of the caller's for who serves it, below 2²⁴.
    pub owner: u32,
}

/// Which way a packet of a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client.
    Forth,
    /// To the client.
    Back,
}

/// What of a packet tells its flow: protocol, addresses, ports. IPv4 addresses in IPv6's form (RFC 4291 §2.5.5.2), so that all are of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub(crate) from: u128,
    pub(crate) to: u128,
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
    pub(crate) protocol: Protocol,
}

impl Tuple {
    /// A packet from here to there.
    pub fn new(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Self {
        let (from_port, to_port) = (from.port(), to.port());
        Self { from: wide(from.ip()), to: wide(to.ip()), from_port, to_port, protocol }
    }

    /// The answer to such a packet.
    #[must_use]
    pub(crate) const fn turned(self) -> Self {
        let Self { from, to, from_port, to_port, protocol } = self;
        Self { from: to, to: from, from_port: to_port, to_port: from_port, protocol }
    }
}

pub(crate) const fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[inline]
pub(crate) const fn narrow(address: u128) -> IpAddr {
    match address >> 32 {
        MAPPED => IpAddr::V4(Ipv4Addr::from_bits(address as u32)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(address)),
    }
}

const MAPPED: u128 = 0xffff; // RFC 4291 §2.5.5.2
