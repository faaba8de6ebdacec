//! The way of a client from outside to a published port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use overlay_core::{IpFamily, Name, ServiceId};
use overlay_firewall::{Bind, Published, Transport};
use overlay_lb::{Ask, Asked};

use super::walk::{Walk, Way, broken};
use super::{Break, Hop};
use crate::agent::own_ends;
use crate::derive::kept;
use crate::{Knowledge, LocalEndpoint, Place, PlaceState, PublishMode, PublishedPort, Section, Service, mesh};

const HOST_HOLDS: &str = "have the host hold what is desired: it is known here, and not applied";

impl<'w> Walk<'w> {
    /// From a client that asks this node to the container that gets it.
    pub(super) fn visit(&mut self, ask: &Ask) -> Result<(), Break> {
        self.hops.push(Hop::Client {
            client: ask.from,
            at: ask.to,
            by: ask.by,
            protocol: ask.protocol,
            port: ask.port,
        });
        if ask.from.is_ipv4() != ask.to.is_ipv4() {
            return broken(
                format!("{} does not ask at {}", ask.from, ask.to),
                "ask at an address of the client's family",
            );
        }
        let (service, port) = publisher(self.knowledge, ask)?;
        self.hops.push(Hop::Published { service: service.spec.name.clone(), port: Box::new(port.clone()) });
        is_found(service, port, ask)?;
        match port.mode {
            PublishMode::Host => self.at_host(service, port, ask),
            PublishMode::Ingress | PublishMode::Local => self.by_mesh(service, port, ask),
        }
    }

    /// The node leads it to a replica by its own endpoint on the ingress network.
    fn by_mesh(&mut self, service: &Service, port: &PublishedPort, ask: &Ask) -> Result<(), Break> {
        let me = self.knowledge.me;
        let mut ingress = self.knowledge.networks.values().filter(|section| section.network.spec.ingress);
        let own = |section: &'w Section| {
            let id = mesh::endpoint(section.network.id, me);
            Some((section, id, &**section.local.get(&id)?))
        };
        let Some((section, id, local)) = ingress.find_map(|section| own(section)) else {
            return broken(
                "this node has no part in an ingress network".to_owned(),
                "create one if there is none; else its endpoint routing-mesh there says what hinders it",
            );
        };
        let device = mesh::interface(section.network.id, me);
        let part = |state: &'w PlaceState, name: &Name| {
            Some((state.lb.services.get(name)?, state.firewall.gateways.get(&device?)?))
        };
        let [wanted, held] = [self.desired, self.held].map(|of| self.state(of, &Place::Host));
        let name = match wanted.map_or(Asked::Left, |state| state.lb.asked(ask)) {
            Asked::Served(name, _) => name,
            Asked::Refused(_) => {
                return broken(no_taker(service, port), "attach one to it that is healthy, or ask another node");
            }
            Asked::Dropped(_) => return broken(not_for(service, ask), "allow its subnet, or ask from an allowed one"),
            Asked::Left => {
                let missing = "what is behind another bridge of the host overlaps the ingress network's subnets, so nothing is published here";
                return broken(missing.to_owned(), "create the ingress network with another subnet");
            }
        };
        let wanted = wanted.and_then(|state| part(state, name));
        let Some((balanced, _)) = wanted.filter(|_| held.and_then(|state| part(state, name)) == wanted) else {
            return broken(format!("the host does not lead {} {} as it should", ask.protocol, ask.port), HOST_HOLDS);
        };
        let replicas: Vec<IpAddr> = balanced.takers(IpFamily::of(ask.to)).map(|(_, _, address)| address).collect();
        let Some(to) = replicas.first().copied() else { return broken(no_taker(service, port), "attach one to it") };
        self.hops.push(Hop::Replicas { service: service.spec.name.clone(), replicas });
        let way = Way { id, section, local, to };
        let segment = self.port(way)?;
        self.policy(way, Some((ask.from, Transport::tcp(40_000, port.target.get()))))?;
        match self.peer(way)? {
            None => {
                self.here(way, segment)?;
                self.answers(section, to)
            }
            Some(remote) => {
                let vtep = self.vtep(way.section, remote)?;
                self.entry(way, segment, remote, vtep)
            }
        }
    }

    /// A container here answers through the node that took the client in.
    fn answers(&self, section: &Section, at: IpAddr) -> Result<(), Break> {
        let has = |local: &&LocalEndpoint| local.endpoint.addresses.iter().any(|own| own.addr() == at);
        let Some(local) = section.local.values().map(|local| &**local).find(has) else { return Ok(()) };
        let place = Place::Container(local.endpoint.spec.container.clone());
        let [wanted, held] = [self.desired, self.held].map(|of| {
            let state = self.state(of, &place)?;
            Some((&state.lb.arrivals, &state.routes.marked))
        });
        match held == wanted {
            true => Ok(()),
            false => broken(
                format!("{place} does not answer through the node that took the client in"),
                &format!("have {place} hold what is desired"),
            ),
        }
    }

    /// The node leads it to a container of its own.
    fn at_host(&mut self, service: &Service, port: &PublishedPort, ask: &Ask) -> Result<(), Break> {
        let family = IpFamily::of(ask.to);
        let own = containers(self.knowledge, service.id);
        if own.is_empty() {
            let missing = format!("no container of {} is on this node, which refuses who asks", service.spec.name);
            return broken(missing, &elsewhere(self.knowledge, service.id));
        }
        if ask.by.is_some()
            && !port.access.sources.is_empty()
            && !port.access.sources.iter().any(|net| net.contains(&ask.from))
        {
            return broken(not_for(service, ask), "allow its subnet, or ask from an allowed one");
        }
        let [wanted, held] = [self.desired, self.held].map(|of| {
            let all = self.state(of, &Place::Host).into_iter().flat_map(|state| state.firewall.published.values());
            let of_port = all.filter(|it| (it.protocol, it.port) == (ask.protocol, ask.port) && is_at(it, ask));
            of_port.filter_map(|it| Some((it, it.target(family)?.ip()))).collect::<Vec<_>>()
        });
        let Some((_, target)) = wanted.first() else {
            let missing = format!("no container of {} on this node has a way out by {family}", service.spec.name);
            return broken(missing, "attach it to a network of that family that is not internal");
        };
        let Some(local) = own.values().find(|local| own_ends(self.knowledge, local).contains(target)) else {
            let missing = "another container of this node publishes the port".to_owned();
            return broken(missing, "publish another port, or run one of both on another node");
        };
        if held != wanted {
            return broken(format!("the host does not lead {} {} as it should", ask.protocol, ask.port), HOST_HOLDS);
        }
        self.hops.push(Hop::Here { container: local.endpoint.spec.container.clone() });
        Ok(())
    }
}

/// Who publishes what is asked for at this node.
fn publisher<'k>(knowledge: &'k Knowledge, ask: &Ask) -> Result<(&'k Service, &'k PublishedPort), Break> {
    let what = format!("{} {}", ask.protocol, ask.port);
    let services = knowledge.networks.values().flat_map(|section| &section.services);
    // Of two with one port, the first by name has it.
    let services: BTreeMap<_, &Service> =
        services.map(|(id, service)| ((&service.spec.name, id), &**service)).collect();
    let asked = |port: &&PublishedPort| (port.protocol, port.published) == (ask.protocol, Some(ask.port));
    let all =
        services.into_values().flat_map(|service| service.ports.iter().filter(asked).map(move |port| (service, port)));
    let (here, others): (Vec<_>, Vec<_>) = all.partition(|(_, port)| port.access.is_at(knowledge.me));
    // Host ports of several services are apart on nodes, and known where one of their networks is.
    let first =
        here.iter().find(|(service, port)| port.mode.is_of_mesh() || !containers(knowledge, service.id).is_empty());
    match (first.or_else(|| here.first()), others.first()) {
        (Some(found), _) => match kept(&knowledge.settings, ask.protocol, ask.port) {
            Some(why) => broken(format!("{what} is not published here: {why}"), "publish another port"),
            None => Ok(*found),
        },
        (None, Some((service, port))) => {
            let nodes = port.access.nodes.iter().map(|node| node.short());
            broken(
                format!("{} publishes {what} at other nodes only", service.spec.name),
                &format!("ask node {}", listed(nodes)),
            )
        }
        (None, None) => broken(
            format!("no service on the networks of this node publishes {what}: it is the host's own"),
            "publish it; in mode host it is known to nodes that a network of the service is on",
        ),
    }
}

/// Whether it is where it is asked for.
fn is_found(service: &Service, port: &PublishedPort, ask: &Ask) -> Result<(), Break> {
    let name = &service.spec.name;
    let is_near = match ask.to {
        IpAddr::V4(at) => at.is_loopback() && port.mode.is_of_mesh(), // containers of this node answer there
        IpAddr::V6(at) => at.is_loopback() || at.is_unicast_link_local(),
    };
    if is_near {
        return broken(format!("{name} is not published at {}", ask.to), "ask at another address of the node");
    }
    let (addresses, interfaces) = (&port.access.addresses, &port.access.interfaces);
    if !addresses.is_empty() && !addresses.contains(&ask.to) {
        let repair = format!("ask at {}", listed(addresses));
        return broken(format!("{name} is not published at {}", ask.to), &repair);
    }
    if !interfaces.is_empty() && !ask.by.is_some_and(|by| interfaces.contains(&by)) {
        let by = ask.by.map_or_else(|| "from the node itself".to_owned(), |by| format!("for who comes in by {by}"));
        return broken(format!("{name} is not published {by}"), &format!("come in by {}", listed(interfaces)));
    }
    Ok(())
}

fn is_at(published: &Published, ask: &Ask) -> bool {
    match published.bind {
        Bind::Any => true,
        Bind::Address(address) => address == ask.to,
        Bind::Interface(interface) => ask.by == Some(interface),
    }
}

fn no_taker(service: &Service, port: &PublishedPort) -> String {
    let whose = if port.mode == PublishMode::Local { "on this node" } else { "on the ingress network" };
    format!("no endpoint of service {} {whose} takes work, so who asks is refused", service.spec.name)
}

fn not_for(service: &Service, ask: &Ask) -> String {
    format!("{} is not for {}: what it sends is dropped", service.spec.name, ask.from)
}

/// The service's endpoints on this node, one of each container.
fn containers(knowledge: &Knowledge, service: ServiceId) -> BTreeMap<&Name, &LocalEndpoint> {
    let all = knowledge.networks.values().flat_map(|section| section.local.values());
    let own = all.filter(|local| local.endpoint.spec.service == Some(service));
    own.map(|local| (&local.endpoint.spec.container, &**local)).collect()
}

/// Where to ask instead.
fn elsewhere(knowledge: &Knowledge, service: ServiceId) -> String {
    let all = knowledge.networks.values().flat_map(|section| section.remote.values());
    let nodes: BTreeSet<_> = all.filter(|remote| remote.service == Some(service)).map(|remote| remote.node).collect();
    match nodes.is_empty() {
        true => "attach a container to it on this node".to_owned(),
        false => format!("ask node {}, which has one", listed(nodes.iter().map(|node| node.short()))),
    }
}

fn listed(all: impl IntoIterator<Item: Display>) -> String {
    let texts: Vec<_> = all.into_iter().map(|it| it.to_string()).collect();
    texts.join(" or ")
}
