//! How a device asks for neighbours.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a device asks who has an address, of either family (RFC 826, RFC 4861 §7.2.2). What is sent to a neighbour waits meanwhile; it is
/// refused as unreachable once all was in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solicit {
    /// How long it waits for an answer before it asks again (`net.ipv4.neigh.DEV.retrans_time_ms`). 20 ms to 1 min in steps of 20 ms, which
    /// every kernel's clock can tell.
    pub interval: Duration,
    /// How often it asks before it gives up (`net.ipv4.neigh.DEV.mcast_solicit`). 1 to 1,000.
    pub times: u32,
}

impl Solicit {
    /// As a kernel does it unless somebody says otherwise.
    pub const KERNEL: Self = Self { interval: Duration::from_secs(1), times: 3 };
    /// Only ever observed: of one family so, of the other otherwise.
    pub const UNEVEN: Self = Self { interval: Duration::ZERO, times: 0 };

    pub(super) fn is_possible(self) -> bool {
        let Self { interval, times } = self;
        let even = interval.subsec_nanos().is_multiple_of(20_000_000);
        even && (Duration::from_millis(20)..=Duration::from_secs(60)).contains(&interval) && (1..=1000).contains(&times)
    }

    /// What holds of both families where both are there.
    pub(crate) fn both(self, other: Option<Self>) -> Self {
        if other.is_none_or(|other| other == self) { self } else { Self::UNEVEN }
    }
}
