//! Address sets against the plainest model there is.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_ipam::{AddressRange, AddressSet, Draw, IpNet, Order};
use proptest::collection::vec;
use proptest::prelude::*;

/// Ranges of both families: tiny, across words and pages, at both ends of the address space, and huge.
fn ranges() -> impl Strategy<Value = AddressRange> {
    let v6 = |first: u128, span: u128| {
        AddressRange::new(Ipv6Addr::from(first).into(), Ipv6Addr::from(first.saturating_add(span)).into()).unwrap()
    };
    let v4 = |first: u32, span: u32| {
        AddressRange::new(Ipv4Addr::from(first).into(), Ipv4Addr::from(first.saturating_add(span)).into()).unwrap()
    };
    let span = prop_oneof![0_u32..4, 60_u32..70, 120_u32..200, 4090_u32..4100, 8190_u32..8200, Just(1 << 20)];
    prop_oneof![
        (any::<u32>(), span.clone()).prop_map(move |(first, span)| v4(first, span)),
        span.clone().prop_map(move |span| v4(u32::MAX - span, span)),
        span.prop_map(move |span| v6(u128::MAX - u128::from(span), span.into())),
        // Sparse: pages of 4,096, the last of them cut.
        (0_u128..4, (1_u128 << 24)..(1 << 24) + 9000).prop_map(move |(first, span)| v6(first, span)),
        Just(v6(0xfd00 << 112, u64::MAX.into())),
        Just(v6(0, u128::MAX)),
        Just(v4(0, u32::MAX)),
    ]
}

#[derive(Debug, Clone)]
enum Act {
    Next(u8),
    NextIn(u8, u128, u128),
    At(u128),
    Fill(u128, u16),
    Release(usize),
    ReleaseRun(usize, u16),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let place =
        prop_oneof![0_u128..10_000, Just(u128::MAX), any::<u128>(), (0_u128..300).prop_map(|back| u128::MAX - back)];
    let act = prop_oneof![
        4 => (0_u8..3).prop_map(Act::Next),
        2 => (0_u8..3, place.clone(), place.clone()).prop_map(|(order, a, b)| Act::NextIn(order, a, b)),
        2 => place.clone().prop_map(Act::At),
        2 => (place, prop_oneof![1_u16..80, 4000_u16..4200]).prop_map(|(at, run)| Act::Fill(at, run)),
        3 => any::<usize>().prop_map(Act::Release),
        1 => (any::<usize>(), 1_u16..5000).prop_map(|(at, run)| Act::ReleaseRun(at, run)),
    ];
    vec(act, 1..60)
}

struct Model {
    first: u128,
    last: u128,
    v4: bool,
    taken: BTreeSet<u128>,
    cursor: u128,
}

impl Model {
    fn of(range: AddressRange) -> Self {
        let (first, last) = (number(range.first()), number(range.last()));
        Self { first, last, v4: range.first().is_ipv4(), taken: BTreeSet::new(), cursor: first }
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.v4 { Ipv4Addr::from(u32::try_from(number).unwrap()).into() } else { Ipv6Addr::from(number).into() }
    }

    fn place(&self, place: u128) -> u128 {
        match self.last - self.first {
            u128::MAX => place,
            span if place > span && place > u128::MAX - 1000 => self.last - (u128::MAX - place).min(span),
            span => self.first + place % (span + 1),
        }
    }

    /// Walks through what is taken: as slow as it is plain.
    fn free(&self, from: u128, last: u128) -> Option<u128> {
        let mut at = from;
        for used in self.taken.range(from..=last) {
            if *used > at {
                break;
            }
            at = used.checked_add(1)?;
        }
        (at <= last).then_some(at)
    }

    fn next(&mut self, window: (u128, u128), from: u128, next_fit: bool) -> Option<u128> {
        let ahead = if (window.0..=window.1).contains(&from) { self.free(from, window.1) } else { None };
        let found = ahead.or_else(|| self.free(window.0, window.1))?;
        self.taken.insert(found);
        if next_fit {
            self.cursor = if found == self.last { self.first } else { found + 1 };
        }
        Some(found)
    }
}

proptest! {
    #[test]
    fn a_set_does_what_a_list_of_all_that_is_taken_does(range in ranges(), acts in acts()) {
        let (mut set, mut model) = (AddressSet::new(range), Model::of(range));
        for act in acts {
            match act {
                Act::Next(order) => next(&mut set, &mut model, order, None)?,
                Act::NextIn(order, a, b) => {
                    let (a, b) = (model.place(a), model.place(b));
                    next(&mut set, &mut model, order, Some((a.min(b), a.max(b))))?;
                }
                Act::At(place) => {
                    let at = model.place(place);
                    prop_assert_eq!(set.claim(model.address(at)), model.taken.insert(at));
                }
                Act::Fill(place, run) => {
                    let first = model.place(place);
                    for at in first..=first.saturating_add(run.into()).min(model.last) {
                        prop_assert_eq!(set.claim(model.address(at)), model.taken.insert(at));
                    }
                }
                Act::Release(at) => release(&mut set, &mut model, at, 1)?,
                Act::ReleaseRun(at, run) => release(&mut set, &mut model, at, run.into())?,
            }
            prop_assert_eq!(set.len(), model.taken.len() as u128);
            prop_assert_eq!(set.cursor(), model.address(model.cursor));
        }
        let all: Vec<_> = set.iter().collect();
        prop_assert_eq!(all, model.taken.iter().map(|at| model.address(*at)).collect::<Vec<_>>());
        for at in model.taken.iter().take(50) {
            let free = model.free(*at, model.last).map(|free| model.address(free));
            prop_assert_eq!(set.next_free(model.address(*at)), free);
            prop_assert!(set.contains(model.address(*at)));
        }
    }
}

fn next(set: &mut AddressSet, model: &mut Model, order: u8, window: Option<(u128, u128)>) -> Result<(), TestCaseError> {
    let (first, last) = window.unwrap_or((model.first, model.last));
    let within = AddressRange::new(model.address(first), model.address(last)).unwrap();
    let claim = |set: &mut AddressSet, order| match window {
        Some(_) => set.claim_next_in(within, order),
        None => set.claim_next(order),
    };
    let expected = match order {
        0 => {
            let from = model.cursor;
            model.next((first, last), from, true)
        }
        1 => model.next((first, last), first, false),
        _ => {
            // Any free address of the window will do.
            let found = claim(set, Order::Random(Draw::new([3; 32], set.len() as u64)));
            prop_assert_eq!(found.is_some(), model.free(first, last).is_some());
            if let Some(found) = found {
                prop_assert!(within.contains(found) && model.taken.insert(number(found)));
            }
            return Ok(());
        }
    };
    let order = if order == 0 { Order::NextFit } else { Order::Lowest };
    prop_assert_eq!(claim(set, order), expected.map(|at| model.address(at)));
    Ok(())
}

fn release(set: &mut AddressSet, model: &mut Model, at: usize, run: usize) -> Result<(), TestCaseError> {
    let Some(skip) = at.checked_rem(model.taken.len()) else { return Ok(()) };
    let gone: Vec<_> = model.taken.iter().skip(skip).take(run).copied().collect();
    for at in gone {
        prop_assert!(set.release(model.address(at)) && model.taken.remove(&at));
        prop_assert!(!set.release(model.address(at)), "released twice");
    }
    Ok(())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[test]
fn every_address_of_a_range_is_handed_out_once_and_then_none() {
    for net in ["10.0.0.0/18", "192.0.2.7/32", "192.0.2.6/31", "255.255.255.0/24", "ffff::/114", "::/116"] {
        let net: IpNet = net.parse().unwrap();
        for order in [Order::NextFit, Order::Lowest, Order::Random(Draw::new([1; 32], 0))] {
            let mut set = AddressSet::new(net);
            let all: BTreeSet<_> = std::iter::from_fn(|| set.claim_next(order)).collect();
            let hosts = 1_u128 << (net.max_prefix_len() - net.prefix_len());
            assert_eq!((all.len() as u128, set.len(), set.claim_next(order)), (hosts, hosts, None));
            assert!(all.iter().all(|address| net.contains(address)));
        }
    }
}

#[test]
fn a_full_page_of_a_huge_set_is_left_in_one_step() {
    let mut set = AddressSet::new("fd00::/40".parse::<IpNet>().unwrap());
    let full = 3 * 4096;
    for _ in 0..full {
        set.claim_next(Order::NextFit).unwrap();
    }
    assert_eq!(set.claim_next(Order::Lowest).unwrap(), "fd00::3000".parse::<IpAddr>().unwrap());
    assert!(set.bytes() < 4 * 4096, "{} bytes", set.bytes());
}

#[test]
fn a_whole_8_at_90_percent_takes_little_more_than_a_bit_each() {
    let mut set = AddressSet::new("10.0.0.0/8".parse::<IpNet>().unwrap());
    for _ in 0..15_099_494 {
        set.claim_next(Order::NextFit).unwrap();
    }
    assert!(set.bytes() <= 2_200_000, "{} bytes", set.bytes());
}

#[test]
fn what_is_not_of_the_range_is_neither_claimed_nor_released() {
    let mut set = AddressSet::new("10.0.0.0/24".parse::<IpNet>().unwrap());
    for stranger in ["10.0.1.0", "9.255.255.255", "::ffff:10.0.0.1", "::"] {
        let stranger: IpAddr = stranger.parse().unwrap();
        assert!(!set.claim(stranger) && !set.release(stranger) && !set.contains(stranger));
        assert_eq!(set.next_free(stranger), None);
    }
    let other = AddressRange::from("10.0.1.0/24".parse::<IpNet>().unwrap());
    assert_eq!(set.claim_next_in(other, Order::Lowest), None);
    assert!(set.is_empty());
}

#[test]
fn draws_spread_over_the_range() {
    let mut set = AddressSet::new("fd00::/64".parse::<IpNet>().unwrap());
    let drawn = (0..64).map(|n| set.claim_next(Order::Random(Draw::new([9; 32], n))).unwrap());
    let halves: BTreeSet<_> = drawn.map(|address| number(address) >> 60 & 0xf).collect();
    assert!(halves.len() > 10, "64 draws fell into {} of 16 parts", halves.len());
}
