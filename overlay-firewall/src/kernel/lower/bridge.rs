//! Ports of bridges: who is behind them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::{IfName, Mac, Name, Refusal};
use overlay_kernel::nft::{Base, EtherType, Hook, Icmp6Type, IpProtocol, Rule, Set, arp, ether, ip, ip6, meta, th};

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
    ipv6_rules(draft, &pins, &mut rules)?;
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
    let arp = |id: &str| -> Result<Rule, Refusal> { Ok(rule(id)?.eq(&ether::TYPE, EtherType::ARP)) };
    rules.push(arp("port/arp")?.not_in(&(meta::IIFNAME, arp::SADDR_ETHER), macs).counter().drop());
    // Who asks whether an address is free has none (RFC 5227 §2.1.1).
    let speaks = arp("port/arp")?.ne(&arp::SADDR_IP, Ipv4Addr::UNSPECIFIED);
    rules.push(speaks.not_in(&(meta::IIFNAME, arp::SADDR_IP), &own).counter().drop());
    rules.push(arp("arp")?.accept());
    let ipv4 = |id: &str| -> Result<Rule, Refusal> { Ok(rule(id)?.eq(&ether::TYPE, EtherType::IPV4)) };
    rules.push(ipv4("port/ipv4")?.not_in(&(meta::IIFNAME, ip::SADDR), &own).counter().drop());
    rules.push(ipv4("port/dhcp")?.eq(&meta::L4PROTO, IpProtocol::UDP).eq(&th::SPORT, 67).counter().drop());
    rules.push(ipv4("ipv4")?.accept());
    Ok(())
}

/// About what is IPv6, for everything else was decided before.
fn ipv6_rules(draft: &mut Draft, pins: &[(IfName, &Pin)], rules: &mut Vec<Rule>) -> Result<(), Refusal> {
    let own = pins.iter().flat_map(|(device, pin)| {
        let given = pin.addresses.iter().filter_map(|it| if let IpAddr::V6(it) = it { Some(*it) } else { None });
        given.chain([pin.link_local()]).map(|address| (*device, address))
    });
    let own = draft.set("own6", Set::of(own))?;
    let routers = draft.set("routers", Set::of([Icmp6Type::ROUTER_ADVERTISEMENT, Icmp6Type::REDIRECT]))?;
    let nameless = draft.set("nameless", Set::of(NAMELESS))?;
    let icmp = |id: &str| -> Result<Rule, Refusal> {
        let ipv6 = rule(id)?.eq(&ether::TYPE, EtherType::IPV6);
        Ok(ipv6.eq(&meta::L4PROTO, IpProtocol::ICMPV6))
    };
    let ipv6 = rule("port/ipv6")?.eq(&ether::TYPE, EtherType::IPV6);
    let dhcp = rule("port/dhcp")?.eq(&ether::TYPE, EtherType::IPV6).eq(&meta::L4PROTO, IpProtocol::UDP);
    let advertised = icmp("port/neighbour")?.eq(&th::ICMP6_TYPE, Icmp6Type::NEIGHBOUR_ADVERTISEMENT);
    let probes = icmp("port/neighbour")?.eq(&ip6::SADDR, Ipv6Addr::UNSPECIFIED);
    let probes = probes.eq(&th::ICMP6_TYPE, Icmp6Type::NEIGHBOUR_SOLICITATION);
    let begins = icmp("nameless")?.eq(&ip6::SADDR, Ipv6Addr::UNSPECIFIED);
    rules.extend([
        icmp("port/router")?.is_in(&th::ICMP6_TYPE, &routers).counter().drop(),
        probes.not_in(&(meta::IIFNAME, th::ND_TARGET), &own).counter().drop(),
        begins.is_in(&th::ICMP6_TYPE, &nameless).accept(),
        ipv6.not_in(&(meta::IIFNAME, ip6::SADDR), &own).counter().drop(),
        advertised.not_in(&(meta::IIFNAME, th::ND_TARGET), &own).counter().drop(),
        dhcp.eq(&th::SPORT, 547).counter().drop(),
    ]);
    Ok(())
}

fn v4(pin: &Pin) -> impl Iterator<Item = Ipv4Addr> {
    pin.addresses.iter().filter_map(|it| if let IpAddr::V4(it) = it { Some(*it) } else { None })
}

/// What one may send before one has an address (RFC 4861 §4.1 and §4.3, RFC 2710 §3, RFC 3810 §5.2).
const NAMELESS: [Icmp6Type; 5] =
    [Icmp6Type(131), Icmp6Type(132), Icmp6Type::ROUTER_SOLICITATION, Icmp6Type::NEIGHBOUR_SOLICITATION, Icmp6Type(143)];
