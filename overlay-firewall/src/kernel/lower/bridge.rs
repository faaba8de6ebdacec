//! Ports of bridges: who is behind them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::{IfName, Mac, Name, Refusal};
use overlay_kernel::nft::{
    Base, EtherType, Hook, Icmp6Type, IcmpType, IpProtocol, Rule, Set, arp, ether, ip, ip6, meta, th,
};

use super::draft::{Draft, rule};
use crate::{BridgePort, Pin, State, Strangers};

pub(super) fn ports(draft: &mut Draft, state: &State) -> Result<(), Refusal> {
    if state.ports.is_empty() && state.strangers == Strangers::Pass {
        return Ok(());
    }
    let pins: Vec<(IfName, &Pin)> = state.ports.iter().filter_map(pinned).collect();
    let trunks = state.ports.iter().filter(|port| pinned(*port).is_none()).map(|(device, _)| *device);
    let trunks = draft.set("trunks", Set::of(trunks))?;
    let ports = draft.set("ports", Set::of(pins.iter().map(|(device, _)| *device)))?;
    let isolated = pins.iter().filter(|(_, pin)| pin.isolated).map(|(device, _)| *device);
    let isolated = draft.set("isolated", Set::of(isolated))?;

    let stranger = rule("port/stranger")?.not_in(&meta::IIFNAME, &ports);
    let mut rules = vec![
        rule("trunk")?.is_in(&meta::IIFNAME, &trunks).accept(),
        match state.strangers {
            Strangers::Pass => stranger.accept(),
            Strangers::Drop => stranger.counter().drop(),
        },
    ];
    let macs = draft.set("macs", Set::of(pins.iter().map(|(device, pin)| (*device, pin.mac))))?;
    rules.push(rule("port/mac")?.not_in(&(meta::IIFNAME, ether::SADDR), &macs).counter().drop());
    ipv4_rules(draft, &pins, (&macs, &mut rules))?;
    rules.push(rule("port/ethertype")?.ne(&ether::TYPE, EtherType::IPV6).counter().drop());
    ipv6_rules(draft, &pins, (&macs, &mut rules))?;
    draft.chain("ingress", Base::filter(Hook::Prerouting, Base::RAW), rules)?;

    let between = rule("port/isolated")?.is_in(&meta::IIFNAME, &isolated).is_in(&meta::OIFNAME, &isolated);
    draft.chain("bridged", Base::filter(Hook::Forward, Base::RAW), vec![between.counter().drop()])?;
    draft.chain("local", Base::filter(Hook::Input, Base::RAW), vec![reserved(&ports)?])
}

fn pinned<'s>((device, port): (&IfName, &'s BridgePort)) -> Option<(IfName, &'s Pin)> {
    match port {
        BridgePort::Pinned(pin) => Some((*device, pin)),
        BridgePort::Trunk => None,
    }
}

/// Frames for the bridge's own protocols (IEEE 802.1D §7.12.6) come to this machine past all chains but this one.
fn reserved(ports: &Name) -> Result<Rule, Refusal> {
    let group = Mac::new([0x01, 0x80, 0xc2, 0, 0, 0]);
    let mask = Mac::new([0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]);
    let rule = rule("port/reserved")?.is_in(&meta::IIFNAME, ports);
    Ok(rule.eq(&ether::DADDR.masked(mask), group).counter().drop())
}

/// About ARP, which has its own word for the sender's Ethernet address, and about IPv4.
fn ipv4_rules(
    draft: &mut Draft,
    pins: &[(IfName, &Pin)],
    (macs, rules): (&Name, &mut Vec<Rule>),
) -> Result<(), Refusal> {
    let own = pins.iter().flat_map(|(device, pin)| v4(pin).map(|address| (*device, address)));
    let own = draft.set("own4", Set::of(own))?;
    let form = draft.set("arp-form", Set::of([(1, EtherType::IPV4, 0x0604)]))?; // IPv4 over Ethernet
    let routers = draft.set("routers4", Set::of([IcmpType::REDIRECT, IcmpType::ROUTER_ADVERTISEMENT]))?;
    let arp = |id: &str| -> Result<Rule, Refusal> { Ok(rule(id)?.eq(&ether::TYPE, EtherType::ARP)) };
    // Who asks whether an address is free has none, and may ask for his own (RFC 5227 §2.1.1).
    let speaks = arp("port/arp")?.ne(&arp::SADDR_IP, Ipv4Addr::UNSPECIFIED);
    let probes = arp("port/arp")?.eq(&arp::SADDR_IP, Ipv4Addr::UNSPECIFIED);
    rules.extend([
        arp("port/ethertype")?.not_in(&(arp::HARDWARE, arp::PROTOCOL, arp::LENGTHS), &form).counter().drop(),
        arp("port/arp")?.not_in(&(meta::IIFNAME, arp::SADDR_ETHER), macs).counter().drop(),
        speaks.not_in(&(meta::IIFNAME, arp::SADDR_IP), &own).counter().drop(),
        probes.not_in(&(meta::IIFNAME, arp::DADDR_IP), &own).counter().drop(),
        arp("arp")?.accept(),
    ]);
    let ipv4 = |id: &str| -> Result<Rule, Refusal> { Ok(rule(id)?.eq(&ether::TYPE, EtherType::IPV4)) };
    let icmp = ipv4("port/router")?.eq(&meta::L4PROTO, IpProtocol::ICMP);
    rules.push(icmp.is_in(&th::ICMP_TYPE, &routers).counter().drop());
    rules.push(ipv4("port/ipv4")?.not_in(&(meta::IIFNAME, ip::SADDR), &own).counter().drop());
    dhcp(rules, EtherType::IPV4, (67, 68))?;
    rules.push(ipv4("ipv4")?.accept());
    Ok(())
}

/// Who speaks as a server, or to clients: they look at their own port, whatever the other.
fn dhcp(rules: &mut Vec<Rule>, kind: EtherType, (server, client): (u16, u16)) -> Result<(), Refusal> {
    for (field, port) in [(th::SPORT, server), (th::DPORT, client)] {
        let datagram = rule("port/dhcp")?.eq(&ether::TYPE, kind).eq(&meta::L4PROTO, IpProtocol::UDP);
        rules.push(datagram.eq(&field, port).counter().drop());
    }
    Ok(())
}

/// About what is IPv6, for everything else was decided before.
fn ipv6_rules(
    draft: &mut Draft,
    pins: &[(IfName, &Pin)],
    (macs, rules): (&Name, &mut Vec<Rule>),
) -> Result<(), Refusal> {
    let own = pins.iter().flat_map(|(device, pin)| {
        let given = pin.addresses.iter().filter_map(|it| if let IpAddr::V6(it) = it { Some(*it) } else { None });
        given.chain([pin.link_local()]).map(|address| (*device, address))
    });
    let own = draft.set("own6", Set::of(own))?;
    let messages = messages(draft, (macs, &own))?;
    let ipv6 = |id: &str| -> Result<Rule, Refusal> { Ok(rule(id)?.eq(&ether::TYPE, EtherType::IPV6)) };
    rules.push(ipv6("icmpv6")?.eq(&meta::L4PROTO, IpProtocol::ICMPV6).jump(&messages));
    rules.push(ipv6("port/ipv6")?.not_in(&(meta::IIFNAME, ip6::SADDR), &own).counter().drop());
    dhcp(rules, EtherType::IPV6, (547, 546))?;
    // What nobody could look at would be something else behind all rules. That it can be, its first byte tells; of later
    // fragments (RFC 8200 §4.5) nobody needs to know more, if the first has all headers (RFC 7112 §5).
    let first = th::ICMP6_TYPE.masked(Icmp6Type(0));
    let later = ipv6("fragment")?.eq(&ip6::NEXT_HEADER, IpProtocol::FRAGMENT);
    rules.extend([
        ipv6("ipv6")?.eq(&first, Icmp6Type(0)).accept(),
        later.ne(&ip6::FRAGMENT.masked(0xfff8), 0).accept(),
        rule("port/fragment")?.counter().drop(),
    ]);
    Ok(())
}

/// The chain that is asked about ICMPv6.
///
/// Neighbour discovery stands right behind the IPv6 header (a fragment's is none: RFC 6980 §5), and names no station but
/// its sender's: in one option, as whoever looks at two may take the second.
fn messages(draft: &mut Draft, (macs, own): (&Name, &Name)) -> Result<Name, Refusal> {
    use Icmp6Type as Type;
    let routers = draft.set("routers", Set::of([Type::ROUTER_ADVERTISEMENT, Type::REDIRECT]))?;
    let nameless = draft.set("nameless", Set::of(NAMELESS))?;
    let (asks, tells, seeks) = (Type::NEIGHBOUR_SOLICITATION, Type::NEIGHBOUR_ADVERTISEMENT, Type::ROUTER_SOLICITATION);
    let discovery = draft.set("discovery", Set::of([asks, tells, seeks]))?;
    let options = draft.set("nd-options", Set::of([(asks, SOURCE), (tells, TARGET)]))?;
    let icmp = |id: &str| -> Result<Rule, Refusal> {
        let ipv6 = rule(id)?.eq(&ether::TYPE, EtherType::IPV6);
        Ok(ipv6.eq(&meta::L4PROTO, IpProtocol::ICMPV6))
    };
    let (kind, nobody) = (th::ICMP6_TYPE, Ipv6Addr::UNSPECIFIED);
    let probes = icmp("port/neighbour")?.eq(&ip6::SADDR, nobody).eq(&kind, asks);
    let discovers = || -> Result<Rule, Refusal> { Ok(icmp("port/neighbour")?.is_in(&kind, &discovery)) };
    let about = || -> Result<Rule, Refusal> { Ok(discovers()?.ne(&kind, seeks)) };
    let begs = || -> Result<Rule, Refusal> { Ok(icmp("port/neighbour")?.eq(&kind, seeks)) };
    let (named, begs_named) = (about()?.eq(&ip6::LENGTH, 32), begs()?.eq(&ip6::LENGTH, 16));
    let lies = |rule: Rule, field| rule.not_in(&(meta::IIFNAME, field), macs).counter().drop();
    let rules = vec![
        icmp("port/router")?.is_in(&kind, &routers).counter().drop(),
        probes.not_in(&(meta::IIFNAME, th::ND_TARGET), own).counter().drop(),
        icmp("port/ipv6")?.ne(&ip6::SADDR, nobody).not_in(&(meta::IIFNAME, ip6::SADDR), own).counter().drop(),
        discovers()?.ne(&ip6::NEXT_HEADER, IpProtocol::ICMPV6).counter().drop(),
        about()?.ne(&ip6::LENGTH, 24).ne(&ip6::LENGTH, 32).counter().drop(),
        begs()?.ne(&ip6::LENGTH, 8).ne(&ip6::LENGTH, 16).counter().drop(),
        icmp("nameless")?.eq(&ip6::SADDR, nobody).is_in(&kind, &nameless).accept(),
        icmp("port/ipv6")?.eq(&ip6::SADDR, nobody).counter().drop(),
        icmp("port/neighbour")?.eq(&kind, tells).not_in(&(meta::IIFNAME, th::ND_TARGET), own).counter().drop(),
        named.clone().not_in(&(kind.clone(), th::ND_OPTION), &options).counter().drop(),
        lies(named, th::ND_STATION),
        begs_named.clone().ne(&th::RS_OPTION, SOURCE).counter().drop(),
        lies(begs_named, th::RS_STATION),
    ];
    draft.part("messages", rules)
}

/// The options with the Ethernet address of the sender and of the target, in eight bytes (RFC 4861 §4.6.1).
const SOURCE: u16 = 0x0101;
const TARGET: u16 = 0x0201;

fn v4(pin: &Pin) -> impl Iterator<Item = Ipv4Addr> {
    pin.addresses.iter().filter_map(|it| if let IpAddr::V4(it) = it { Some(*it) } else { None })
}

/// What one may send before one has an address (RFC 4861 §4.1 and §4.3, RFC 2710 §3, RFC 3810 §5.2).
const NAMELESS: [Icmp6Type; 5] =
    [Icmp6Type(131), Icmp6Type(132), Icmp6Type::ROUTER_SOLICITATION, Icmp6Type::NEIGHBOUR_SOLICITATION, Icmp6Type(143)];
