//! Which flows lead to no replica any more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use overlay_core::{Port, Protocol};
use overlay_kernel::conntrack::Flow;
use overlay_kernel::nft::IpProtocol;

use super::lower;
use super::native::{Meaning, Withdrawn};
use crate::{Condition, Service, State};

/// The services of VIPs and of published ports that something was taken from.
pub(super) struct Standing<'s> {
    of_vips: BTreeMap<IpAddr, Vec<&'s Service>>,
    published: BTreeMap<(Protocol, Port), &'s Service>,
}

impl<'s> Standing<'s> {
    pub(super) fn new(Meaning(state): &'s Meaning, withdrawn: &Withdrawn) -> Self {
        let (mut of_vips, mut published) = (BTreeMap::<IpAddr, Vec<&Service>>::new(), BTreeMap::new());
        let ports = withdrawn.ports();
        let services = state.iter().flat_map(|state: &std::sync::Arc<State>| state.services.values());
        for service in services {
            let named = service.ports.named().filter(|_| service.is_published());
            let named = named.filter(|it| ports.iter().any(|ports| ports.contains(&lower::place(it))));
            published.extend(named.map(|it| ((it.protocol, it.port), service)));
            for vip in service.vips.iter().filter(|vip| withdrawn.is_about(**vip)) {
                of_vips.entry(*vip).or_default().push(service);
            }
        }
        Self { of_vips, published }
    }

    /// Whether a flow is one of ours that no service has a replica for: never one that others translated. Nor a connection that has ended, which
    /// leads nobody astray: a client that takes its port again begins another, which the kernel may take for it, see [`cut`](overlay_kernel::conntrack::Conntrack::cut).
    pub(super) fn lacks(&self, withdrawn: &Withdrawn, flow: &Flow) -> bool {
        let vip = flow.original.to;
        match () {
            () if !is_translated(flow) || (flow.protocol == IpProtocol::TCP.0 && flow.has_ended()) => false,
            () if withdrawn.is_about(vip) => {
                let services = self.of_vips.get(&vip).map(Vec::as_slice).unwrap_or_default();
                !services.iter().any(|service| serves(service, flow))
            }
            () if withdrawn.has_taken_from(flow) => {
                let service = asked(flow).and_then(|port| self.published.get(&port));
                !service.is_some_and(|service| serves(service, flow))
            }
            () => false,
        }
    }
}

/// Whether somebody translated its destination.
pub(super) const fn is_translated(flow: &Flow) -> bool {
    flow.status & TRANSLATED != 0
}

/// What a client asked for.
fn asked(flow: &Flow) -> Option<(Protocol, Port)> {
    Protocol::from_number(flow.protocol).zip(Port::new(flow.original.to_port).ok())
}

fn serves(service: &Service, flow: &Flow) -> bool {
    let target = asked(flow).and_then(|(protocol, port)| service.ports.target(protocol, port));
    let stays = service.replicas.values().filter(|replica| replica.condition != Condition::Down);
    target.is_some_and(|it| it.get() == flow.reply.from_port)
        && stays.into_iter().any(|it| it.addresses.contains(&flow.reply.from))
}

const TRANSLATED: u32 = 32; // IPS_DST_NAT

#[cfg(test)]
mod tests {
    use overlay_core::{EndpointId, State as _};

    use super::super::{Native, NativeStep};
    use super::*;
    use crate::Replica;

    fn port(number: u16) -> Port {
        Port::new(number).unwrap()
    }

    /// Services of this machine by port, each with these replicas.
    fn published(services: &[(u16, &[u8])]) -> State {
        let services = services.iter().map(|(at, replicas)| {
            let mut service = Service::published().port(Protocol::Tcp, port(*at), port(8080));
            service = service.port(Protocol::Udp, port(*at), port(8080));
            let replica = |it: &u8| (EndpointId::from_bytes([*it; 16]), Replica::new([[10, 0, 9, *it].into()]));
            service.replicas = replicas.iter().map(replica).collect();
            (format!("s{at}").parse().unwrap(), service)
        });
        State { services: services.collect(), ..State::default() }
    }

    fn native(state: State) -> Native {
        let tables = lower::tables(&lower::Wanted::all(&state)).unwrap();
        Native { tables, meaning: Meaning(Some(state.into())), ..Native::default() }
    }

    /// A flow is compared with one service, not with all that are published.
    #[test]
    fn services_are_looked_for_at_the_ports_that_something_was_taken_from_alone() {
        let now = native(published(&[(80, &[2, 3]), (81, &[2]), (82, &[2, 3])]));
        let desired = native(published(&[(80, &[3]), (81, &[2, 3]), (82, &[3])]));
        let steps = now.plan(&desired);
        let cut = steps.iter().find_map(|step| if let NativeStep::Cut(it) = step { Some(it) } else { None }).unwrap();
        let standing = Standing::new(&cut.meaning, cut);
        let ports = [80, 82].map(port);
        let expected = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|of| ports.map(|port| (of, port)));
        assert!(standing.published.keys().copied().eq(expected), "{:?}", standing.published.keys());
        assert!(standing.of_vips.is_empty());
    }

    #[test]
    fn nothing_is_cut_where_a_published_service_gets_another_replica_or_one_drains() {
        let now = native(published(&[(80, &[2])]));
        let cuts = |desired: State| now.plan(&native(desired)).iter().any(|it| matches!(it, NativeStep::Cut(_)));
        let being = |condition: Condition| {
            let mut state = published(&[(80, &[2])]);
            let service = state.services.get_mut("s80").unwrap();
            service.replicas.values_mut().for_each(|it| it.condition = condition);
            state
        };
        assert!(!cuts(published(&[(80, &[2, 3])])) && !cuts(being(Condition::Draining)));
        assert!(cuts(published(&[(80, &[3])])) && cuts(being(Condition::Down)));
    }
}
