//! What is kept of a flow: one line of the processor's cache.

use std::net::SocketAddr;

use overlay_core::Protocol;

use super::{Flow, Tuple, Way, narrow, wide};

/// A flow as it is kept.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Entry {
    client: u128,
    vip: u128,
    replica: u128,
    client_port: u16,
    vip_port: u16,
    replica_port: u16,
    alias: u16,
    /// When it is forgotten, in ticks; in a place that is free, the next free one.
    pub(super) deadline: u32,
    /// The owner in the lower three bytes; protocol (2 bits), stage (2), closed ways (2), and whether there is a flow at all.
    word: u32,
}

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Only the client has spoken.
    Opening,
    /// Both have.
    Established,
    /// Both have said the end, or one has cut it.
    Closing,
}

impl Entry {
    /// A free place, with the next one.
    pub(super) const fn free(next: u32) -> Self {
        Self {
            client: 0,
            vip: 0,
            replica: 0,
            client_port: 0,
            vip_port: 0,
            replica_port: 0,
            alias: 0,
            deadline: next,
            word: 0,
        }
    }

    pub(super) fn new(flow: &Flow) -> Self {
        let protocol = match flow.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        };
        Self {
            client: wide(flow.client.ip()),
            vip: wide(flow.vip.ip()),
            replica: wide(flow.replica.ip()),
            client_port: flow.client.port(),
            vip_port: flow.vip.port(),
            replica_port: flow.replica.port(),
            alias: flow.alias,
            deadline: 0,
            word: IN_USE | protocol << PROTOCOL | flow.owner & OWNER,
        }
    }

    pub(super) const fn is_free(&self) -> bool {
        self.word & IN_USE == 0
    }

    #[inline]
    pub(super) const fn protocol(&self) -> Protocol {
        match self.word >> PROTOCOL & 3 {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _ => Protocol::Sctp,
        }
    }

    pub(super) const fn owner(&self) -> u32 {
        self.word & OWNER
    }

    pub(super) const fn stage(&self) -> Stage {
        match self.word >> STAGE & 3 {
            0 => Stage::Opening,
            1 => Stage::Established,
            _ => Stage::Closing,
        }
    }

    pub(super) const fn set_stage(&mut self, stage: Stage) {
        self.word = self.word & !(3 << STAGE) | (stage as u32) << STAGE;
    }

    /// Notes that one way has said the end. Whether both have.
    pub(super) const fn close(&mut self, way: Way) -> bool {
        self.word |= match way {
            Way::Forth => 1 << CLOSED,
            Way::Back => 2 << CLOSED,
        };
        self.word >> CLOSED & 3 == 3
    }

    /// The packets of the flow that go this way, as they arrive here.
    #[inline(always)]
    pub(super) const fn tuple(&self, way: Way) -> Tuple {
        let protocol = self.protocol();
        let (from, from_port, to, to_port) = match way {
            Way::Forth => (self.client, self.client_port, self.vip, self.vip_port),
            Way::Back => (self.replica, self.replica_port, self.client, self.alias),
        };
        Tuple { from, to, from_port, to_port, protocol }
    }

    /// Whether they are such as this one.
    #[inline]
    pub(super) fn sends(&self, way: Way, packet: &Tuple) -> bool {
        let (from, from_port, to, to_port) = match way {
            Way::Forth => (&self.client, self.client_port, &self.vip, self.vip_port),
            Way::Back => (&self.replica, self.replica_port, &self.client, self.alias),
        };
        let ports = (from_port, to_port) == (packet.from_port, packet.to_port);
        ports && *from == packet.from && *to == packet.to && self.protocol() == packet.protocol
    }

    /// The same as they leave.
    #[inline(always)]
    pub(super) const fn translated(&self, way: Way) -> Tuple {
        match way {
            Way::Forth => self.tuple(Way::Back).turned(),
            Way::Back => self.tuple(Way::Forth).turned(),
        }
    }

    pub(super) fn flow(&self) -> Flow {
        let end = |address, port| SocketAddr::new(narrow(address), port);
        Flow {
            protocol: self.protocol(),
            client: end(self.client, self.client_port),
            vip: end(self.vip, self.vip_port),
            replica: end(self.replica, self.replica_port),
            alias: self.alias,
            owner: self.owner(),
        }
    }
}

pub(super) const OWNER: u32 = 0x00ff_ffff;
const PROTOCOL: u32 = 24;
const STAGE: u32 = 26;
const CLOSED: u32 = 28;
const IN_USE: u32 = 1 << 31;
