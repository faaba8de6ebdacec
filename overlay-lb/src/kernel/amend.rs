//! What differs between two values, lowered without the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{Change, Name, Port, Protocol, SharedMap, State as _};
use overlay_kernel::link::LocalStep;

use super::lower::{self, Class, Wanted};
use super::native::around;
use super::{Meaning, Native, NativeStep, Nftables};
use crate::{Ports, Service, State};

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
        let differ = was.len().max(is.len());
        if differ > FEW && 4 * differ > desired.services.len() {
            return None; // two lowerings of most cost more than one of all
        }
        let alone =
            State { services: is.iter().map(|(name, service)| ((*name).clone(), (*service).clone())).collect() };
        alone.check().ok()?;
        Nftables::capabilities().permit(&alone).ok()?;
        let mut taken = self.taken.clone();
        was.iter().for_each(|(_, service)| taken.take(service));
        is.iter().try_for_each(|(_, service)| taken.put(service))?;
        if !taken.classes.keys().eq(self.taken.classes.keys()) || !taken.is_sound(&is) {
            return None;
        }
        let slice = |services: Vec<(&Name, &'_ Service)>, of: &Taken| {
            let services: Vec<&Service> = services.into_iter().map(|(_, service)| service).collect();
            let vips = was.iter().chain(&is).flat_map(|(_, service)| service.vips.iter().copied());
            let vips = vips.filter(|vip| of.vips.contains_key(vip)).collect();
            lower::tables(&Wanted { services, vips, classes: taken.classes.keys().copied().collect() }).ok()
        };
        let tables = native.tables.amended(&slice(was.clone(), &self.taken)?, &slice(is.clone(), &taken)?)?;
        let state = Arc::new(desired.clone());
        let mut steps = around(&native.tables, tables, None, &Meaning(Some(Arc::clone(&state))));
        steps.extend(self.taken.locals(&taken, was.iter().chain(&is).map(|(_, service)| *service)));
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
    /// VIPs that are the namespace's own, and from where they are reached.
    locals: SharedMap<IpAddr, (IpAddr, u32)>,
    classes: BTreeMap<Class, u32>,
}

impl Taken {
    fn take(&mut self, service: &Service) {
        for vip in &service.vips {
            less(&mut self.vips, *vip);
            self.all.remove(vip);
            for served in named(service) {
                self.places.remove(&(*vip, served.protocol, served.port));
            }
        }
        addresses(service).for_each(|address| less(&mut self.addresses, address));
        for (vip, source) in lower::local(service) {
            match self.locals.get(&vip) {
                Some((_, 2..)) => drop(self.locals.get_mut(&vip).map(|(_, count)| *count -= 1)),
                Some((known, _)) if *known == source => drop(self.locals.remove(&vip)),
                _ => {}
            }
        }
        for class in lower::classes(service) {
            match self.classes.get_mut(&class) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.classes.remove(&class)),
            }
        }
    }

    /// Nothing if another service is where this one would be.
    fn put(&mut self, service: &Service) -> Option<()> {
        for vip in &service.vips {
            let alone = service.ports != Ports::All || !self.vips.contains_key(vip);
            let free = !self.all.contains_key(vip) && alone;
            let mut places = named(service).map(|it| self.places.insert((*vip, it.protocol, it.port), ()).is_none());
            (free && places.all(|free| free)).then_some(())?;
            more(&mut self.vips, *vip);
            if service.ports == Ports::All {
                self.all.insert(*vip, ());
            }
        }
        addresses(service).for_each(|address| more(&mut self.addresses, address));
        for (vip, source) in lower::local(service) {
            let (known, count) = self.locals.get(&vip).copied().unwrap_or((source, 0));
            (known == source).then_some(())?;
            self.locals.insert(vip, (source, count + 1));
        }
        lower::classes(service).for_each(|class| *self.classes.entry(class).or_default() += 1);
        Some(())
    }

    /// Whether no address is a VIP's and somebody's behind one, as far as these services have a part in it.
    fn is_sound(&self, services: &[(&Name, &Service)]) -> bool {
        services.iter().all(|(_, service)| {
            addresses(service).all(|address| !self.vips.contains_key(&address))
                && service.vips.iter().all(|vip| !self.addresses.contains_key(vip))
        })
    }

    /// What changes of the VIPs of some services until `then`.
    fn locals<'s>(&self, then: &Self, services: impl Iterator<Item = &'s Service>) -> Vec<NativeStep> {
        let vips: BTreeSet<IpAddr> = services.flat_map(|service| service.vips.iter().copied()).collect();
        let source = |of: &Self, vip: &IpAddr| of.locals.get(vip).map(|(source, _)| *source);
        let step = |vip: &IpAddr| match (source(self, vip), source(then, vip)) {
            (was, Some(source)) if was != Some(source) => Some(LocalStep::Put(*vip, source)),
            (Some(_), None) => Some(LocalStep::Remove(*vip)),
            _ => None,
        };
        vips.iter().filter_map(step).map(NativeStep::Local).collect()
    }
}

fn named(service: &Service) -> impl Iterator<Item = &crate::ServedPort> {
    let named = match &service.ports {
        Ports::All => None,
        Ports::Named(named) => Some(named),
    };
    named.into_iter().flatten()
}

fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    service.replicas.values().flat_map(|replica| &replica.addresses).chain(&service.source).copied()
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
