//! Clients that come back to their replica.
//!
//! A map that rules fill leads from a client and a place to the replica, and is asked before anybody is drawn. A flow's first packet fills it once
//! it was translated, if its replica takes new flows still: then it *stays*, which is a map too. Who drains or goes is taken
//! out of what was remembered, before flows are cut.

use overlay_core::{IpFamily, Name, Refusal};
use overlay_kernel::nft::{Base, CtDirection, CtState, CtStatus, Hook, IpProtocol, Rule, Set, Verdict, ct, meta, th};

use super::class::Reach;
use super::draft::{Draft, name, rule};
use super::version::Version;
use crate::{Ports, Service};

/// Services of one family whose clients are remembered for as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) struct Affine {
    pub(super) family: IpFamily,
    reach: Reach,
    seconds: u32,
}

/// What the affinities of a service are: one for each family at most.
pub(in crate::kernel) fn affine(service: &Service) -> impl Iterator<Item = Affine> + '_ {
    let reach = if service.ports == Ports::All { Reach::All } else { Reach::Named };
    let seconds = service.affinity.map(|affinity| u32::try_from(affinity.timeout.as_secs()).unwrap_or(u32::MAX));
    let families = service.vips.iter().map(|vip| IpFamily::of(*vip));
    families.filter_map(move |family| Some(Affine { family, reach, seconds: seconds? }))
}

impl Affine {
    /// The chain of the rule that fills the map.
    fn chain(&self) -> Result<Name, Refusal> {
        name(&format!("remember{}-{}", self.reach.suffix(self.family), self.seconds))
    }

    /// What leads to it.
    pub(super) fn verdict(&self) -> Result<Verdict, Refusal> {
        self.chain().map(Verdict::Goto)
    }
}

/// What a map of clients is held to, by the map's name; nothing for other sets.
pub(in crate::kernel) fn vouching(map: &Name) -> Option<Name> {
    name(&format!("stays{}", map.as_str().strip_prefix("affinity")?)).ok()
}

/// A VIP, and who is behind it or comes to it.
type Behind<V> = (<V as Version>::Address, <V as Version>::Address);

/// Who stays: elements of maps.
pub(super) struct Stays<V: Version> {
    pub(super) named: Vec<(V::Drain, Verdict)>,
    pub(super) all: Vec<(Behind<V>, Verdict)>,
}

impl<V: Version> Default for Stays<V> {
    fn default() -> Self {
        Self { named: Vec::new(), all: Vec::new() }
    }
}

/// The maps and rules of all that are remembered so: those that ask what was remembered come first, those that look whether something is to
/// be are given back.
pub(super) fn write<V: Version>(
    draft: &mut Draft,
    affines: &[Affine],
    stays: Stays<V>,
    first: &mut Vec<Rule>,
) -> Result<Vec<Rule>, Refusal> {
    let of = |reach| affines.iter().filter(|affine| affine.reach == reach).copied().collect::<Vec<_>>();
    let (named, all) = (of(Reach::Named), of(Reach::All));
    let mut looks = Vec::new();
    if !named.is_empty() {
        looks.push(by_port::<V>(draft, &named, stays.named, first)?);
    }
    if !all.is_empty() {
        looks.push(whole::<V>(draft, &all, stays.all, first)?);
    }
    Ok(looks)
}

/// Where ports are named: each is remembered by itself, with the replica's port.
fn by_port<V: Version>(
    draft: &mut Draft,
    affines: &[Affine],
    stays: Vec<(V::Drain, Verdict)>,
    first: &mut Vec<Rule>,
) -> Result<Rule, Refusal> {
    let suffix = Reach::Named.suffix(V::FAMILY);
    let map = Set::filled::<(V::Address, V::Address, IpProtocol, u16), (V::Address, u16)>();
    let map = draft.set(&format!("affinity{suffix}"), map)?;
    let stays = draft.set(&format!("stays{suffix}"), Set::verdicts(stays))?;
    let asked = (V::source(), V::destination(), meta::L4PROTO, th::DPORT);
    first.push(rule("remembered").map(V::only)?.dnat_by::<V::Target, _>(&asked, &map));

    let (vip, port) = (V::original_destination(), ct::proto_dst(CtDirection::Original));
    let client = (V::source(), vip.clone(), meta::L4PROTO, port.clone());
    let replica = (V::destination(), th::DPORT);
    for affine in affines {
        let fills = rule("fills").map(V::only)?.update((&client, &replica), &map, affine.seconds);
        draft.chain_of(&affine.chain()?, vec![fills]);
    }
    Ok(begun::<V>()?.verdict_by(&(vip, meta::L4PROTO, port, V::destination(), th::DPORT), &stays))
}

/// Where a service has all ports: the replica is remembered for all.
fn whole<V: Version>(
    draft: &mut Draft,
    affines: &[Affine],
    stays: Vec<(Behind<V>, Verdict)>,
    first: &mut Vec<Rule>,
) -> Result<Rule, Refusal> {
    let suffix = Reach::All.suffix(V::FAMILY);
    let map = draft.set(&format!("affinity{suffix}"), Set::filled::<Behind<V>, V::Address>())?;
    let stays = draft.set(&format!("stays{suffix}"), Set::verdicts(stays))?;
    let asks = rule("remembered").map(V::only)?.is_in(&meta::L4PROTO, &name("transports")?);
    first.push(asks.dnat_by::<V::Address, _>(&(V::source(), V::destination()), &map));

    let vip = V::original_destination();
    for affine in affines {
        let client = (V::source(), vip.clone());
        let fills = rule("fills").map(V::only)?.update((&client, &V::destination()), &map, affine.seconds);
        draft.chain_of(&affine.chain()?, vec![fills]);
    }
    Ok(begun::<V>()?.verdict_by(&(vip, V::destination()), &stays))
}

/// The chains at which it is looked whether a flow that begins is to be remembered.
pub(super) fn look(draft: &mut Draft, looks: Vec<Rule>) -> Result<(), Refusal> {
    if looks.is_empty() {
        return Ok(());
    }
    draft.chain("remember-arriving", Base::filter(Hook::Prerouting, REMEMBER), looks.clone())?;
    draft.chain("remember-own", Base::filter(Hook::Output, REMEMBER), looks)
}

/// A flow that begins, and was translated.
fn begun<V: Version>() -> Result<Rule, Refusal> {
    let rule = rule("begun")?.ct_state(CtState::NEW).any(&ct::STATUS, CtStatus::DNAT);
    Ok(V::only(rule))
}

/// Right after destinations are translated. (A chain of kind nat has its priority among its like only.)
const REMEMBER: i32 = Base::DSTNAT + 1;
