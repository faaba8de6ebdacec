//! What a judge knows of flows that it did not see begin.

use std::net::{IpAddr, SocketAddr};

use overlay_core::{IpFamily, Protocol};

use super::index::{Place, Published};
use crate::{Bind, Egress, Flow, Ip, Judge};

impl Judge {
    /// Whether a policy lets a flow begin with this packet; nothing if there is none.
    pub(crate) fn policy_permits(&self, ip: &Ip) -> Option<bool> {
        self.policy.as_ref().map(|policy| policy.judge(ip, Flow::New).ruling.passes())
    }

    /// Whether an address is behind a gateway, and if so, whether that is internal.
    pub(crate) fn gateway_of(&self, address: IpAddr) -> Option<bool> {
        let gateway = self.gateways.get(self.subnets.find(address)?)?;
        Some(gateway.egress == Egress::Internal)
    }

    /// Whether a published port leads there.
    pub(crate) fn is_target(&self, protocol: Protocol, end: SocketAddr) -> bool {
        self.targets.contains_key(&(protocol, end))
    }

    /// Whether who asked there gets there, by whatever interface it came.
    pub(crate) fn publishes(&self, protocol: Protocol, asked: SocketAddr, (from, end): (IpAddr, SocketAddr)) -> bool {
        let (family, port) = (IpFamily::of(asked.ip()), asked.port());
        let own = from == asked.ip() || from.is_loopback();
        let leads = |it: &Published| it.target == end && (!it.restricted || own || self.admits(it.at, from));
        let at = |bind| self.places.get(&Place::new(bind, family, protocol, port));
        if let Some(found) = at(Bind::Address(asked.ip())) {
            return leads(found);
        }
        if Bind::is_near(asked.ip()) {
            return false;
        }
        let by_interface = self.at_interfaces.get(&(family, protocol, port)).into_iter().flatten();
        by_interface.chain(at(Bind::Any)).any(leads)
    }
}
