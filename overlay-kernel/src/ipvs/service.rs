//! Virtual services and who is behind them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use overlay_core::{IpFamily, Protocol};

/// What makes a service one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An address and a port. Port 0 is all ports: only of a service that is persistent.
    At {
        /// The protocol.
        protocol: Protocol,
        /// The address and the port.
        at: SocketAddr,
    },
    /// All packets of a family that have a mark, whatever their ports.
    Mark {
        /// The mark, not 0.
        mark: u32,
        /// The family.
        family: IpFamily,
    },
}

impl Key {
    /// The family of its packets.
    pub const fn family(&self) -> IpFamily {
        match self {
            Self::At { at, .. } => IpFamily::of(at.ip()),
            Self::Mark { family, .. } => *family,
        }
    }
}

/// A virtual service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// How it is balanced.
    pub options: Options,
    /// Who gets its connections.
    pub destinations: BTreeMap<SocketAddr, Destination>,
}

/// How a service is balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options {
    /// Who is chosen.
    pub scheduler: Scheduler,
    /// Whether a source comes back to its destination, and for how many seconds after its last connection.
    pub persistence: Option<u32>,
}

/// A module of IPVS that chooses among destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// One after the other.
    RoundRobin,
    /// The same by weight.
    WeightedRoundRobin,
    /// Who has fewest connections.
    LeastConnection,
    /// The same by weight.
    WeightedLeastConnection,
    /// By the source's address; one that takes none is passed over.
    SourceHash,
    /// Maglev's table, of 4,093 slots mostly; by the source's address, or by its port too.
    Maglev {
        /// Whether the source's port counts.
        by_port: bool,
    },
}

impl Scheduler {
    /// The module's name.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::SourceHash => "sh",
            Self::Maglev { .. } => "mh",
        }
    }

    /// Its flags (`IP_VS_SVC_F_SCHED1`: pass over those that take none; `…2`: ports count).
    pub(super) const fn flags(self) -> u32 {
        match self {
            Self::SourceHash | Self::Maglev { by_port: false } => FALL_BACK,
            Self::Maglev { by_port: true } => FALL_BACK | PORT,
            _ => 0,
        }
    }

    /// The scheduler of this name and these flags.
    pub(super) fn read(text: &str, flags: u32) -> Option<Self> {
        let all = [
            Self::RoundRobin,
            Self::WeightedRoundRobin,
            Self::LeastConnection,
            Self::WeightedLeastConnection,
            Self::SourceHash,
            Self::Maglev { by_port: false },
            Self::Maglev { by_port: true },
        ];
        all.into_iter().find(|it| it.text() == text && it.flags() == flags & (FALL_BACK | PORT | THIRD))
    }
}

/// Who gets connections of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    /// How packets get there.
    pub forward: Forward,
    /// Its share; one of weight 0 keeps the connections it has and gets no others.
    pub weight: u32,
}

/// How packets get to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forward {
    /// Their destination is translated.
    Translate = 0,
    /// They are wrapped, in IP.
    Tunnel = 2,
    /// They are sent to the station as they are.
    Direct = 3,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { protocol, at } => write!(f, "{protocol} {at}"),
            Self::Mark { mark, family } => write!(f, "{family} mark {mark}"),
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheduler.text())?;
        if let Scheduler::Maglev { by_port: true } = self.scheduler {
            f.write_str(" by port")?;
        }
        self.persistence.iter().try_for_each(|seconds| write!(f, " persistent for {seconds} s"))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.forward {
            Forward::Translate => "translated",
            Forward::Tunnel => "by tunnel",
            Forward::Direct => "directly",
        };
        write!(f, "{how} weight {}", self.weight)
    }
}

const FALL_BACK: u32 = 8; // IP_VS_SVC_F_SCHED1
const PORT: u32 = 16; // IP_VS_SVC_F_SCHED2
const THIRD: u32 = 32; // IP_VS_SVC_F_SCHED3
