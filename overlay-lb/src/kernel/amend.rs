//! What differs between two values, lowered without the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{Change, Name, Port, Protocol, SharedMap, State as _};
use overlay_kernel::link::LocalStep;

use super::lower::{self, Affine, Class, Places, Wanted};
use super::native::around;
use super::{Meaning, Native, NativeStep, Nftables};
use crate::{Ports, Service, State, check};

/// The value that the tables were made for.
pub(super) struct Last {
    state: Arc<State>,
    taken: Taken,
}

impl Last {
    /// Remembers a value that passed its check.
    pub(super) fn new(state: &State) -> Self {
        let mut taken = Taken::default();
        for service in state.services.values() {
            let free = taken.put(service);
            debug_assert!(free.is_some(), "it passed its check");
        }
        state.sources.values().for_each(|source| more(&mut taken.addresses, *source));
        Self { taken, state: Arc::new(state.clone()) }
    }

    /// The steps from what means this value to what means another, and that one to remember; nothing where more than elements may
    /// differ, or where the other may make no sense.
    ///
    /// A service's elements depend on no other service. What services share (VIPs, classes) is counted.
    pub(super) fn amend(&self, native: &Native, desired: &State) -> Option<(Vec<NativeStep>, Self)> {
        let (mut was, mut is) = (Vec::<(&Name, &Service)>::new(), Vec::<(&Name, &Service)>::new());
        for change in self.state.services.diff(&desired.services) {
            let (name, old, new) = match change {
                Change::Add(name, new) => (name, None, Some(new)),
                Change::Replace(name, old, new) => (name, Some(old), Some(new)),
                Change::Remove(name, old) => (name, Some(old), None),
            };
            was.extend(old.map(|old| (name, old)));
            is.extend(new.map(|new| (name, new)));
        }
        if was.iter().chain(&is).any(|(_, service)| service.is_published()) || self.state.arrivals != desired.arrivals {
            return None; // a node's published services are few
        }
        let differ = was.len().max(is.len());
        if differ > FEW && 4 * differ > desired.services.len() {
            return None; // two lowerings of most cost more than one of all
        }
        let services = is.iter().map(|(name, service)| ((*name).clone(), (*service).clone())).collect();
        let alone = State { services, ..State::default() };
        alone.check().ok()?;
        Nftables::capabilities().permit(&alone).ok()?;
        let mut taken = self.taken.clone();
        was.iter().for_each(|(_, service)| taken.take(service));
        is.iter().try_for_each(|(_, service)| taken.put(service))?;
        let locals = taken.reach(&self.state, desired)?;
        let places = Places::of(taken.vips.len(), desired.sources.len());
        let alike = taken.classes.keys().eq(self.taken.classes.keys())
            && taken.affines.keys().eq(self.taken.affines.keys())
            && places == Places::of(self.taken.vips.len(), self.state.sources.len());
        if !alike || !taken.is_sound(&is) {
            return None;
        }
        let withdrawn = was.iter().flat_map(|(_, service)| &service.vips).filter(|vip| !taken.vips.contains_key(vip));
        if withdrawn.into_iter().any(|vip| desired.sources.contains_key(vip)) {
            return None;
        }
        let slice = |services: Vec<(&Name, &'_ Service)>, of: &Taken| {
            let services: Vec<&Service> = services.into_iter().map(|(_, service)| service).collect();
            let vips = was.iter().chain(&is).flat_map(|(_, service)| service.vips.iter().copied());
            let vips = vips.filter(|vip| of.vips.contains_key(vip)).collect();
            let (classes, affines) = (taken.classes.keys().copied().collect(), taken.affines.keys().copied().collect());
            lower::tables(&Wanted { services, vips, classes, affines, places, arrivals: None }).ok()
        };
        let tables = native.tables.amended(&slice(was.clone(), &self.taken)?, &slice(is.clone(), &taken)?)?;
        let state = Arc::new(desired.clone());
        let mut steps = around(&native.tables, tables, &Meaning(Some(Arc::clone(&state))));
        steps.extend(locals.into_iter().map(NativeStep::Local));
        Some((steps, Self { state, taken }))
    }
}

/// What services have that others may have too, or may not; each with how many have it.
#[derive(Clone, Default)]
struct Taken {
    vips: SharedMap<IpAddr, u32>,
    /// Of replicas, and sources.
    addresses: SharedMap<IpAddr, u32>,
    /// VIPs of which one service has all ports.
    all: SharedMap<IpAddr, ()>,
    places: SharedMap<(IpAddr, Protocol, Port), ()>,
    classes: BTreeMap<Class, u32>,
    affines: BTreeMap<Affine, u32>,
}

impl Taken {
    fn take(&mut self, service: &Service) {
        for vip in &service.vips {
            less(&mut self.vips, *vip);
            self.all.remove(vip);
            for served in service.ports.named() {
                self.places.remove(&(*vip, served.protocol, served.port));
            }
        }
        addresses(service).for_each(|address| less(&mut self.addresses, address));
        lower::classes(service).for_each(|class| one_less(&mut self.classes, &class));
        lower::affine(service).for_each(|affine| one_less(&mut self.affines, &affine));
    }

    /// Nothing if another service is where this one would be.
    fn put(&mut self, service: &Service) -> Option<()> {
        for vip in &service.vips {
            let alone = service.ports != Ports::All || !self.vips.contains_key(vip);
            let free = !self.all.contains_key(vip) && alone;
            let mut places =
                service.ports.named().map(|it| self.places.insert((*vip, it.protocol, it.port), ()).is_none());
            (free && places.all(|free| free)).then_some(())?;
            more(&mut self.vips, *vip);
            if service.ports == Ports::All {
                self.all.insert(*vip, ());
            }
        }
        addresses(service).for_each(|address| more(&mut self.addresses, address));
        lower::classes(service).for_each(|class| *self.classes.entry(class).or_default() += 1);
        lower::affine(service).for_each(|affine| *self.affines.entry(affine).or_default() += 1);
        Some(())
    }

    /// Whether no address is a VIP's and somebody's behind one, as far as these services have a part in it.
    fn is_sound(&self, services: &[(&Name, &Service)]) -> bool {
        services.iter().all(|(_, service)| {
            addresses(service).all(|address| !self.vips.contains_key(&address))
                && service.vips.iter().all(|vip| !self.addresses.contains_key(vip))
        })
    }

    /// Takes the sources of one value for those of another, and says what changes of the VIPs; nothing if one makes no sense.
    fn reach(&mut self, from: &State, to: &State) -> Option<Vec<LocalStep>> {
        let mut steps = Vec::new();
        for change in from.sources.diff(&to.sources) {
            let (old, new) = match change {
                Change::Add(vip, new) => (None, Some((*vip, *new))),
                Change::Replace(vip, old, new) => (Some(*old), Some((*vip, *new))),
                Change::Remove(vip, old) => {
                    steps.push(LocalStep::Remove(*vip));
                    (Some(*old), None)
                }
            };
            old.into_iter().for_each(|old| less(&mut self.addresses, old));
            if let Some((vip, source)) = new {
                check::source(vip, source, |address| self.vips.contains_key(&address)).ok()?;
                more(&mut self.addresses, source);
                steps.push(LocalStep::Put(vip, source));
            }
        }
        Some(steps)
    }
}

fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    service.replicas.values().flat_map(|replica| &replica.addresses).copied()
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(counts.remove(key)),
    }
}

fn more(counts: &mut SharedMap<IpAddr, u32>, key: IpAddr) {
    let count = counts.get(&key).copied().unwrap_or_default();
    counts.insert(key, count + 1);
}

fn less(counts: &mut SharedMap<IpAddr, u32>, key: IpAddr) {
    match counts.get(&key).copied() {
        Some(count) if count > 1 => drop(counts.insert(key, count - 1)),
        _ => drop(counts.remove(&key)),
    }
}

/// As many services that differ are always lowered by themselves.
const FEW: usize = 64;
