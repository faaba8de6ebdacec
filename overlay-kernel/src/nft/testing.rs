//! Proptest strategies for native tables (feature `testing`).

#![expect(clippy::expect_used, reason = "the texts and numbers are fixed")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{IfName, IpFamily, Mac, Name};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{
    AddressType, Base, Chain, ChainKind, CtDirection, CtState, EtherType, Family, Field, Hook, IpProtocol, Limit, Log,
    LogTo, Mark, NatFlags, Policy, Reject, Rule, Set, State, Table, TableKey, TcpFlags, Unreachable, Verdict, arp, ct,
    ether, fib, ip, ip6, jhash, meta, numgen_increment, numgen_random, symhash, th,
};

/// States that pass their check and that a kernel can hold, small and alike enough that two of them differ in every way
/// a plan can meet. `netdev` tables hook into the loopback device.
pub fn state() -> impl Strategy<Value = State> {
    let families = vec(option::weighted(0.6, table()), 6);
    families.prop_map(|drawn| {
        let places = [
            (Family::Inet, "fw"),
            (Family::Inet, "lb"),
            (Family::Ip, "fw"),
            (Family::Ip6, "fw"),
            (Family::Bridge, "fw"),
            (Family::Netdev, "fw"),
        ];
        let mut state = State::default();
        for ((family, table), draws) in places.into_iter().zip(drawn) {
            if let Some(draws) = draws {
                state.tables.insert(TableKey::new(family, name(table)), draws.table(family));
            }
        }
        state
    })
}

/// What is drawn for a table; what its family cannot hold is left out.
#[derive(Debug, Clone)]
struct Draws {
    /// For each set its kind and elements.
    sets: Vec<Option<(u8, u16)>>,
    /// For each of two regular chains, whether it is there, and its rules.
    regular: Vec<Option<Vec<RuleDraw>>>,
    /// The same of base chains, with their variants.
    bases: Vec<Option<(u8, Vec<RuleDraw>)>>,
}

/// What a rule does, and a variant.
type RuleDraw = (u8, u8);

fn table() -> impl Strategy<Value = Draws> {
    let rules = || vec((0_u8..25, any::<u8>()), 0..6);
    let sets = vec(option::of((0_u8..10, any::<u16>())), 4);
    let regular = vec(option::of(rules()), 2);
    let bases = vec(option::of((any::<u8>(), rules())), 4);
    (sets, regular, bases).prop_map(|(sets, regular, bases)| Draws { sets, regular, bases })
}

impl Draws {
    fn table(&self, family: Family) -> Table {
        let mut table = Table::default();
        for (number, rules) in self.regular.iter().enumerate() {
            if rules.is_some() {
                table.chains.insert(chain_name(number), Chain::default());
            }
        }
        let mut kinds = BTreeMap::new();
        for (number, drawn) in self.sets.iter().enumerate() {
            let Some((kind, elements)) = drawn else { continue };
            let name = name(&format!("s{number}"));
            // Only the last chain is led to: it leads nowhere itself.
            let target = table.chains.contains_key(&chain_name(1)).then(|| chain_name(1));
            table.sets.insert(name.clone(), set(*kind, *elements, target.as_ref()));
            kinds.insert(name, *kind);
        }
        let draw = Draw { family, kinds: &kinds, chains: table.chains.keys().cloned().collect() };
        for (number, rules) in self.regular.iter().enumerate() {
            let Some(rules) = rules else { continue };
            let rules = rules.iter().map(|drawn| draw.rule(*drawn, None, number));
            table.chains.insert(chain_name(number), Chain::regular(rules.collect()));
        }
        for (number, drawn) in self.bases.iter().enumerate() {
            let Some((variant, rules)) = drawn else { continue };
            let Some(base) = base(family, number, *variant) else { continue };
            let rules = rules.iter().map(|drawn| draw.rule(*drawn, Some(&base), 0)).collect();
            table.chains.insert(name(&format!("b{number}")), Chain::base(base, rules));
        }
        table
    }
}

fn chain_name(number: usize) -> Name {
    name(&format!("c{number}"))
}

fn base(family: Family, number: usize, variant: u8) -> Option<Base> {
    let routed = matches!(family, Family::Ip | Family::Ip6 | Family::Inet);
    let priority = [-150, 0, 10][usize::from(variant % 3)];
    let policy = if variant.is_multiple_of(5) { Policy::Drop } else { Policy::Accept };
    let base = match (family, number) {
        (Family::Netdev, 0 | 1) => {
            let devices = BTreeSet::from(["lo".parse().expect("a name")]);
            Base::ingress(devices, priority + i32::try_from(number).unwrap_or(0))
        }
        (Family::Netdev, _) => return None,
        (_, 0) => Base::filter(Hook::Forward, priority),
        (_, 1) => Base::filter(if variant.is_multiple_of(2) { Hook::Prerouting } else { Hook::Input }, priority),
        (_, 2) if routed => Base::nat(Hook::Prerouting, Base::DSTNAT),
        (_, 3) if routed => Base::nat(Hook::Postrouting, Base::SRCNAT),
        _ => return None,
    };
    Some(if base.kind == ChainKind::Nat { base } else { Base { policy, ..base } })
}

/// A set of one of ten kinds with those of sixteen elements whose bits are set.
fn set(kind: u8, elements: u16, target: Option<&Name>) -> Set {
    let bits = (0..16_u8).filter(|bit| elements >> bit & 1 == 1);
    let verdict = |bit: u8| match target {
        Some(chain) if bit.is_multiple_of(3) => Verdict::Jump(chain.clone()),
        Some(chain) if bit % 3 == 1 => Verdict::Goto(chain.clone()),
        _ if bit.is_multiple_of(2) => Verdict::Accept,
        _ => Verdict::Drop,
    };
    let value = |bit: u8| elements.to_be_bytes()[0] / 3 + bit / 4; // so that values change, too
    match kind {
        0 => Set::of(bits.map(v4)),
        // Some are neighbours, some are alone, one is the last there is.
        1 => Set::ranges(bits.map(|bit| match bit {
            15 => Ipv4Addr::new(255, 255, 255, 250)..=Ipv4Addr::BROADCAST,
            bit if bit.is_multiple_of(2) => v4(bit * 8)..=v4(bit * 8 + 7),
            bit => v4(bit * 8)..=v4(bit * 8 + value(bit) % 6),
        })),
        2 => {
            Set::map(bits.map(|bit| ((v4(bit), IpProtocol::TCP, 80_u16, Mark(bit.into())), (v4(value(bit)), 8080_u16))))
        }
        3 => Set::verdicts(bits.map(|bit| (u16::from(bit), verdict(bit)))),
        4 => Set::range_verdicts(bits.map(|bit| (u16::from(bit) * 10..=u16::from(bit) * 10 + 9, verdict(bit)))),
        5 => Set::ranges(bits.map(|bit| (v4(bit * 8), 1000_u16)..=(v4(bit * 8 + 5), 1000 + u16::from(bit)))),
        6 => Set::map(bits.map(|bit| (u16::from(bit), Mark(value(bit).into())))),
        9 => Set::filled::<(Ipv4Addr, IpProtocol), (Ipv4Addr, u16)>(),
        8 => Set::of(bits.map(|bit| (v4(bit), IpProtocol::TCP, 80_u16, Mark(bit.into())))),
        _ => Set::of(bits.map(|bit| (v6(bit), Mac::new([2, 0, 0, 0, 0, bit])))),
    }
}

struct Draw<'a> {
    family: Family,
    kinds: &'a BTreeMap<Name, u8>,
    chains: BTreeSet<Name>,
}

impl Draw<'_> {
    /// A rule for a base chain, or for the regular chain of this number.
    fn rule(&self, (what, variant): (u8, u8), base: Option<&Base>, number: usize) -> Rule {
        let nat = base.is_some_and(|base| base.kind == ChainKind::Nat);
        let rule = Rule::new(format!("rule {what} {variant}")).expect("a plain text");
        match what {
            0..8 => self.lookup(rule, what, variant, base.is_some() || number == 0),
            8..12 if nat => self.translation(rule, variant, base.is_some_and(|base| base.hook == Hook::Postrouting)),
            24 => self.remember(rule, variant),
            12 if number == 0 && self.chains.contains(&chain_name(1)) => rule.jump(&chain_name(1)),
            13 if base.is_some() && self.chains.contains(&chain_name(0)) => rule.goto(&chain_name(0)),
            14..20 if matches!(self.family, Family::Ip | Family::Ip6 | Family::Inet) => {
                self.routed(rule, what, variant, base)
            }
            _ => self.plain(rule, variant),
        }
    }

    /// A look into the set whose kind was drawn, if there is one.
    fn lookup(&self, rule: Rule, kind: u8, variant: u8, leads: bool) -> Rule {
        let kind = if kind == 2 { 8 } else { kind }; // maps of targets are for translations
        let of_kind = self.kinds.iter().find(|(_, found)| **found == kind).map(|(name, _)| name);
        let Some(set) = of_kind.filter(|_| leads || !matches!(kind, 3 | 4)) else { return self.plain(rule, variant) };
        let negated = variant.is_multiple_of(3);
        match kind {
            0 | 1 if negated => rule.not_in(&ip::SADDR, set).counter(),
            0 => rule.is_in(&ip::SADDR, set).accept(),
            1 => rule.is_in(&ip::DADDR, set).drop(),
            8 => rule.is_in(&(ip::DADDR, meta::L4PROTO, th::DPORT, numgen_increment(4)), set),
            3 | 4 => rule.verdict_by(&th::DPORT, set),
            5 => rule.is_in(&(ip::SADDR, th::DPORT), set).counter().drop(),
            6 if negated && matches!(self.family, Family::Ip | Family::Ip6 | Family::Inet) => {
                rule.set_zone_by(&th::SPORT, set)
            }
            6 => rule.set_mark_by(&th::SPORT, set),
            _ if matches!(self.family, Family::Bridge) => rule.is_in(&(ip6::SADDR, ether::SADDR), set),
            _ => self.plain(rule, variant),
        }
    }

    /// Fills the map that rules fill, if there is one.
    fn remember(&self, rule: Rule, variant: u8) -> Rule {
        let Some((map, _)) = self.kinds.iter().find(|(_, kind)| **kind == 9) else { return self.plain(rule, variant) };
        let (key, value) = ((ip::SADDR, meta::L4PROTO), (ip::DADDR, th::DPORT));
        rule.eq(&meta::L4PROTO, IpProtocol::UDP).update((&key, &value), map, u32::from(variant) + 1).counter()
    }

    fn translation(&self, rule: Rule, variant: u8, source: bool) -> Rule {
        let rule = rule.eq(&meta::L4PROTO, IpProtocol::TCP);
        let ipv6 = self.family == Family::Ip6 || (self.family == Family::Inet && variant.is_multiple_of(2));
        let address = if ipv6 { v6(variant).into() } else { v4(variant).into() };
        let flags = NatFlags { fully_random: variant.is_multiple_of(3), ..NatFlags::default() };
        let map = self.kinds.iter().find(|(_, kind)| **kind == 2).map(|(name, _)| name);
        match (variant / 4 % 3, map) {
            (0, _) if source => rule.masquerade(flags),
            (0, _) => rule.redirect(variant.is_multiple_of(2).then_some(53)),
            (1, Some(map)) if !source && !ipv6 => {
                let key = (ip::DADDR, meta::L4PROTO, th::DPORT, jhash(&(ip::SADDR, th::SPORT), 16, variant.into()));
                rule.dnat_by::<(Ipv4Addr, u16), _>(&key, map)
            }
            _ if source => rule.snat(address, None, flags),
            _ => rule.dnat(address, variant.is_multiple_of(2).then_some(80)),
        }
    }

    /// What only `ip`, `ip6` and `inet` have everywhere.
    fn routed(&self, rule: Rule, what: u8, variant: u8, base: Option<&Base>) -> Rule {
        let early = base.is_some_and(|base| base.priority < 0 || base.hook == Hook::Postrouting);
        match what {
            14 => rule.ct_state(CtState::ESTABLISHED | CtState(u32::from(variant) & 1)).accept(),
            15 => rule.none(&ct::STATE, CtState::INVALID).set_ct_mark(&meta::MARK),
            16 => rule.eq(&fib::DADDR_TYPE, AddressType::LOCAL).counter(),
            17 => rule.eq(&ct::proto_dst(CtDirection::Original), variant.into()).accept(),
            18 if base.is_some_and(|base| base.kind == ChainKind::Filter) && !early => match self.family {
                _ if variant.is_multiple_of(2) => rule.eq(&meta::L4PROTO, IpProtocol::TCP).reject(Reject::TcpReset),
                Family::Inet => rule.reject(Reject::Unreachable(Unreachable::Port)),
                _ => rule.reject(Reject::Icmp([0, 1, 3][usize::from(variant % 3)])),
            },
            _ => rule.eq(&ct::MARK.masked(Mark(0xff)), Mark(u32::from(variant) & 0xff)).set_mark(&ct::MARK),
        }
    }

    /// What every family has.
    fn plain(&self, rule: Rule, variant: u8) -> Rule {
        let port = u16::from(variant) * 8;
        match variant % 16 {
            0 => rule.eq(&meta::IIFNAME, device(variant)).counter().accept(),
            1 if matches!(self.family, Family::Ip | Family::Ip6) => rule.eq(&ip::SADDR, v4(variant)).drop(),
            1 => rule.eq(&meta::PROTOCOL, EtherType::IPV4).eq(&ip::SADDR, v4(variant)).drop(),
            2 => rule.eq(&meta::L4PROTO, IpProtocol::TCP).within(&th::DPORT, port, port + 7).accept(),
            3 => rule.eq(&meta::L4PROTO, IpProtocol::UDP).outside(&th::SPORT, port, port + 7).counter(),
            4 => rule.within(&meta::MARK, Mark(variant.into()), Mark(0x1_0000)).accept(),
            5 => rule.from("10.0.0.0/9".parse().expect("a subnet")).drop(),
            6 => rule.not_to("10.0.9.0/24".parse().expect("a subnet")).drop(),
            7 => rule.to("fd00::/61".parse().expect("a subnet")).accept(),
            8 => rule.limit(Limit::packets(u64::from(variant) + 1, 5)).counter(),
            9 => rule.limit(Limit { bytes: true, ..Limit::packets(1000, 0) }.exceeded()).drop(),
            10 => rule.set_mark(&Field::value(Mark(variant.into()))),
            11 => rule.eq(&numgen_random(3), Mark(1)).ne(&symhash(8), Mark(2)).counter(),
            12 => rule.any(&th::TCP_FLAGS, TcpFlags(variant)).accept(),
            13 => rule.eq(&arp::SADDR_IP, v4(variant)).drop(),
            14 if variant.is_multiple_of(4) => rule.log(log(variant)),
            14 => rule.set_mark(&jhash(&ip6::SADDR, 64, 1)).verdict(Verdict::Continue),
            _ if self.family == Family::Inet => rule.family(IpFamily::V6).verdict(Verdict::Return),
            _ => rule.verdict(Verdict::Return),
        }
    }
}

fn log(variant: u8) -> Log {
    Log {
        prefix: format!("fw {variant}").into(),
        to: LogTo::Group { group: variant.into(), bytes: u32::from(variant) },
    }
}

fn device(number: u8) -> IfName {
    IfName::new(&format!("eth{}", number % 4)).expect("a short name")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a short name")
}

const fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 9, last)
}

const fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last as u16)
}
