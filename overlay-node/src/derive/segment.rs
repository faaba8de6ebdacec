//! What is derived of an overlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, Name, Vni};
use overlay_dns::{Endpoint, Zone};
use overlay_vxlan::{PortEnd, Segment};

use super::admission::{Admission, Peer};
use super::claim::{At, Claim, Taken, Unfit};
use super::free::Free;
use super::lb::{self, Services};
use super::mesh::Mesh;
use super::touched::{Known, Touched};
use super::{Footing, admission, container, firewall, vxlan, zone};
use crate::{Balancing, PlaceState};

/// What is derived of an overlay, and what it takes to change it in part.
#[derive(Debug, Clone)]
pub(super) struct SegmentPart {
    vni: Vni,
    footing: Footing,
    pub(super) zone: Zone,
    pub(super) services: Services,
    /// Their VIPs, in order: what each container has its own way to.
    pub(super) vips: Vec<IpAddr>,
    /// What more there is of an ingress network.
    pub(super) mesh: Option<Mesh>,
    /// What the sandbox should hold.
    pub(super) state: Arc<PlaceState>,
    /// How many endpoints are left out, whole or in part.
    pub(super) unfit: usize,
    taken: Taken,
    /// Whether any of them is left out only because another has what it says it has.
    contended: bool,
}

impl SegmentPart {
    /// `None` for a network that should not be here.
    pub(super) fn derive(known: Known<'_>, vni: Vni, footing: Footing) -> Option<Self> {
        let admission = Admission::of(known.knowledge, known.section, &footing);
        if admission.ports.is_empty() {
            return None;
        }
        let zone = zone::zone(known.section, &admission);
        let services = lb::services(known.section, &zone);
        let mut state = sandbox(known, vni, &footing, &admission);
        state.view = seen(known, &state, &zone);
        Self { services, ..Self::new((vni, footing), admission, zone, Arc::new(state)) }.finish(known)
    }

    fn new((vni, footing): (Vni, Footing), admission: Admission<'_>, zone: Zone, state: Arc<PlaceState>) -> Self {
        let contended = admission.unfit.values().any(|unfit| unfit.is_contended());
        let (services, unfit, taken) = (Services::new(), admission.unfit.len(), admission.taken);
        Self { vni, footing, zone, services, vips: Vec::new(), mesh: None, state, unfit, taken, contended }
    }

    /// As [`derive`](Self::derive), of a network that was derived when `old` was known. What did not change is kept.
    pub(super) fn derive_again(mut self, old: Known<'_>, new: Known<'_>, footing: Footing) -> Option<Self> {
        let touched = Touched::between(old, new);
        let ground = footing == self.footing && old.section.network == new.section.network && !touched.vips;
        let claims = if ground && !self.contended { self.patch(old, new, &touched.endpoints) } else { None };
        let Some(claims) = claims else { return self.derive_tables(old, new, footing) };
        if touched.services {
            self.name_services(old, new);
        }
        let mut served = BTreeSet::new();
        for id in &touched.endpoints {
            served.extend(self.name_endpoint(*id, claims.get(id).and_then(|claim| zone::endpoint(new, *id, claim))));
        }
        match touched.services {
            true => self.balance_all(new),
            false => self.balance(&served),
        }
        self.finish(new)
    }

    /// The services anew, of those that are balanced.
    fn balance(&mut self, services: &BTreeSet<Name>) {
        for name in services {
            let Some(held) = self.services.get(name) else { continue };
            match lb::service(&self.zone, name, &Balancing::of(held)) {
                Some(service) if *held == service => {}
                Some(service) => drop(self.services.insert(name.clone(), service)),
                None => drop(self.services.remove(name)),
            }
        }
    }

    fn balance_all(&mut self, known: Known<'_>) {
        let services = lb::services(known.section, &self.zone);
        if services != self.services {
            self.services = services;
        }
    }

    /// The tables anew; of the names, those that changed.
    fn derive_tables(self, old: Known<'_>, new: Known<'_>, footing: Footing) -> Option<Self> {
        let admission = Admission::of(new.knowledge, new.section, &footing);
        let all = [old, new].map(|known| known.section.local.keys().chain(known.section.remote.keys()));
        let all: BTreeSet<EndpointId> = all.into_iter().flatten().copied().collect();
        let nameless = zone::nameless(new.section);
        let alike = (nameless.network(), nameless.policy()) == (self.zone.network(), self.zone.policy());
        let state = PlaceState { view: self.state.view.clone(), ..sandbox(new, self.vni, &footing, &admission) };
        let state = if state == *self.state { self.state } else { Arc::new(state) };
        let endpoint = |id| zone::endpoint(new, id, admission.claim(id)?);
        let endpoints: Vec<_> = all.into_iter().map(|id| (id, endpoint(id))).collect();
        let part = Self::new((self.vni, footing), admission, if alike { self.zone } else { nameless }, state);
        let mut part = Self { services: self.services, mesh: self.mesh, ..part };
        part.name_services(old, new);
        for (id, endpoint) in endpoints {
            part.name_endpoint(id, endpoint);
        }
        part.balance_all(new);
        part.finish(new)
    }

    fn finish(mut self, known: Known<'_>) -> Option<Self> {
        let view = seen(known, &self.state, &self.zone);
        if self.state.view != view {
            Arc::make_mut(&mut self.state).view = view;
        }
        self.vips = lb::vips(&self.services);
        let before = self.mesh.take();
        self.mesh = self.segment().and_then(|segment| Mesh::of(known, segment, &self.zone, before));
        let ports = self.segment().is_some_and(|segment| !segment.ports.is_empty());
        ports.then_some(self)
    }

    pub(super) fn segment(&self) -> Option<&Segment> {
        self.state.vxlan.segments.get(&self.vni)
    }

    /// Changes the tables by what these endpoints had and have, which is given back. Where nobody has what another says it has, what
    /// each has does not depend on the others, so their order does not matter. `None` if that does not hold afterwards: then the part
    /// is half changed.
    fn patch<'k>(
        &mut self,
        old: Known<'_>,
        new: Known<'k>,
        of: &BTreeSet<EndpointId>,
    ) -> Option<BTreeMap<EndpointId, Claim<'k>>> {
        let (mut was, mut is) = (BTreeMap::new(), BTreeMap::new());
        for (id, claim) in self.claims(old, of) {
            self.unfit -= usize::from(!matches!(claim, Ok((_, None))));
            was.extend(claim.ok().map(|(claim, _)| (id, claim)));
        }
        was.values().for_each(|claim| self.taken.release(claim));
        for (id, claim) in self.claims(new, of) {
            self.unfit += usize::from(!matches!(claim, Ok((_, None))));
            match claim {
                Ok((claim, _)) if self.taken.conflict(&claim).is_none() => {
                    self.taken.take(&claim);
                    is.insert(id, claim);
                }
                Err(unfit) if !unfit.is_contended() => {}
                _ => return None,
            }
        }
        self.edit(new, &was, &is);
        Some(is)
    }

    /// What each of these endpoints has, if there were no other.
    fn claims<'k>(&self, known: Known<'k>, of: &BTreeSet<EndpointId>) -> Vec<(EndpointId, Alone<'k>)> {
        let free = Free::of(known.section);
        of.iter().filter_map(|id| Some((*id, alone(known, &free, &self.footing, *id)?))).collect()
    }

    fn edit(&mut self, new: Known<'_>, was: &BTreeMap<EndpointId, Claim<'_>>, is: &BTreeMap<EndpointId, Claim<'_>>) {
        let port = |id: &EndpointId| new.section.local.get(id).map(|local| vxlan::port(local));
        let segment = self.segment();
        let same = |id: &EndpointId| {
            let held = segment.and_then(|segment| segment.ports.get(id));
            was.get(id) == is.get(id) && held == port(id).filter(|_| is.contains_key(id)).as_ref()
        };
        let differ: BTreeSet<_> = was.keys().chain(is.keys()).filter(|id| !same(id)).copied().collect();
        if differ.is_empty() {
            return;
        }
        let PlaceState { vxlan, firewall, .. } = Arc::make_mut(&mut self.state);
        let Some(segment) = vxlan.segments.get_mut(&self.vni) else { return };
        for (id, claim) in differ.iter().filter_map(|id| was.get_key_value(id)) {
            match &claim.at {
                At::Port { device, .. } => {
                    segment.ports.remove(id);
                    firewall.ports.remove(device);
                }
                At::Vtep(_) => drop(segment.peers.remove(&claim.mac)),
            }
        }
        for (id, claim) in differ.iter().filter_map(|id| is.get_key_value(id)) {
            match &claim.at {
                At::Port { device, .. } => {
                    segment.ports.extend(port(id).map(|port| (*id, port)));
                    let local = new.section.local.get(id);
                    firewall
                        .ports
                        .extend(local.map(|local| (*device, firewall::bridge_port(new.section, local, claim))));
                }
                At::Vtep(vtep) => drop(segment.peers.insert(claim.mac, vxlan::peer(*vtep, claim))),
            }
        }
    }

    /// Names an endpoint as it is now, if it is in effect. The services that this matters to are given back.
    fn name_endpoint(&mut self, id: EndpointId, now: Option<Endpoint>) -> Vec<Name> {
        let was = self.zone.endpoint(id);
        if was == now.as_ref() {
            return Vec::new();
        }
        let served = [was, now.as_ref()].into_iter().flatten().filter_map(|endpoint| endpoint.service.as_ref());
        let served = served.map(Name::folded).collect();
        match now {
            Some(endpoint) => self.zone.put_endpoint(endpoint),
            None => self.zone.remove_endpoint(id),
        }
        served
    }

    fn name_services(&mut self, old: Known<'_>, new: Known<'_>) {
        let (was, is) = (zone::services(old.section), zone::services(new.section));
        for name in was.keys().chain(is.keys()) {
            let service = is.get(name).map(|service| zone::service(new.section, service));
            match service {
                Some(service) if self.zone.service(name) != Some(&service) => self.zone.put_service(service),
                None => self.zone.remove_service(name),
                Some(_) => {}
            }
        }
    }
}

type Alone<'k> = Result<(Claim<'k>, Option<Unfit>), Unfit>;

fn alone<'k>(known: Known<'k>, free: &Free<'_>, footing: &Footing, id: EndpointId) -> Option<Alone<'k>> {
    let section = known.section;
    if let Some(local) = section.local.get(&id) {
        return Some(Claim::of_local(section, free, footing.ground, id, local).map(|claim| (claim, None)));
    }
    let remote = section.remote.get(&id)?;
    let node = admission::node(known.knowledge, footing, remote);
    let peer = node.and_then(|node| Peer::of(free, node, (id, remote)));
    Some(peer.map(|(peer, unfit)| (peer.claim, unfit)))
}

/// The sandbox, but for the names that are seen there.
fn sandbox(known: Known<'_>, vni: Vni, footing: &Footing, admission: &Admission<'_>) -> PlaceState {
    PlaceState {
        vxlan: vxlan::state(known, vni, footing, admission),
        firewall: firewall::sandbox(vni, known.section, admission),
        ..PlaceState::default()
    }
}

/// What virtual machines see, whose place is the sandbox.
fn seen(known: Known<'_>, state: &PlaceState, zone: &Zone) -> overlay_dns::View {
    let ports = state.vxlan.segments.values().flat_map(|segment| segment.ports.values());
    let machines = ports.map(|port| &port.end).any(|end| matches!(end, PortEnd::Tap { .. }));
    if machines { container::view(known.knowledge, [zone]) } else { Default::default() }
}
