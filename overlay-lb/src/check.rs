//! What a value must be to be meant at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use overlay_core::{IpFamily, Name, Port, Protocol, Refusal, is_host_address};

use crate::asked::is_near;
use crate::{Affinity, Bind, Ports, Replica, Service, State, Timeouts};

/// Refuses what makes no sense, by name.
pub(crate) fn state(state: &State) -> Result<(), Refusal> {
    let mut taken = Taken::default();
    for (name, service) in &state.services {
        self::service(name, service)?;
        taken.take(name, service)?;
    }
    let vips: BTreeSet<IpAddr> = state.services.values().flat_map(|it| it.vips.iter().copied()).collect();
    for (name, service) in &state.services {
        let mut of_replicas = service.replicas.values().flat_map(|replica| &replica.addresses);
        if let Some(address) = of_replicas.find(|address| vips.contains(address)) {
            return Err(refuse(name, address, "it is a VIP, and whoever is behind one is somewhere else"));
        }
    }
    state.arrivals.iter().try_for_each(crate::Arrivals::check)?;
    state.sources.iter().try_for_each(|(vip, source)| self::source(*vip, *source, |address| vips.contains(&address)))
}

/// Whether a VIP can be reached from an address.
pub(crate) fn source(vip: IpAddr, source: IpAddr, is_vip: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
    let reason = if !is_vip(vip) {
        "no service has this VIP"
    } else if is_vip(source) {
        "it is a VIP itself"
    } else if source.is_ipv4() != vip.is_ipv4() || !is_host_address(source) || source.is_loopback() {
        "a source is an address of the client's, of the VIP's family"
    } else {
        return Ok(());
    };
    Err(Refusal::new(format!("VIP {vip}"), format!("source {source}"), reason))
}

fn refuse(name: &Name, wanted: impl Display, reason: &'static str) -> Refusal {
    Refusal::new(format!("service {name}"), wanted.to_string(), reason)
}

fn service(name: &Name, service: &Service) -> Result<(), Refusal> {
    if service.is_published() && service.ports == Ports::All {
        return Err(refuse(
            name,
            "no VIP",
            "it needs one, or one of each family, or ports of the machine's own by name",
        ));
    }
    each_of_a_family(name, "VIPs", &service.vips)?;
    ports(name, &service.ports)?;
    access(name, service)?;
    if let Some(Affinity { timeout }) = service.affinity {
        seconds(name, "affinity", timeout)?;
    }
    if let Some(Timeouts { established, transitory, datagram }) = service.timeouts {
        [established, transitory, datagram].into_iter().try_for_each(|it| seconds(name, "timeout", it))?;
    }
    replicas(name, service)
}

/// At most one address of each family, and each of a kind that a host can have.
fn each_of_a_family(name: &Name, what: &'static str, addresses: &[IpAddr]) -> Result<(), Refusal> {
    if let Some(bad) = addresses.iter().find(|it| !is_host_address(**it) || it.is_loopback()) {
        return Err(refuse(name, bad, "that is no address that one host has on a network"));
    }
    let of_v4 = addresses.iter().filter(|it| it.is_ipv4()).count();
    if of_v4 > 1 || addresses.len() - of_v4 > 1 {
        return Err(refuse(name, format!("{} {what}", addresses.len()), "there is one of each family at most"));
    }
    Ok(())
}

fn ports(name: &Name, ports: &Ports) -> Result<(), Refusal> {
    let Ports::Named(named) = ports else { return Ok(()) };
    if named.is_empty() {
        return Err(refuse(name, "no port", "then nothing is served: name one, or serve all"));
    }
    let mut seen = BTreeSet::new();
    match named.iter().find(|it| !seen.insert((it.protocol, it.port))) {
        Some(twice) => Err(refuse(name, twice, "a port leads to one port of the replicas")),
        None => Ok(()),
    }
}

/// Where it is found, and by whom: of a published service only.
fn access(name: &Name, service: &Service) -> Result<(), Refusal> {
    let Service { bind, sources, .. } = service;
    if !service.is_published() && (*bind != Bind::Any || !sources.is_empty()) {
        let wanted = format!("VIPs{bind} for {} sources", sources.len());
        return Err(refuse(name, wanted, "where it is found and by whom is said of a published service only"));
    }
    if !service.is_published() && service.masquerade {
        let reason = "whom its replicas see is said of a published service only";
        return Err(refuse(name, "VIPs as the machine", reason));
    }
    match bind {
        Bind::Addresses(none) if none.is_empty() => {
            return Err(refuse(name, "no address", "it is published at one at least, or at any"));
        }
        Bind::Interfaces(none) if none.is_empty() => {
            return Err(refuse(name, "no interface", "it is published at one at least, or at any"));
        }
        Bind::Addresses(addresses) => {
            if let Some(bad) = addresses.iter().find(|it| !is_host_address(**it) || is_near(**it)) {
                return Err(refuse(
                    name,
                    bad,
                    "nothing is published there: it is no host's, or goes no further than a link",
                ));
            }
        }
        Bind::Any | Bind::Interfaces(_) => {}
    }
    let is_mapped = |it: &IpAddr| matches!(it, IpAddr::V6(it) if it.to_ipv4_mapped().is_some());
    match sources.iter().find(|net| net.trunc() != **net || is_mapped(&net.addr())) {
        Some(net) => Err(refuse(name, net, "a source is a network without bits behind its prefix, IPv4 as IPv4")),
        None => Ok(()),
    }
}

fn seconds(name: &Name, what: &str, span: Duration) -> Result<(), Refusal> {
    match (span.subsec_nanos(), span.as_secs()) {
        (0, 1..=MAX_SECONDS) => Ok(()),
        _ => Err(refuse(name, format!("{what} {span:?}"), "it is 1 s to 30 days, in whole seconds")),
    }
}

fn replicas(name: &Name, service: &Service) -> Result<(), Refusal> {
    if service.replicas.len() > Service::MAX_REPLICAS {
        let count = format!("{} replicas", service.replicas.len());
        return Err(refuse(name, count, "a service has 4,096 at most"));
    }
    let mut seen = BTreeSet::new();
    for (endpoint, replica) in &service.replicas {
        let Replica { addresses, .. } = replica;
        each_of_a_family(name, "addresses of a replica", addresses)?;
        if !addresses.iter().any(|it| service.serves(IpFamily::of(*it))) {
            let text = format!("replica {}: {replica}", endpoint.short());
            return Err(refuse(name, text, "it has no address of the family of a VIP"));
        }
        if let Some(twice) = addresses.iter().find(|it| !seen.insert(**it)) {
            return Err(refuse(name, twice, "two replicas cannot have one address"));
        }
    }
    Ok(())
}

/// The places at which services are.
#[derive(Default)]
struct Taken {
    all: BTreeMap<IpAddr, Name>,
    named: BTreeMap<(IpAddr, Protocol, Port), Name>,
    published: BTreeMap<(Protocol, Port), Name>,
}

impl Taken {
    fn take(&mut self, name: &Name, service: &Service) -> Result<(), Refusal> {
        let conflict = |at: String, other: &Name| {
            Err(Refusal::new(format!("service {name}"), at, format!("service {other} is there already")))
        };
        if let (true, Ports::Named(named)) = (service.is_published(), &service.ports) {
            for served in named {
                if let Some(other) = self.published.insert((served.protocol, served.port), name.clone()) {
                    return conflict(format!("the machine's {} {}", served.protocol, served.port), &other);
                }
            }
        }
        for vip in &service.vips {
            if let Some(other) = self.all.get(vip) {
                return conflict(vip.to_string(), other);
            }
            let Ports::Named(named) = &service.ports else {
                let of_vip = self.named.range((*vip, Protocol::Tcp, LOWEST)..=(*vip, Protocol::Sctp, Port::MAX));
                if let Some((_, other)) = of_vip.into_iter().next() {
                    return conflict(format!("{vip} at all ports"), other);
                }
                self.all.insert(*vip, name.clone());
                continue;
            };
            for served in named {
                let at = (*vip, served.protocol, served.port);
                if let Some(other) = self.named.insert(at, name.clone()) {
                    return conflict(format!("{vip} {} {}", served.protocol, served.port), &other);
                }
            }
        }
        Ok(())
    }
}

pub(crate) const LOWEST: Port = match Port::new(1) {
    Ok(port) => port,
    Err(_) => Port::MAX,
};

const MAX_SECONDS: u64 = 30 * 24 * 3600;
