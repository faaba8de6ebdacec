//! From services to tables. A pure function.
//!
//! A service is elements of sets and maps, never a chain and never a rule, so that one costs the same among ten thousand, and a change is
//! elements. A *class* is how many numbers there are, and what they are drawn from. It has one rule, which is for the VIPs and ports of a set, draws
//! a number, and looks up who gets the flow by VIP, port and number. No map of verdicts leads to it: the kernel looks through a whole one whenever
//! one element more leads to a chain (of 10,000, two thirds of what a change of one service cost); and there are few classes, however many services.

mod affinity;
mod arrivals;
mod class;
mod draft;
mod marks;
mod published;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::{IpFamily, Protocol, Refusal};
use overlay_kernel::link::Locals;
use overlay_kernel::nft::{
    self, Base, CtState, Family, Field, Hook, IfIndex, IpProtocol, Mark, Reject, Rule, Set, TableKey, Unreachable,
    Verdict, ct, jhash, meta, numgen_increment, th,
};

use self::affinity::Stays;
pub(super) use self::affinity::{Affine, affine, vouching};
pub(super) use self::class::{Class, SLOTS_EACH};
use self::class::{Draws, Reach, Slots};
pub(super) use self::draft::name;
use self::draft::{Draft, rule};
pub(super) use self::marks::{at_all_ports, marks};
use self::published::Hooks;
pub(super) use self::published::{REPLICAS, leads, place};
pub(super) use self::version::Published;
use self::version::{V4, V6, Version};
use crate::{Arrivals, Condition, Ports, Service, State};

/// The table in which the services stand.
pub(super) fn key() -> Result<TableKey, Refusal> {
    Ok(TableKey::new(Family::Inet, name("services")?))
}

/// The table whose presence says that flows are still to be cut.
pub(super) fn grave() -> Result<TableKey, Refusal> {
    Ok(TableKey::new(Family::Inet, name("withdrawn")?))
}

/// What the services of a state have, of which the tables are made.
pub(super) struct Wanted<'s> {
    pub(super) services: Vec<&'s Service>,
    pub(super) vips: BTreeSet<IpAddr>,
    /// The classes there are to be, whether a service is of them or not.
    pub(super) classes: BTreeSet<Class>,
    /// The affinities, likewise.
    pub(super) affines: BTreeSet<Affine>,
    pub(super) places: Places,
    pub(super) arrivals: Option<&'s Arrivals>,
}

/// Where VIPs are, which says where packets for them are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Places {
    /// Whether one is the namespace's own.
    pub(super) here: bool,
    /// Whether one is not.
    pub(super) elsewhere: bool,
}

impl<'s> Wanted<'s> {
    pub(super) fn all(state: &'s State) -> Self {
        let services: Vec<_> = state.services.values().collect();
        let vips: BTreeSet<IpAddr> = services.iter().flat_map(|it| it.vips.iter().copied()).collect();
        Self {
            classes: services.iter().flat_map(|it| classes(it)).collect(),
            affines: services.iter().flat_map(|it| affine(it)).collect(),
            places: Places::of(vips.len(), state.sources.len()),
            arrivals: state.arrivals.as_ref(),
            vips,
            services,
        }
    }
}

impl Places {
    /// Of so many VIPs, of which so many have a source.
    pub(super) const fn of(vips: usize, sources: usize) -> Self {
        Self { here: sources > 0, elsewhere: vips > sources }
    }
}

/// The classes that a service is of: one for each family at most.
pub(super) fn classes(service: &Service) -> impl Iterator<Item = Class> {
    let families = [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| service.serves(*family));
    families.filter_map(|family| Slots::of(service, family)).map(|slots| slots.class)
}

/// The VIPs that are a namespace's own.
pub(super) fn locals(state: &State) -> Locals {
    Locals(state.sources.iter().map(|(vip, source)| (*vip, *source)).collect())
}

/// The tables that mean these services.
pub(super) fn tables(wanted: &Wanted<'_>) -> Result<nft::State, Refusal> {
    let mut native = nft::State::default();
    let published = wanted.services.iter().any(|service| service.is_published());
    if wanted.vips.is_empty() && !published && wanted.arrivals.is_none() {
        return Ok(native);
    }
    let mut draft = Draft::default();
    let (mut first, mut refuse) = (Vec::new(), Vec::new());
    let mut looks = of_version::<V4>(&mut draft, wanted, (&mut first, &mut refuse))?;
    looks.extend(of_version::<V6>(&mut draft, wanted, (&mut first, &mut refuse))?);
    affinity::look(&mut draft, looks)?;
    let mut hooks = Hooks { arriving: first.clone(), own: first, ..Hooks::default() };
    if published {
        published::services(&mut draft, wanted, &mut hooks)?;
    }
    let Hooks { mut arriving, own, mut input, leaving } = hooks;
    if let Some(arrivals) = wanted.arrivals {
        arrivals::flows(&mut draft, arrivals, &mut arriving)?;
    }
    translate(&mut draft, ("arriving", Hook::Prerouting), arriving)?;
    translate(&mut draft, ("own", Hook::Output), own)?;
    if !leaving.is_empty() {
        draft.chain("leaving", Base::nat(Hook::Postrouting, MASQUERADE), leaving)?;
    }
    let refuse = draft.part("refuse", refuse)?;
    if wanted.places.here {
        // Whatever is for a VIP of ours and was not translated comes by the loopback device; what replicas say does not.
        input.push(unanswered()?.eq(&meta::IIF, IfIndex::LOOPBACK).jump(&refuse));
    }
    if !input.is_empty() {
        draft.chain("refuse-input", Base::filter(Hook::Input, REFUSE), input)?;
    }
    if wanted.places.elsewhere {
        draft.chain("refuse-forward", Base::filter(Hook::Forward, REFUSE), vec![unanswered()?.jump(&refuse)])?;
        let leaving = unanswered()?.ne(&meta::OIF, IfIndex::LOOPBACK).jump(&refuse);
        draft.chain("refuse-output", Base::filter(Hook::Output, REFUSE), vec![leaving])?;
    }
    native.tables.insert(key()?, draft.finished());
    Ok(native)
}

/// What begins is led to who serves it; and once more if it was not, which costs other flows a look and ours nothing.
///
/// A packet runs by the rules of when its chain began, and sees the elements of when it looks. So one that is on its way while a service comes to
/// another class, as by each replica that comes or goes, finds it in neither, and would be refused. The next chain has it.
fn translate(draft: &mut Draft, (name, hook): (&str, Hook), rules: Vec<Rule>) -> Result<(), Refusal> {
    draft.chain(name, Base::nat(hook, TRANSLATE), rules.clone())?;
    draft.chain(&format!("{name}-again"), Base::nat(hook, TRANSLATE + 1), rules)
}

/// Not of a flow that was answered: such a one was translated when it began, or began before there was a service, and packets of it are most.
fn unanswered() -> Result<Rule, Refusal> {
    Ok(rule("refused")?.none(&ct::STATE, CtState::ESTABLISHED | CtState::RELATED))
}

fn of_version<V: Version>(
    draft: &mut Draft,
    wanted: &Wanted<'_>,
    (first, refuse): (&mut Vec<Rule>, &mut Vec<Rule>),
) -> Result<Vec<Rule>, Refusal> {
    let here = |vip: &&IpAddr| V::address(**vip).is_some();
    if !wanted.vips.iter().any(|vip| here(&vip)) {
        return Ok(Vec::new());
    }
    let mut elements = Elements::<V>::default();
    for service in &wanted.services {
        service
            .vips
            .iter()
            .filter_map(|vip| V::address(*vip).map(|it| (vip, it)))
            .try_for_each(|(vip, at)| elements.add(service, (*vip, at)))?;
    }
    let classes = wanted.classes.iter().filter(|class| class.family == V::FAMILY);
    let served = elements.classes(draft, classes.filter(|class| class.reach != Reach::Published))?;
    let vips = draft.set(&V::named("vips"), Set::of(wanted.vips.iter().filter_map(|vip| V::address(*vip))))?;
    draft.set(&V::named("drains"), Set::of(elements.drains))?;
    draft.set(&V::named("drains-all"), Set::of(elements.drains_all))?;
    let transports = draft.set("transports", Set::of([IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP]))?;
    let (to, protocol) = (V::destination(), meta::L4PROTO);

    let affines: Vec<Affine> = wanted.affines.iter().filter(|it| it.family == V::FAMILY).copied().collect();
    let looks = affinity::write::<V>(draft, &affines, elements.stays, first)?;
    let served = draft.part(&V::named("served"), served)?;
    first.push(V::only(rule("served")?).is_in(&to, &vips).is_in(&protocol, &transports).jump(&served));

    let refused = || rule("refused").map(|rule| V::only(rule).is_in(&to, &vips));
    refuse.push(refused()?.eq(&protocol, IpProtocol::TCP).reject(Reject::TcpReset));
    refuse.push(refused()?.is_in(&protocol, &transports).reject(Reject::Unreachable(Unreachable::Port)));
    Ok(looks)
}

/// A VIP, a protocol and a port.
type Place<V> = (<V as Version>::Address, IpProtocol, u16);

/// By the size of its class: elements of a map.
type Slotted<K, T> = BTreeMap<u32, Vec<(K, T)>>;

/// What the services of a family are in maps.
struct Elements<V: Version> {
    /// Of each class.
    served: BTreeMap<Class, Vec<Place<V>>>,
    served_all: BTreeMap<Class, Vec<V::Address>>,
    slots: Slotted<V::Slot, V::Target>,
    slots_all: Slotted<(V::Address, Mark), V::Address>,
    drains: Vec<V::Drain>,
    drains_all: Vec<(V::Address, V::Address)>,
    stays: Stays<V>,
}

impl<V: Version> Default for Elements<V> {
    fn default() -> Self {
        Self {
            served: BTreeMap::new(),
            served_all: BTreeMap::new(),
            slots: BTreeMap::new(),
            slots_all: BTreeMap::new(),
            drains: Vec::new(),
            drains_all: Vec::new(),
            stays: Stays::default(),
        }
    }
}

impl<V: Version> Elements<V> {
    fn add(&mut self, service: &Service, (vip, at): (IpAddr, V::Address)) -> Result<(), Refusal> {
        let slots = Slots::of(service, IpFamily::of(vip));
        let class = slots.as_ref().map(|slots| slots.class);
        let numbered = || {
            let slots = slots.iter().flat_map(|slots| &slots.takers).filter_map(|taker| V::address(*taker));
            (0_u32..).map(Mark).zip(slots)
        };
        let size = slots.as_ref().map_or(0, |slots| slots.class.size);
        let draining = service.replicas.values().filter(|replica| replica.condition == Condition::Draining);
        let draining: Vec<_> = draining.filter_map(|it| V::address(it.address(V::FAMILY)?)).collect();
        let stay = Self::staying(service)?;
        match &service.ports {
            Ports::All => {
                class.into_iter().for_each(|class| self.served_all.entry(class).or_default().push(at));
                self.slots_all.entry(size).or_default().extend(numbered().map(|(slot, to)| ((at, slot), to)));
                self.drains_all.extend(draining.iter().map(|replica| (at, *replica)));
                self.stays.all.extend(stay.iter().map(|(to, verdict)| ((at, *to), verdict.clone())));
            }
            Ports::Named(named) => {
                for served in named {
                    let (protocol, port, target) =
                        (protocol_of(served.protocol), served.port.get(), served.target.get());
                    let place = (at, protocol, port);
                    class.into_iter().for_each(|class| self.served.entry(class).or_default().push(place));
                    let slots =
                        numbered().map(|(slot, to)| (V::slot((at, protocol, port), slot), V::target(to, target)));
                    self.slots.entry(size).or_default().extend(slots);
                    self.drains.extend(draining.iter().map(|it| V::drain((at, protocol, port), (*it, target))));
                    let stay = stay.iter().map(|(to, verdict)| (V::drain(place, (*to, target)), verdict.clone()));
                    self.stays.named.extend(stay);
                }
            }
        }
        Ok(())
    }

    /// Who takes new flows of a service whose clients are remembered, and what remembers them.
    fn staying(service: &Service) -> Result<Vec<(V::Address, Verdict)>, Refusal> {
        let Some(affine) = affine(service).find(|affine| affine.family == V::FAMILY) else { return Ok(Vec::new()) };
        let verdict = affine.verdict()?;
        let takers = service.takers(V::FAMILY).filter_map(|(_, _, address)| V::address(address));
        Ok(takers.map(|taker| (taker, verdict.clone())).collect())
    }

    /// The sets and maps of classes, and their rules: those of a port before those of all.
    fn classes<'c>(&self, draft: &mut Draft, classes: impl Iterator<Item = &'c Class>) -> Result<Vec<Rule>, Refusal> {
        let mut rules = Vec::new();
        for class in classes {
            let number = draw::<V>(*class);
            let named = rule(&class.name()).map(V::only)?; // `nft` must be told the family to read the rule
            rules.push(match class.reach {
                Reach::Named => {
                    let served = Set::of(self.served.get(class).into_iter().flatten().copied());
                    let served = draft.set(&class.name(), served)?;
                    let slots = Set::map(self.slots.get(&class.size).cloned().unwrap_or_default());
                    let slots = draft.set(&class.map(), slots)?;
                    let place = (V::destination(), meta::L4PROTO, th::DPORT);
                    let slot = (V::destination(), meta::L4PROTO, th::DPORT, number);
                    named.is_in(&place, &served).dnat_by::<V::Target, _>(&slot, &slots)
                }
                Reach::All => {
                    let served = Set::of(self.served_all.get(class).into_iter().flatten().copied());
                    let served = draft.set(&class.name(), served)?;
                    let slots = Set::map(self.slots_all.get(&class.size).cloned().unwrap_or_default());
                    let slots = draft.set(&class.map(), slots)?;
                    let slot = (V::destination(), number);
                    named.is_in(&V::destination(), &served).dnat_by::<V::Address, _>(&slot, &slots)
                }
                Reach::Published => continue, // they have elements of their own
            });
        }
        Ok(rules)
    }
}

/// The number that a rule draws.
fn draw<V: Version>(class: Class) -> Field<Mark> {
    match class.draws {
        Draws::Turns => numgen_increment(class.size),
        Draws::Source => jhash(&V::source(), class.size, SEED),
        Draws::Flow => jhash(&(V::source(), th::SPORT), class.size, SEED),
    }
}

/// Whether a set of VIPs has one.
pub(super) fn has_vip(set: &Set, vip: IpAddr) -> bool {
    match vip {
        IpAddr::V4(vip) => set.contains(&vip),
        IpAddr::V6(vip) => set.contains(&vip),
    }
}

const fn protocol_of(of: Protocol) -> IpProtocol {
    match of {
        Protocol::Tcp => IpProtocol::TCP,
        Protocol::Udp => IpProtocol::UDP,
        Protocol::Sctp => IpProtocol::SCTP,
    }
}

/// Before translations of others, and of a firewall's published ports.
const TRANSLATE: i32 = Base::DSTNAT - 8;
/// Before sources are translated by others, and by a firewall.
const MASQUERADE: i32 = Base::SRCNAT - 8;
/// When destinations were translated.
const REFUSE: i32 = Base::FILTER - 20;
/// The same everywhere, so that all make the same choice for the same packet.
const SEED: u32 = 0x6c62;
