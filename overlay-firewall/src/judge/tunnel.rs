//! Who gets in at a tunnel, found once.

use std::net::IpAddr;
use std::sync::Arc;

use super::Judge;
use super::index::Members;
use crate::{Content, Flow, Packet, Transport};

/// Sources whose datagrams pass at a tunnel of this machine's for sure, as a [`Judge`] knew them when it was
/// [asked](Judge::tunnel_gate). The default knows none.
#[derive(Debug, Clone, Default)]
pub struct TunnelGate(Option<Arc<Members>>);

impl TunnelGate {
    /// Whether a datagram from there passes. If it is not known to, only the judge can tell.
    #[inline(always)]
    pub fn knows(&self, source: IpAddr) -> bool {
        self.0.as_ref().is_some_and(|members| members.has(source))
    }
}

impl Judge {
    /// For who asks of many datagrams that arrive as `packet` does, but for where they are from: the members of their tunnel, where
    /// to be one is all that counts. It is for datagrams of the same VNI, and sealed if this one is.
    pub fn tunnel_gate(&self, packet: &Packet) -> TunnelGate {
        TunnelGate(self.trusted(packet).cloned())
    }

    fn trusted(&self, packet: &Packet) -> Option<&Arc<Members>> {
        let Packet { frame: None, from: Some(from), to: None, content: Content::Ip(ip), .. } = packet else {
            return None;
        };
        let Transport::Udp { destination: port, .. } = ip.transport else { return None };
        let tunnel = self.tunnels.get(&port)?;
        let destination = ip.destination();
        let behind = |address| self.subnets.find(address).is_some();
        let from_outside = !self.gateways.contains_key(from) && tunnel.outside;
        let plain = from_outside && !destination.is_loopback() && !behind(destination);
        let elsewhere = self.cleartext(packet, ip).is_some() || self.translate(Some(*from), ip, Flow::New).is_some();
        (plain && !elsewhere).then_some(&tunnel.members)
    }
}
