//! What differs between two values, lowered without the rest.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay_core::{Change, Name, Protocol, SharedMap};

use super::native::around;
use super::{Meaning, Native, NativeStep, lower};
use crate::check::{self, Place};
use crate::{BridgePort, Limit, Member, Policy, Published, State, Tunnel};

/// The value that the tables were made for.
pub(super) struct Last {
    state: Arc<State>,
    taken: Taken,
}

impl Last {
    /// Remembers a value that passed its check.
    pub(super) fn new(state: &State) -> Self {
        Self { taken: Taken::of(state), state: Arc::new(state.clone()) }
    }

    /// The steps from tables that mean this value to those that mean another, and that one to remember; nothing where more
    /// than elements of sets may differ, or where the other may make no sense.
    ///
    /// Rules look into sets, and each object is elements of them that depend on no other object. So it is enough to
    /// lower what differs, before and after, with as little of the rest as gives the same rules.
    pub(super) fn amend(&self, native: &Native, desired: &State) -> Option<(Vec<NativeStep>, Self)> {
        let [before, after] = slices(&self.state, desired)?;
        let differ = objects(&before).max(objects(&after));
        if differ > FEW && 4 * differ > objects(desired) {
            return None; // two lowerings of most cost more than one of all
        }
        let taken = self.taken.after(&before, &after)?;
        check::state(&after).ok()?;
        let (was, is) = (lower::tables(&before).ok()?, lower::tables(&after).ok()?);
        let rules = native.tables.amended(&was, &is)?;
        let state = Arc::new(desired.clone());
        let steps = around(&native.tables, rules, &Meaning(Some(Arc::clone(&state))));
        Some((steps, Self { state, taken }))
    }
}

/// As many objects that differ are always lowered by themselves.
const FEW: usize = 64;

fn objects(of: &State) -> usize {
    of.ports.len() + of.published.len() + of.policy.members.len()
}

/// Two values without what both have, but for one object of each kind, so that what depends on there being any is the same.
/// Nothing if they differ in more than bridge ports, published ports and members.
fn slices(last: &State, desired: &State) -> Option<[State; 2]> {
    let alike = last.gateways == desired.gateways
        && last.tunnels == desired.tunnels
        && last.esp == desired.esp
        && last.limits == desired.limits
        && last.strangers == desired.strangers
        && last.admin == desired.admin
        && last.policy.otherwise == desired.policy.otherwise
        && last.policy.rules == desired.policy.rules;
    let (mut before, mut after) = (alike.then(|| frame(desired))?, frame(desired));
    parted(last.ports.diff(&desired.ports), (&mut before.ports, &mut after.ports));
    parted(last.policy.members.diff(&desired.policy.members), (&mut before.policy.members, &mut after.policy.members));
    parted(last.published.diff(&desired.published), (&mut before.published, &mut after.published));
    let ports = desired.ports.iter().find(|(device, _)| !after.ports.contains_key(*device));
    let published = desired.published.iter().find(|(name, _)| !after.published.contains_key(*name));
    let also = sharing(&before.published, &desired.published)
        .filter(|(name, _)| last.published.get(*name) == desired.published.get(*name));
    let also: Vec<_> = also.chain(published).collect();
    for slice in [&mut before, &mut after] {
        slice.ports.extend(ports.map(|(device, port)| (*device, port.clone())));
        slice.published.extend(also.iter().map(|(name, published)| ((*name).clone(), (*published).clone())));
    }
    Some([before, after])
}

/// A value with the same rules, and as little as possible for them to look up.
fn frame(of: &State) -> State {
    let none = BTreeSet::new;
    let tunnel = |tunnel: &Tunnel| Tunnel {
        members: none(),
        encrypted: tunnel.encrypted.first().copied().into_iter().collect(),
    };
    let limit = |limit: &Limit| Limit { members: none(), ..limit.clone() };
    State {
        gateways: of.gateways.iter().take(1).map(|(device, gateway)| (*device, gateway.clone())).collect(),
        tunnels: of.tunnels.iter().map(|(port, it)| (*port, tunnel(it))).collect(),
        esp: of.esp.as_ref().map(|_| none()),
        limits: of.limits.iter().map(|(name, it)| (name.clone(), limit(it))).collect(),
        strangers: of.strangers,
        admin: of.admin,
        policy: Policy { otherwise: of.policy.otherwise, rules: of.policy.rules.clone(), members: SharedMap::new() },
        ..State::default()
    }
}

fn parted<'a, K: Ord + Clone + 'a, V: Clone + 'a>(
    changes: impl Iterator<Item = Change<'a, K, V>>,
    (before, after): (&mut SharedMap<K, V>, &mut SharedMap<K, V>),
) {
    for change in changes {
        let (key, old, new) = match change {
            Change::Add(key, new) => (key, None, Some(new)),
            Change::Replace(key, old, new) => (key, Some(old), Some(new)),
            Change::Remove(key, old) => (key, Some(old), None),
        };
        before.extend(old.map(|old| (key.clone(), old.clone())));
        after.extend(new.map(|new| (key.clone(), new.clone())));
    }
}

/// Published ports that some of the elements of others are elements of too: they lead to the same target, or are of
/// the same number for this machine alone.
fn sharing<'a>(
    of: &SharedMap<Name, Published>,
    among: &'a SharedMap<Name, Published>,
) -> impl Iterator<Item = (&'a Name, &'a Published)> {
    let ends = |it: &Published| -> Vec<(Protocol, SocketAddr)> {
        check::places(it).map(|((protocol, ..), target)| (protocol, target)).collect()
    };
    let local = |it: &Published| it.bind.is_loopback().then_some((it.protocol, it.port));
    let targets: BTreeSet<_> = of.values().flat_map(ends).collect();
    let locals: BTreeSet<_> = of.values().filter_map(local).collect();
    let among = if of.is_empty() { None } else { Some(among) };
    among.into_iter().flatten().filter(move |(_, it)| {
        check::places(it).any(|((protocol, ..), target)| targets.contains(&(protocol, target)))
            || local(it).is_some_and(|local| locals.contains(&local))
    })
}

/// What no two objects may have.
#[derive(Clone)]
struct Taken {
    /// By ports of bridges.
    addresses: SharedMap<IpAddr, ()>,
    /// By members of a policy.
    members: SharedMap<IpAddr, ()>,
    /// By published ports.
    places: SharedMap<Place, ()>,
}

impl Taken {
    fn of(state: &State) -> Self {
        Self {
            addresses: addresses(state).map(|address| (address, ())).collect(),
            members: members(state).map(|address| (address, ())).collect(),
            places: places(state).map(|place| (place, ())).collect(),
        }
    }

    /// The same when some objects have become others, unless two have the same thing then.
    fn after(&self, before: &State, after: &State) -> Option<Self> {
        let mut taken = self.clone();
        moved(&mut taken.addresses, addresses(before), addresses(after))?;
        moved(&mut taken.members, members(before), members(after))?;
        moved(&mut taken.places, places(before), places(after))?;
        Some(taken)
    }
}

fn moved<K: Ord + Clone>(
    taken: &mut SharedMap<K, ()>,
    before: impl Iterator<Item = K>,
    after: impl Iterator<Item = K>,
) -> Option<()> {
    before.for_each(|key| {
        taken.remove(&key);
    });
    let mut after = after;
    after.all(|key| taken.insert(key, ()).is_none()).then_some(())
}

fn addresses(of: &State) -> impl Iterator<Item = IpAddr> + '_ {
    let pins = of.ports.values().filter_map(|port| match port {
        BridgePort::Pinned(pin) => Some(pin),
        BridgePort::Trunk => None,
    });
    pins.flat_map(|pin| pin.addresses.iter().copied())
}

fn members(of: &State) -> impl Iterator<Item = IpAddr> + '_ {
    of.policy.members.values().flat_map(|member: &Member| member.addresses.iter().copied())
}

fn places(of: &State) -> impl Iterator<Item = Place> + '_ {
    of.published.values().flat_map(check::places).map(|(place, _)| place)
}

#[cfg(test)]
#[path = "amend_tests.rs"]
mod tests;
