//! Subnets of an address space against a list, and everything that can be wrong with a request.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::net::IpAddr;

use overlay_core::{IpFamily, NetworkId, NodeId};
use overlay_ipam::{
    AddressRange, Gateway, IpNet, Occupant, Occupation, Pool, RequestError, Reserved, Subnet, SubnetError, SubnetKind,
    SubnetOptions, SubnetRequest, Subnets, Use, Wanted,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(first: &str, last: &str) -> AddressRange {
    AddressRange::new(ip(first), ip(last)).unwrap()
}

fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Two pools that touch, and one of IPv6: small, so that they run out.
fn pools() -> Vec<Pool> {
    let pool = |text, len| Pool::new(net(text), len).unwrap();
    vec![pool("10.0.0.0/26", 28), pool("10.0.0.64/26", 29), pool("fd00::/60", 64)]
}

#[derive(Debug, Clone)]
enum Act {
    Any { v6: bool, len: Option<u8> },
    This { at: u8, len: u8 },
    External { at: u8, first: u8, last: u8 },
    Release(usize),
    Occupy(Vec<(u8, u8)>),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (any::<bool>(), proptest::option::weighted(0.4, 26_u8..30)).prop_map(|(v6, len)| Act::Any { v6, len }),
        3 => (0_u8..160, 25_u8..31).prop_map(|(at, len)| Act::This { at, len }),
        1 => (0_u8..160, 0_u8..32, 0_u8..32).prop_map(|(at, a, b)| Act::External { at, first: a.min(b), last: a.max(b) }),
        4 => any::<usize>().prop_map(Act::Release),
        1 => vec((0_u8..160, 27_u8..33), 0..4).prop_map(Act::Occupy),
    ];
    vec(act, 1..80)
}

/// What is claimed, in a list that every question walks through.
#[derive(Default)]
struct Model {
    claimed: Vec<(Subnet, NetworkId)>,
    occupied: Vec<IpNet>,
}

impl Model {
    fn is_free(&self, candidate: IpNet) -> bool {
        self.in_the_way(candidate).is_none() && !self.occupied.iter().any(|other| overlap(*other, candidate))
    }

    fn in_the_way(&self, candidate: IpNet) -> Option<&(Subnet, NetworkId)> {
        self.claimed.iter().find(|(subnet, _)| overlap(subnet.net(), candidate))
    }

    fn lowest(&self, v6: bool, len: Option<u8>) -> Option<IpNet> {
        let fits =
            |pool: &Pool| pool.range().addr().is_ipv6() == v6 && len.is_none_or(|len| len >= pool.range().prefix_len());
        pools().into_iter().filter(fits).find_map(|pool| {
            let mut candidates = pool.range().subnets(len.unwrap_or_else(|| pool.subnet_len())).unwrap();
            candidates.find(|candidate| self.is_free(*candidate))
        })
    }
}

proptest! {
    #[test]
    fn claims_are_those_of_a_list_that_is_walked_through(acts in acts()) {
        let (mut subnets, mut model) = (Subnets::new(pools()), Model::default());
        for (number, act) in acts.into_iter().enumerate() {
            let owner = network(number as u8);
            match act {
                Act::Any { v6, len } => {
                    let family = if v6 { IpFamily::V6 } else { IpFamily::V4 };
                    let len = len.map(|len| if v6 { len + 36 } else { len });
                    let wanted = Wanted::Any { family, prefix_len: len };
                    let claimed = subnets.claim(owner, &SubnetRequest { wanted, ..SubnetRequest::any(family) });
                    prop_assert_eq!(claimed.as_ref().ok().map(Subnet::net), model.lowest(v6, len));
                    match claimed {
                        Ok(subnet) => model.claimed.push((subnet, owner)),
                        Err(error) => prop_assert!(matches!(error, SubnetError::Exhausted { .. }), "{error}"),
                    }
                }
                Act::This { at, len } => {
                    let wanted = IpNet::new([10, 0, 0, at].into(), len).unwrap().trunc();
                    claim_this(&mut subnets, &mut model, owner, wanted)?;
                }
                Act::External { at, first, last } => {
                    claim_external(&mut subnets, &mut model, owner, (at, first, last))?;
                }
                Act::Release(at) => {
                    if let Some(at) = at.checked_rem(model.claimed.len()) {
                        let (subnet, owner) = model.claimed.swap_remove(at);
                        subnets.release(network(255), &subnet); // not theirs: without effect
                        subnets.release(owner, &subnet);
                    }
                }
                Act::Occupy(nets) => {
                    model.occupied = nets.into_iter().map(|(at, len)| IpNet::new([10, 0, 0, at].into(), len).unwrap().trunc()).collect();
                    subnets.set_occupied(model.occupied.iter().map(|net| Occupation { net: *net, by: Occupant::Route }));
                }
            }
            prop_assert_eq!(subnets.len(), model.claimed.len());
        }
        for (pool, used) in subnets.pools() {
            let mut units = pool.range().subnets(pool.subnet_len()).unwrap();
            let extent = |subnet: &Subnet| match subnet.kind() {
                SubnetKind::Own => subnet.net().into(),
                SubnetKind::External => subnet.ranges(Use::Endpoint)[0],
            };
            let taken = |unit: &IpNet| model.claimed.iter().any(|(subnet, _)| AddressRange::from(*unit).overlaps(extent(subnet)));
            let expected = units.by_ref().filter(taken).count();
            if model.claimed.iter().all(|(subnet, _)| subnet.kind() == SubnetKind::Own) {
                prop_assert_eq!(used, expected as u128, "{}", pool);
            }
        }
    }
}

fn claim_this(subnets: &mut Subnets, model: &mut Model, owner: NetworkId, wanted: IpNet) -> Result<(), TestCaseError> {
    match subnets.claim(owner, &SubnetRequest::this(wanted)) {
        Ok(subnet) => {
            prop_assert!(model.is_free(wanted) && subnet.net() == wanted);
            model.claimed.push((subnet, owner));
        }
        Err(SubnetError::Overlaps { net, other, network }) => {
            prop_assert!(net == wanted && overlap(other, wanted));
            let named = |(subnet, owner): &(Subnet, NetworkId)| subnet.net() == other && *owner == network;
            prop_assert!(model.claimed.iter().any(named));
        }
        Err(SubnetError::Occupied { other, .. }) => {
            prop_assert!(model.in_the_way(wanted).is_none() && overlap(other, wanted));
            prop_assert!(model.occupied.contains(&other));
            let anyway = SubnetRequest { even_if_occupied: true, ..SubnetRequest::this(wanted) };
            model.claimed.push((subnets.claim(owner, &anyway).unwrap(), owner));
        }
        Err(error) => prop_assert!(false, "{error}"),
    }
    Ok(())
}

/// A /27 that others may share, as long as the ranges do not overlap.
fn claim_external(
    subnets: &mut Subnets,
    model: &mut Model,
    owner: NetworkId,
    (at, first, last): (u8, u8, u8),
) -> Result<(), TestCaseError> {
    let wanted = IpNet::new([10, 0, 0, at].into(), 27).unwrap().trunc();
    let base = at & !31;
    let part = AddressRange::new([10, 0, 0, base + first].into(), [10, 0, 0, base + last].into()).unwrap();
    let request = SubnetRequest {
        endpoints: Some(part),
        kind: SubnetKind::External,
        gateway: Gateway::None,
        ..SubnetRequest::this(wanted)
    };
    let in_the_way = model.claimed.iter().any(|(subnet, _)| match subnet.kind() {
        SubnetKind::Own => overlap(subnet.net(), wanted),
        SubnetKind::External => subnet.ranges(Use::Endpoint)[0].overlaps(part),
    });
    match subnets.claim(owner, &request) {
        Ok(subnet) => {
            prop_assert!(!in_the_way);
            model.claimed.push((subnet, owner));
        }
        Err(SubnetError::Overlaps { .. }) => prop_assert!(in_the_way),
        Err(SubnetError::Request(RequestError::NoRoom { .. })) => prop_assert!(first == last || last - first < 2),
        Err(error) => prop_assert!(false, "{error}"),
    }
    Ok(())
}

#[test]
fn dynamic_subnets_come_from_the_default_pools_in_their_order() {
    let mut subnets = Subnets::new(Pool::local());
    let mut claim =
        |number: u8| subnets.claim(network(number), &SubnetRequest::any(IpFamily::V4)).map(|subnet| subnet.to_string());
    let all: Vec<String> = (0..31).map(|number| claim(number).unwrap()).collect();
    assert_eq!((&*all[0], &*all[3], &*all[14]), ("172.17.0.0/16", "172.20.0.0/16", "172.31.0.0/16"));
    assert_eq!((&*all[15], &*all[30]), ("192.168.0.0/20", "192.168.240.0/20"));
    assert_eq!(claim(31).unwrap_err().to_string(), "all IPv4 pools are used up (31 subnets claimed)");
    assert!(matches!(subnets.claim(network(9), &SubnetRequest::any(IpFamily::V6)), Err(SubnetError::NoPool { .. })));
}

#[test]
fn a_pool_of_2_to_the_56_subnets_is_searched_without_walking_through_it() {
    let mut subnets = Subnets::new([Pool::new(net("fd00::/8"), 64).unwrap()]);
    subnets.claim(network(1), &SubnetRequest::this(net("fd00::/16"))).unwrap();
    let next = subnets.claim(network(2), &SubnetRequest::any(IpFamily::V6)).unwrap();
    assert_eq!(next.net(), net("fd01::/64"));
    let (_, used) = subnets.pools().next().unwrap();
    assert_eq!(used, (1 << 48) + 1);
}

#[test]
fn a_network_gets_all_its_subnets_or_none() {
    let mut subnets = Subnets::new(Pool::global());
    let any = SubnetRequest::any(IpFamily::V4);
    let claimed = subnets.claim_all(network(1), &[any.clone(), SubnetRequest::this(net("10.0.0.0/24"))]).unwrap();
    let nets: Vec<_> = claimed.iter().map(Subnet::net).collect();
    assert_eq!(nets, [net("10.0.1.0/24"), net("10.0.0.0/24")], "the static one is not taken by the dynamic one");

    let before = subnets.len();
    let refused = subnets.claim_all(network(2), &[any.clone(), SubnetRequest::this(net("10.0.0.0/16"))]);
    assert!(matches!(refused, Err(SubnetError::Overlaps { .. })));
    let refused = subnets.claim_all(network(2), &[any.clone(), SubnetRequest::any(IpFamily::V6)]);
    assert!(matches!(refused, Err(SubnetError::NoPool { .. })));
    assert_eq!(subnets.len(), before);
    assert_eq!(subnets.claim(network(3), &any).unwrap().net(), net("10.0.2.0/24"));
}

#[test]
fn what_nodes_report_is_left_out_and_named() {
    let mut subnets = Subnets::new(Pool::global());
    let by = Occupant::Node(NodeId::from_bytes([7; 16]));
    let occupied = ["10.0.0.0/16", "10.0.3.0/24", "0.0.0.0/0"].map(|text| Occupation { net: net(text), by });
    subnets.set_occupied(occupied);
    assert_eq!(subnets.claim(network(1), &SubnetRequest::any(IpFamily::V4)).unwrap().net(), net("10.1.0.0/24"));
    let refused = subnets.claim(network(2), &SubnetRequest::this(net("10.0.3.0/24"))).unwrap_err();
    assert!(
        refused.to_string().starts_with("10.0.3.0/24 overlaps 10.0.0.0/16, in use by something on node "),
        "{refused}"
    );
}

fn refused(request: &SubnetRequest) -> RequestError {
    let error = request.check().unwrap_err();
    let mut subnets = Subnets::new(Pool::global());
    assert_eq!(subnets.claim(network(1), request), Err(SubnetError::Request(error.clone())));
    assert!(subnets.is_empty());
    error
}

#[test]
fn every_mistake_in_a_request_has_its_own_error() {
    let this = || SubnetRequest::this(net("10.9.0.0/24"));
    let host_bits = refused(&SubnetRequest::this(net("10.9.0.5/24")));
    assert_eq!(host_bits.to_string(), "subnet 10.9.0.5/24 has host bits: it should be 10.9.0.0/24");
    let gateway = |text| refused(&SubnetRequest { gateway: Gateway::This(ip(text)), ..this() });
    assert!(matches!(gateway("10.8.0.1"), RequestError::Outside { what: "gateway", .. }));
    assert!(matches!(gateway("fd00::1"), RequestError::WrongFamily { what: "gateway", .. }));
    assert!(matches!(gateway("10.9.0.0"), RequestError::NoHost { .. }));
    assert!(matches!(gateway("10.9.0.255"), RequestError::NoHost { .. }));
    let endpoints = |range| refused(&SubnetRequest { endpoints: Some(range), ..this() });
    assert!(matches!(endpoints(range("10.9.0.9", "10.9.1.9")), RequestError::Outside { what: "range", .. }));
    assert!(matches!(endpoints(net("10.9.0.0/16").into()), RequestError::Larger { what: "range", .. }));
    assert!(matches!(endpoints(net("fd00::/64").into()), RequestError::WrongFamily { .. }));
    let vips =
        SubnetRequest { endpoints: Some(net("10.9.0.0/25").into()), vips: Some(net("10.9.0.64/26").into()), ..this() };
    assert!(matches!(refused(&vips), RequestError::RangesOverlap { .. }));
    let auxiliary = |entries: &[(&str, &str)]| {
        let auxiliary = entries.iter().map(|(name, address)| (name.parse().unwrap(), ip(address))).collect();
        refused(&SubnetRequest { auxiliary, gateway: Gateway::This(ip("10.9.0.1")), ..this() })
    };
    assert!(matches!(auxiliary(&[("nas", "10.8.0.9")]), RequestError::Outside { what: "auxiliary address", .. }));
    assert_eq!(auxiliary(&[("nas", "10.9.0.1")]).to_string(), "10.9.0.1 is given to both gateway and nas");
    assert_eq!(auxiliary(&[("a", "10.9.0.9"), ("b", "10.9.0.9")]).to_string(), "10.9.0.9 is given to both a and b");
    for unusable in
        ["127.0.0.0/24", "224.0.0.0/24", "240.0.0.0/24", "0.0.0.0/0", "::/0", "ff02::/64", "fe80::/64", "::1/128"]
    {
        assert!(matches!(refused(&SubnetRequest::this(net(unusable))), RequestError::Unusable { .. }), "{unusable}");
    }
    let any = |family, prefix_len| SubnetRequest { wanted: Wanted::Any { family, prefix_len }, ..this() };
    assert!(matches!(refused(&any(IpFamily::V4, Some(30))), RequestError::PrefixLen { found: 30, longest: 29, .. }));
    assert!(matches!(refused(&any(IpFamily::V6, Some(126))), RequestError::PrefixLen { found: 126, longest: 125, .. }));
    let needs = SubnetRequest { endpoints: Some(net("10.0.0.0/25").into()), ..any(IpFamily::V4, None) };
    assert!(matches!(refused(&needs), RequestError::NeedsSubnet { what: "a range" }));
    let needs = SubnetRequest { kind: SubnetKind::External, ..any(IpFamily::V4, None) };
    assert!(matches!(refused(&needs), RequestError::NeedsSubnet { what: "external" }));
    let many = (0..257_u16).map(|at| (format!("a{at}").parse().unwrap(), [10, 9, 0, at as u8].into())).collect();
    let many = refused(&SubnetRequest { auxiliary: many, ..this() });
    assert!(matches!(many, RequestError::TooManyAuxiliary { found: 257, most: 256, .. }), "{many}");
    let full = SubnetRequest { endpoints: Some(ip("10.9.0.1").into()), ..this() };
    assert!(matches!(refused(&full), RequestError::NoRoom { .. }), "the gateway is there");
}

#[test]
fn lists_are_matched_to_subnets_and_what_matches_none_or_doubly_is_refused() {
    let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
    let options = |subnets: &[&str], ranges: &[&str], gateways: &[&str]| {
        let gateways = gateways.iter().map(|text| ip(text)).collect();
        SubnetOptions { subnets: nets(subnets), ranges: nets(ranges), gateways, ..SubnetOptions::default() }.requests()
    };
    let both = ["10.1.0.0/24", "10.2.0.0/24"];
    let requests = options(&both, &["10.2.0.128/25"], &["10.2.0.9", "10.1.0.9"]).unwrap();
    assert_eq!(
        (requests[0].gateway, requests[1].gateway),
        (Gateway::This(ip("10.1.0.9")), Gateway::This(ip("10.2.0.9")))
    );
    assert_eq!((requests[0].endpoints, requests[1].endpoints), (None, Some(net("10.2.0.128/25").into())));
    assert!(matches!(options(&both, &[], &["10.3.0.1"]), Err(RequestError::NoSubnetFor { what: "gateway", .. })));
    assert!(matches!(options(&[], &["10.3.0.0/25"], &[]), Err(RequestError::NoSubnetFor { what: "range", .. })));
    assert!(matches!(options(&both, &[], &["10.1.0.1", "10.1.0.2"]), Err(RequestError::TwoGateways { .. })));
    assert!(matches!(options(&both, &["10.1.0.0/26", "10.1.0.64/26"], &[]), Err(RequestError::TwoRanges { .. })));
    assert!(matches!(options(&both, &["10.1.0.5/26"], &[]), Err(RequestError::HostBits { what: "range", .. })));
    assert!(matches!(options(&["10.1.0.0/24", "10.1.0.128/25"], &[], &[]), Err(RequestError::Overlap { .. })));
    assert!(matches!(
        options(&["10.0.0.0/16"], &["10.0.0.0/15"], &[]),
        Err(RequestError::Larger { what: "range", .. })
    ));
    let many: Vec<String> = (0..17).map(|n| format!("10.{n}.0.0/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(options(&many, &[], &[]), Err(RequestError::TooMany { found: 17, most: 16 })));
    let any = options(&["0.0.0.0/22", "::/64"], &[], &[]).unwrap();
    assert_eq!(any[0].wanted, Wanted::Any { family: IpFamily::V4, prefix_len: Some(22) });
    assert_eq!(any[1].wanted, Wanted::Any { family: IpFamily::V6, prefix_len: Some(64) });
}

#[test]
fn pools_that_make_no_sense_are_refused() {
    assert_eq!(
        Pool::new(net("10.0.0.1/8"), 24).unwrap_err().to_string(),
        "pool 10.0.0.1/8 has host bits: it should be 10.0.0.0/8"
    );
    for (range, len) in [("10.0.0.0/8", 30), ("10.0.0.0/24", 23), ("fd00::/48", 126), ("fd00::/48", 47)] {
        assert!(Pool::new(net(range), len).is_err(), "{range} in /{len}");
    }
    assert_eq!(Pool::unique_local([1, 2, 3, 4, 5]).to_string(), "fd01:203:405::/48 in /64");
}

#[test]
fn what_must_not_be_claimed_is_reserved_and_small_prefixes_are_used_whole() {
    let subnet = |text: &str| Subnets::new([]).claim(network(1), &SubnetRequest::this(net(text))).unwrap();
    let v4 = subnet("10.0.0.0/24");
    assert_eq!(v4.gateway(), Some(ip("10.0.0.1")));
    assert_eq!(v4.reserved(ip("10.0.0.0")), Some(Reserved::Network));
    assert_eq!(v4.reserved(ip("10.0.0.255")), Some(Reserved::Broadcast));
    assert_eq!(v4.reserved(ip("10.0.0.1")), Some(Reserved::Gateway));
    assert_eq!(v4.reserved(ip("10.0.1.7")), Some(Reserved::Outside));
    assert_eq!(v4.reserved(ip("10.0.0.254")), None);
    let v6 = subnet("fd00::/64");
    assert_eq!(v6.reserved(ip("fd00::")), Some(Reserved::Anycast));
    assert_eq!(v6.reserved(ip("fd00::ffff:ffff:ffff:ffff")), None);
    for (text, gateway) in [
        ("10.0.0.0/31", Some("10.0.0.0")),
        ("10.0.0.9/32", None),
        ("fd00::/127", Some("fd00::")),
        ("fd00::9/128", None),
    ] {
        let small = subnet(text);
        assert_eq!(small.gateway(), gateway.map(ip), "{text}");
        let last = small.hosts().last();
        assert_eq!((last, small.reserved(last)), (net(text).broadcast(), None), "{text}");
    }
    let last = subnet("ffff:ffff::/32".replace("ffff:ffff", "fdff:ffff").as_str());
    assert_eq!(last.hosts().last(), net("fdff:ffff::/32").broadcast());
}

proptest! {
    #[test]
    fn an_address_of_a_subnet_is_reserved_exactly_if_no_host_may_have_it_or_it_is_the_gateways(
        v6 in any::<bool>(),
        (spare, offset) in (0_u8..12).prop_flat_map(|spare| (Just(spare), 0_u128..1 << spare)),
    ) {
        let length = if v6 { 128 } else { 32 } - spare;
        let whole = net(&format!("{}/{length}", if v6 { "fd00:7::" } else { "10.7.0.0" }));
        let subnet = Subnets::new([]).claim(network(1), &SubnetRequest::this(whole)).unwrap();
        let address = match whole.network() {
            IpAddr::V4(first) => IpAddr::from((first.to_bits() + offset as u32).to_be_bytes()),
            IpAddr::V6(first) => IpAddr::from((first.to_bits() + offset).to_be_bytes()),
        };
        let free = subnet.hosts().contains(address) && subnet.gateway() != Some(address);
        prop_assert_eq!(subnet.reserved(address).is_none(), free, "{} in {}", address, whole);
    }
}

#[test]
fn vips_have_a_range_of_their_own_where_wanted() {
    let request = SubnetRequest { vips: Some(net("10.0.0.64/26").into()), ..SubnetRequest::this(net("10.0.0.0/24")) };
    let subnet = Subnets::new([]).claim(network(1), &request).unwrap();
    assert_eq!(subnet.ranges(Use::Vip), [net("10.0.0.64/26").into()]);
    assert_eq!(subnet.ranges(Use::Endpoint), [range("10.0.0.1", "10.0.0.63"), range("10.0.0.128", "10.0.0.254")]);
    let shared = Subnets::new([]).claim(network(1), &SubnetRequest::this(net("10.0.0.0/24"))).unwrap();
    assert_eq!(shared.ranges(Use::Vip), shared.ranges(Use::Endpoint));
}

#[test]
fn an_external_subnet_is_not_checked_against_hosts_and_shared_by_disjoint_ranges() {
    let mut subnets = Subnets::new(Pool::global());
    subnets.set_occupied([Occupation { net: net("192.168.1.0/24"), by: Occupant::Route }]);
    let external = |first, last| SubnetRequest {
        kind: SubnetKind::External,
        endpoints: Some(range(first, last)),
        gateway: Gateway::This(ip("192.168.1.1")),
        ..SubnetRequest::this(net("192.168.1.0/24"))
    };
    let claimed = subnets.claim(network(1), &external("192.168.1.100", "192.168.1.149")).unwrap();
    assert_eq!(claimed.reserved(ip("192.168.1.99")), Some(Reserved::OutOfRange));
    assert_eq!(claimed.reserved(ip("192.168.1.100")), None);
    subnets.claim(network(2), &external("192.168.1.150", "192.168.1.199")).unwrap();
    let refused = subnets.claim(network(3), &external("192.168.1.149", "192.168.1.150"));
    assert!(matches!(refused, Err(SubnetError::Overlaps { .. })));
    let own = SubnetRequest { even_if_occupied: true, ..SubnetRequest::this(net("192.168.1.0/28")) };
    let refused = subnets.claim(network(4), &own).unwrap_err();
    assert!(matches!(refused, SubnetError::Overlaps { .. }), "an own subnet on the physical network's: {refused}");
    subnets.release(network(1), &claimed);
    assert!(subnets.claim(network(3), &external("192.168.1.100", "192.168.1.149")).is_ok());
}
