//! Which flows lead to no replica any more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use overlay_core::Protocol;
use overlay_kernel::conntrack::Flow;

use super::native::{Meaning, Withdrawn};
use crate::{Condition, Ports, Service, State};

/// The services of VIPs that something was taken from, and those that are published.
pub(super) struct Standing<'s> {
    of_vips: BTreeMap<IpAddr, Vec<&'s Service>>,
    published: Vec<&'s Service>,
}

impl<'s> Standing<'s> {
    pub(super) fn new(Meaning(state): &'s Meaning, withdrawn: &Withdrawn) -> Self {
        let (mut of_vips, mut published) = (BTreeMap::<IpAddr, Vec<&Service>>::new(), Vec::new());
        let services = state.iter().flat_map(|state: &std::sync::Arc<State>| state.services.values());
        for service in services {
            published.extend(service.is_published().then_some(service));
            for vip in service.vips.iter().filter(|vip| withdrawn.is_about(**vip)) {
                of_vips.entry(*vip).or_default().push(service);
            }
        }
        Self { of_vips, published }
    }

    /// Whether a flow is one of ours that no service has a replica for: never one that others translated.
    pub(super) fn lacks(&self, withdrawn: &Withdrawn, flow: &Flow) -> bool {
        let vip = flow.original.to;
        let services = match () {
            () if !is_translated(flow) => return false,
            () if withdrawn.is_about(vip) => self.of_vips.get(&vip).map(Vec::as_slice).unwrap_or_default(),
            () if withdrawn.has_taken_from(flow) => &self.published,
            () => return false,
        };
        !services.iter().any(|service| serves(service, flow))
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
