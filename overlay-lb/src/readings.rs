//! How many flows stand.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a backend's [`Meter`](overlay_core::Meter) reads: how many flows stand, by the VIP that they were sent to and the replica's address
/// that has them. The VIP of a [published](crate::Service::is_published) service is whichever of the machine's own addresses was asked. Those that have ended, and are only kept in mind (TCP's `TIME_WAIT`), do not count; a UDP flow counts until it
/// was idle for too long.
///
/// Whoever drains a replica waits until it has [none](Self::of_replica).
///
/// ```
/// use std::net::IpAddr;
/// use overlay_lb::Readings;
///
/// let [vip, replica] = ["10.0.9.100", "10.0.9.2"].map(|it| it.parse::<IpAddr>());
/// let (vip, replica) = (vip?, replica?);
/// let mut readings = Readings::default();
/// readings.add(vip, replica, 2);
/// readings.add(vip, replica, 1);
/// assert_eq!((readings.of_replica(replica), readings.of_replica(vip)), (3, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings {
    flows: BTreeMap<(IpAddr, IpAddr), u64>,
}

impl Readings {
    /// So many more flows, to this VIP and from there to this replica.
    pub fn add(&mut self, vip: IpAddr, replica: IpAddr, flows: u64) {
        if flows > 0 {
            *self.flows.entry((vip, replica)).or_default() += flows;
        }
    }

    /// How many a replica has at this address, of all VIPs. O(n) for n VIPs and replicas.
    pub fn of_replica(&self, replica: IpAddr) -> u64 {
        self.flows.iter().filter(|((_, of), _)| *of == replica).map(|(_, flows)| flows).sum()
    }

    /// All that are not 0: VIP, replica, flows.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, IpAddr, u64)> + '_ {
        self.flows.iter().map(|((vip, replica), flows)| (*vip, *replica, *flows))
    }
}
