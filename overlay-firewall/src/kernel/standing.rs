//! Which flows nothing permits any more.

use std::net::{IpAddr, SocketAddr};

use overlay_core::{IpFamily, Protocol};
use overlay_kernel::conntrack::Flow;
use overlay_kernel::nft::IpProtocol;

use super::native::Withdrawn;
use crate::{Icmpv6, Ip, Judge, Transport};

impl Withdrawn {
    /// Whether a flow is one that our rules had let begin, and would not now.
    ///
    /// Of a flow it is not known by which interface it came: what any interface could have let in stands.
    pub(super) fn goes(&self, judge: &Judge, flow: &Flow) -> bool {
        if let Some(permits) = ip_of(flow).and_then(|ip| judge.policy_permits(&ip)) {
            return !permits;
        }
        let (from, to) = (flow.original.from, flow.original.to);
        let end = SocketAddr::new(flow.reply.from, flow.reply.from_port);
        if end != SocketAddr::new(to, flow.original.to_port) && !is_portless(flow.protocol) {
            return self.was_or_is_target(judge, flow.protocol, end) && !published(judge, flow, end);
        }
        let masqueraded = flow.reply.to != from;
        match judge.gateway_of(from) {
            Some(internal) => internal && masqueraded,
            None if self.inside(from) => true,
            None => self.inside(to) && judge.gateway_of(to).is_none(),
        }
    }

    fn inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.was_inside(&address),
            IpAddr::V6(address) => self.was_inside(&address),
        }
    }

    fn was_or_is_target(&self, judge: &Judge, protocol: u8, end: SocketAddr) -> bool {
        let protocol = IpProtocol(protocol);
        let was = match end.ip() {
            IpAddr::V4(address) => self.was_target(&(address, protocol, end.port())),
            IpAddr::V6(address) => self.was_target(&(address, protocol, end.port())),
        };
        was || Protocol::from_number(protocol.0).is_some_and(|of| judge.is_target(of, end))
    }
}

fn published(judge: &Judge, flow: &Flow, end: SocketAddr) -> bool {
    let asked = SocketAddr::new(flow.original.to, flow.original.to_port);
    Protocol::from_number(flow.protocol).is_some_and(|of| judge.publishes(of, asked, (flow.original.from, end)))
}

/// The first packet of a flow, as it may have been.
fn ip_of(flow: &Flow) -> Option<Ip> {
    let (source, destination) = (flow.original.from_port, flow.original.to_port);
    let transport = match Protocol::from_number(flow.protocol) {
        Some(Protocol::Tcp) => Transport::tcp(source, destination),
        Some(Protocol::Udp) => Transport::udp(source, destination),
        Some(Protocol::Sctp) => Transport::Sctp { source, destination },
        None if IpFamily::of(flow.original.from) == IpFamily::V6 && flow.protocol == IpProtocol::ICMPV6.0 => {
            Transport::Icmpv6(Icmpv6::Other)
        }
        None => Transport::Other(flow.protocol),
    };
    Ip::between(flow.original.from, flow.original.to, transport)
}

/// Whether the protocol has no ports, so that its numbers may differ by themselves.
const fn is_portless(protocol: u8) -> bool {
    Protocol::from_number(protocol).is_none()
}
