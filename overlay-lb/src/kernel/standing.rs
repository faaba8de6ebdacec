//! Which flows lead to no replica any more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use overlay_core::Protocol;
use overlay_kernel::conntrack::Flow;

use super::native::{Meaning, Withdrawn};
use crate::{Condition, Ports, Service, State};

/// The services of VIPs that something was taken from.
pub(super) struct Standing<'s>(BTreeMap<IpAddr, Vec<&'s Service>>);

impl<'s> Standing<'s> {
    pub(super) fn new(Meaning(state): &'s Meaning, withdrawn: &Withdrawn) -> Self {
        let mut of_vips: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
        let services = state.iter().flat_map(|state: &std::sync::Arc<State>| state.services.values());
        for service in services {
            for vip in service.vips.iter().filter(|vip| withdrawn.is_about(**vip)) {
                of_vips.entry(*vip).or_default().push(service);
            }
        }
        Self(of_vips)
    }

    /// Whether a flow is one of ours that no service has a replica for.
    pub(super) fn lacks(&self, withdrawn: &Withdrawn, flow: &Flow) -> bool {
        let vip = flow.original.to;
        is_translated(flow)
            && withdrawn.is_about(vip)
            && !self.0.get(&vip).into_iter().flatten().any(|it| serves(it, flow))
    }
}

/// Whether somebody translated its destination.
pub(super) const fn is_translated(flow: &Flow) -> bool {
    flow.status & TRANSLATED != 0
}

fn serves(service: &Service, flow: &Flow) -> bool {
    let Some(protocol) = Protocol::from_number(flow.protocol) else { return false };
    let target = match &service.ports {
        Ports::All => Some(flow.original.to_port),
        Ports::Named(named) => {
            let served = named.iter().find(|it| (it.protocol, it.port.get()) == (protocol, flow.original.to_port));
            served.map(|it| it.target.get())
        }
    };
    let stays = service.replicas.values().filter(|replica| replica.condition != Condition::Down);
    target == Some(flow.reply.from_port) && stays.into_iter().any(|it| it.addresses.contains(&flow.reply.from))
}

const TRANSLATED: u32 = 32; // IPS_DST_NAT
