//! Hop by hop.

use std::collections::BTreeSet;
use std::net::IpAddr;

use overlay_core::{EndpointId, IpFamily, Name, NetworkId};
use overlay_dns::DnsName;
use overlay_firewall::{Content, Flow, Frame, Ip, Judge, Packet, Transport};
use overlay_vxlan::{Segment, names};

use super::{Break, Hop, NameOf, Said, ServiceBackend, Target};
use crate::derive::{Fitness, holds, reaches};
use crate::{
    Contest, Desired, EndpointMode, Kind, Knowledge, LocalEndpoint, Place, PlaceState, RemoteEndpoint, Section,
};

/// What is known, what follows, and what is there.
pub(super) struct Walk<'w> {
    pub(super) knowledge: &'w Knowledge,
    /// What nodes say that does not count.
    pub(super) contested: &'w [Said<'w>],
    pub(super) desired: &'w Desired,
    pub(super) held: &'w Desired,
    pub(super) hops: Vec<Hop>,
}

/// An endpoint of the container, or the node's own, on the network that the packet takes.
#[derive(Clone, Copy)]
pub(super) struct Way<'w> {
    pub(super) id: EndpointId,
    pub(super) section: &'w Section,
    pub(super) local: &'w LocalEndpoint,
    pub(super) to: IpAddr,
}

impl<'w> Walk<'w> {
    pub(super) fn go(&mut self, from: EndpointId, to: &Target) -> Result<(), Break> {
        let local = self.from(from)?;
        let addresses = match to {
            Target::Name(name) => self.name(local, name)?,
            Target::Address(address) => vec![*address],
        };
        if let (Target::Address(address), Some(_)) = (to, &local.namespace)
            && self.ways(local, *address).is_empty()
        {
            return self.outside(local, *address);
        }
        let way = self.route(local, &addresses)?;
        match way.section.network.spec.kind {
            Kind::Overlay => {}
            kind => return self.local(way, kind),
        }
        let way = self.balanced(way)?;
        let segment = self.port(way)?;
        let own =
            way.local.endpoint.addresses.iter().map(|own| own.addr()).find(|own| own.is_ipv4() == way.to.is_ipv4());
        self.policy(way, own.map(|own| (own, Transport::tcp(40_000, 80))))?;
        let Some(remote) = self.peer(way)? else { return self.here(way, segment) };
        let vtep = self.vtep(way.section, remote)?;
        self.entry(way, segment, remote, vtep)
    }

    /// The endpoint is here and fit.
    fn from(&mut self, id: EndpointId) -> Result<&'w LocalEndpoint, Break> {
        let section = self.knowledge.networks.values().find(|section| section.local.contains_key(&id));
        let Some((section, local)) = section.and_then(|section| Some((section, section.local.get(&id)?))) else {
            let missing = format!("endpoint {} is not plugged in on this node", id.short());
            return broken(missing, "plug it in here, or ask the node that its record names");
        };
        Fitness::of(self.knowledge, section).check(id).or_else(|reason| {
            broken(
                format!("{} is not in effect: {reason}", local.endpoint.spec.container),
                "change what the reason says",
            )
        })?;
        let container = local.endpoint.spec.container.clone();
        self.hops.push(Hop::From { container, network: section.network.spec.name.clone() });
        Ok(local)
    }

    /// The container's resolver gives what it should.
    fn name(&mut self, local: &LocalEndpoint, name: &DnsName) -> Result<Vec<IpAddr>, Break> {
        let place = self.place_of(local);
        let known = self.state(self.desired, &place).and_then(|state| state.view.addresses(name));
        let given = self.state(self.held, &place).and_then(|state| state.view.addresses(name));
        let Some(known) = known.filter(|known| !known.is_empty()) else { return self.nameless(local, name) };
        if given.as_ref() != Some(&known) {
            let missing = format!("the resolver of {place} does not have {name} as it is known: {}", list(&known));
            return broken(missing, &format!("give the resolver the view that is desired for {place}"));
        }
        let of = self.named_for(local, name);
        self.hops.push(Hop::Name { name: name.clone(), addresses: known.clone(), of });
        Ok(known)
    }

    /// Whose name it is. A name with more labels than `tasks.` before a service's is an endpoint's.
    fn named_for(&self, local: &LocalEndpoint, name: &DnsName) -> NameOf {
        let mut labels = name.labels();
        let first = labels.next().unwrap_or_default();
        let tasks = first.eq_ignore_ascii_case(b"tasks").then(|| labels.next()).flatten();
        let called = |name: &Name| name.as_str().as_bytes().eq_ignore_ascii_case(tasks.unwrap_or(first));
        for section in self.sections_of(local) {
            let named = section.services.values().find(|it| {
                let aliases = it.spec.networks.get(&section.network.id).into_iter().flatten();
                std::iter::once(&it.spec.name).chain(aliases).any(called)
            });
            if let Some(service) = named {
                let service_name = service.spec.name.clone();
                return match service.spec.mode {
                    _ if tasks.is_some() => NameOf::Tasks(service_name),
                    EndpointMode::Vip => NameOf::Vip(service_name),
                    EndpointMode::RoundRobin => NameOf::RoundRobin(service_name),
                };
            }
        }
        NameOf::Endpoint
    }

    /// Why a name stands for nothing.
    fn nameless<T>(&self, local: &LocalEndpoint, name: &DnsName) -> Result<T, Break> {
        let first = name.labels().next().unwrap_or_default();
        for section in self.sections_of(local) {
            let called = |endpoint: &RemoteEndpoint| endpoint.container.as_str().as_bytes().eq_ignore_ascii_case(first);
            if let Some((id, remote)) = section.remote.iter().find(|(_, remote)| called(remote)) {
                let reached = remote.addresses.iter().map(|address| reaches(self.knowledge, section, *id, *address));
                let why =
                    reached.collect::<Result<(), String>>().err().unwrap_or_else(|| "it is about to end".to_owned());
                let missing =
                    format!("{} is on node {}, and given to nobody: {why}", remote.container, remote.node.short());
                return broken(missing, "mend it on that node");
            }
        }
        let ours = |said: &&Said<'_>| self.sections_of(local).any(|section| section.network.id == said.network);
        let called = |said: &&Said<'_>| said.endpoint.container.as_str().as_bytes().eq_ignore_ascii_case(first);
        if let Some(said) = self.contested.iter().filter(ours).find(called) {
            return unbelieved(said, &format!("that it has {}", said.endpoint.container));
        }
        let networks: Vec<_> = self.sections_of(local).map(|section| section.network.spec.name.as_str()).collect();
        let missing = format!(
            "nobody is called {name} on the networks of {}: {}",
            local.endpoint.spec.container,
            networks.join(", ")
        );
        broken(missing, "attach both to one network; if the name is new, its node has yet to plug it in or to be heard")
    }

    /// One of the container's endpoints is on a network that has the address, and a route leads there.
    fn route(&mut self, local: &LocalEndpoint, addresses: &[IpAddr]) -> Result<Way<'w>, Break> {
        let ways: Vec<Way<'w>> = addresses.iter().flat_map(|to| self.ways(local, *to)).collect();
        let Some(way) = ways.first().copied() else {
            let missing = format!("no network of {} has {}", local.endpoint.spec.container, list(addresses));
            return broken(
                missing,
                "attach the container to a network that has it, in its family; what is outside leaves by the gateway",
            );
        };
        let to = way.to;
        let on_link = way.local.endpoint.addresses.iter().any(|own| own.contains(&to));
        let place = self.place_of(local);
        let routed = |state: &PlaceState| {
            let interface = way.local.interface;
            state
                .routes
                .to
                .iter()
                .any(|(net, route)| net.prefix_len() > 0 && net.contains(&to) && route.interface == interface)
        };
        if !on_link && !self.state(self.held, &place).is_some_and(routed) {
            return broken(format!("{place} has no route to {to}"), &format!("have {place} hold what is desired"));
        }
        let (interface, network) = (way.local.interface, way.section.network.spec.name.clone());
        self.hops.push(Hop::Route { to, interface, network });
        Ok(way)
    }

    /// The ways to an address on the link.
    fn ways(&self, local: &LocalEndpoint, to: IpAddr) -> Vec<Way<'w>> {
        let container = &local.endpoint.spec.container;
        let mut ways = Vec::new();
        for section in self.knowledge.networks.values() {
            let fitness = Fitness::of(self.knowledge, section);
            let covers = section.network.subnets.iter().any(|subnet| subnet.net().contains(&to));
            for (id, local) in
                section.local.iter().filter(|(_, local)| covers && local.endpoint.spec.container == *container)
            {
                let speaks = local.endpoint.addresses.iter().any(|own| IpFamily::of(own.addr()) == IpFamily::of(to));
                if speaks && fitness.check(*id).is_ok() {
                    ways.push(Way { id: *id, section, local, to });
                }
            }
        }
        ways
    }

    /// The way on a network that each node has for itself.
    fn local(&mut self, way: Way<'w>, kind: Kind) -> Result<(), Break> {
        self.plugged(way.section, way.id, way.local)?;
        if let Kind::Macvlan { parent, .. } = kind {
            self.hops.push(Hop::Physical { to: way.to, parent });
            return Ok(());
        }
        let here = |local: &LocalEndpoint| local.endpoint.addresses.iter().any(|own| own.addr() == way.to);
        let Some((id, other)) = way.section.local.iter().find(|(_, local)| here(local)) else {
            let missing = format!("nobody on this node's bridge of {} has {}", way.section.network.spec.name, way.to);
            return broken(
                missing,
                "each node has a bridge of its own: put both on one node, or on an overlay network",
            );
        };
        self.plugged(way.section, *id, other)?;
        self.hops.push(Hop::Here { container: other.endpoint.spec.container.clone() });
        Ok(())
    }

    /// What an endpoint of such a network is plugged in by is there.
    pub(super) fn plugged(&self, section: &Section, id: EndpointId, local: &LocalEndpoint) -> Result<(), Break> {
        let held = |place: &Place| self.held.places.get(place).cloned();
        match holds(section, self.knowledge.me, (id, local), held) {
            (_, true) => Ok(()),
            (place, false) => {
                let container = &local.endpoint.spec.container;
                let missing =
                    format!("{place}: the interface of {container} is missing, or otherwise than it should be");
                broken(missing, &format!("have {place} hold what is desired: it is known here, and not applied"))
            }
        }
    }

    /// Behind a VIP, a replica.
    fn balanced(&mut self, way: Way<'w>) -> Result<Way<'w>, Break> {
        let section = way.section;
        let mut services = section.services.values();
        let has = |vips: &BTreeSet<IpAddr>| vips.contains(&way.to);
        let named = services.find(|service| service.vips.get(&section.network.id).is_some_and(has));
        let Some(service) = named.map(|service| &service.spec.name) else { return Ok(way) };
        let place = self.place_of(way.local);
        if way.local.namespace.is_none() {
            let missing = format!("{} is the VIP of {service}, which a virtual machine does not balance", way.to);
            return broken(missing, &format!("ask for tasks.{service} instead"));
        }
        let [wanted, held] = [self.desired, self.held].map(|of| {
            let lb = &self.state(of, &place)?.lb;
            Some((lb.services.values().find(|service| service.vips.contains(&way.to))?, lb.sources.get(&way.to)))
        });
        if wanted.is_none() || held != wanted {
            let missing = format!("{place} does not balance {} of {service} as it should", way.to);
            return broken(missing, &format!("have {place} hold what is desired"));
        }
        let mut takers = held.iter().flat_map(|(service, _)| service.takers(IpFamily::of(way.to)));
        let Some((_, _, replica)) = takers.next() else {
            let missing = format!("no endpoint of service {service} takes work");
            return broken(
                missing,
                "attach one to it, or see why those that it has are not in effect, or about to end",
            );
        };
        let (service, replicas) = (service.clone(), 1 + takers.count());
        let backends = held.iter().flat_map(|(service, _)| service.replicas.values()).map(|it| ServiceBackend {
            addresses: it.addresses.iter().copied().collect(),
            condition: it.condition,
            weight: it.weight,
        });
        let backends = backends.collect();
        self.hops.push(Hop::Service { service, vip: way.to, replicas, replica, backends });
        Ok(Way { to: replica, ..way })
    }

    /// The sandbox has the endpoint's port.
    pub(super) fn port(&self, way: Way<'_>) -> Result<&'w Segment, Break> {
        let network = way.section.network.id;
        let held = self.segment(self.held, network);
        let wanted = self.segment(self.desired, network).and_then(|segment| segment.ports.get(&way.id));
        match held {
            Some(segment) if segment.ports.get(&way.id) == wanted => Ok(segment),
            Some(_) => self.unheld(network, "the port of the container is missing, or otherwise than it should be"),
            None => self.unheld(network, "the network's segment is missing"),
        }
    }

    /// The sandbox's firewall lets a packet of the endpoint pass, from this source.
    pub(super) fn policy(&mut self, way: Way<'_>, from: Option<(IpAddr, Transport)>) -> Result<(), Break> {
        let network = way.section.network.id;
        let Some(state) = self.state(self.held, &Place::Network(network)) else {
            return self.unheld(network, "its firewall is missing");
        };
        let ip = from.and_then(|(source, transport)| Ip::between(source, way.to, transport));
        let vni = way.section.network.vni.and_then(|vni| Some((names::bridge(vni).ok()?, names::tunnel(vni).ok()?)));
        let port = if way.local.namespace.is_some() { names::port(way.id).ok() } else { Some(way.local.interface) };
        let (Some(ip), Some((bridge, tunnel)), Some(port)) = (ip, vni, port) else { return Ok(()) };
        let frame = Frame { port, out: Some(tunnel), source: way.local.endpoint.mac };
        let judge = Judge::new(&state.firewall);
        let verdict = judge.judge(&Packet::bridged(bridge, frame, Content::Ip(ip)), Flow::New);
        if verdict.ruling.passes() {
            self.hops.push(Hop::Policy { rule: verdict.rule.to_string() });
            return Ok(());
        }
        let missing = format!("a packet to {} is dropped by {}", way.to, verdict.rule);
        let wanted = self.state(self.desired, &Place::Network(network));
        match wanted.is_some_and(|wanted| wanted.firewall == state.firewall) {
            true => broken(missing, "change the policy, if it should pass"),
            false => {
                broken(missing, &format!("have {} hold what is desired: its firewall differs", Place::Network(network)))
            }
        }
    }

    /// The endpoint elsewhere that has the address; `None` if it is one here.
    pub(super) fn peer(&mut self, way: Way<'w>) -> Result<Option<&'w RemoteEndpoint>, Break> {
        let section = way.section;
        let here = |local: &LocalEndpoint| local.endpoint.addresses.iter().any(|own| own.addr() == way.to);
        if let Some(local) = section.local.values().find(|local| here(local)) {
            self.hops.push(Hop::Peer { container: local.endpoint.spec.container.clone(), mac: local.endpoint.mac });
            return Ok(None);
        }
        let claims = section.remote.iter().filter(|(_, remote)| remote.addresses.contains(&way.to));
        let (mut fit, mut reason) = (None, None);
        for (id, remote) in claims {
            match reaches(self.knowledge, section, *id, way.to) {
                Ok(()) => fit = Some(&**remote),
                Err(why) => reason = Some((remote, why)),
            }
        }
        match (fit, reason) {
            (Some(remote), _) => {
                self.hops.push(Hop::Peer { container: remote.container.clone(), mac: remote.mac });
                Ok(Some(remote))
            }
            (None, Some((remote, why))) => broken(
                format!("{} of node {} says it has {}, but {why}", remote.container, remote.node.short(), way.to),
                "mend it on that node",
            ),
            (None, None) => {
                let its =
                    |said: &&Said<'_>| said.network == section.network.id && said.endpoint.addresses.contains(&way.to);
                if let Some(said) = self.contested.iter().find(its) {
                    return unbelieved(said, &format!("that {} has {}", said.endpoint.container, way.to));
                }
                broken(
                    format!("nobody is known to have {} on {}", way.to, section.network.spec.name),
                    "see whether its node is alive, in the cluster, and has it plugged in",
                )
            }
        }
    }

    pub(super) fn here(&mut self, way: Way<'_>, segment: &Segment) -> Result<(), Break> {
        let other =
            way.section.local.iter().find(|(_, local)| local.endpoint.addresses.iter().any(|own| own.addr() == way.to));
        match other {
            Some((id, local)) if segment.ports.contains_key(id) => {
                self.hops.push(Hop::Here { container: local.endpoint.spec.container.clone() });
                Ok(())
            }
            _ => self.unheld(way.section.network.id, &format!("the port of the container at {} is missing", way.to)),
        }
    }

    /// The other node's VTEP is known, and the host lets its datagrams in.
    pub(super) fn vtep(&mut self, section: &Section, remote: &RemoteEndpoint) -> Result<IpAddr, Break> {
        let Some(facts) = self.knowledge.nodes.get(&remote.node) else {
            return broken(
                format!("nothing is known of node {}", remote.node.short()),
                "see whether it is in the cluster",
            );
        };
        let Some(port) = self.knowledge.settings.tunnel_port(&section.network) else {
            return broken(
                format!("network {} has no port that tunnels are at", section.network.spec.name),
                "have managers and nodes keep the same ports for networks that have their own",
            );
        };
        let guard = self.state(self.held, &Place::Host).and_then(|host| host.firewall.tunnels.get(&port));
        if !guard.is_some_and(|guard| guard.members.contains(&facts.vtep)) {
            let missing = format!("the host drops datagrams from {} at port {port}", facts.vtep);
            return broken(missing, "have the host hold what is desired");
        }
        self.hops.push(Hop::Vtep { node: remote.node, vtep: facts.vtep, standing: facts.standing });
        self.sealed(section, remote.node, port)?;
        Ok(facts.vtep)
    }

    /// The segment knows the peer.
    pub(super) fn entry(
        &mut self,
        way: Way<'_>,
        segment: &Segment,
        remote: &RemoteEndpoint,
        vtep: IpAddr,
    ) -> Result<(), Break> {
        let (network, mac) = (way.section.network.id, remote.mac);
        match segment.peers.get(&mac) {
            Some(peer) if peer.vtep != vtep => {
                self.unheld(network, &format!("frames to {mac} are sent to {} instead of {vtep}", peer.vtep))
            }
            Some(peer) if peer.addresses.contains(&way.to) => {
                self.hops.extend(way.section.network.vni.map(|vni| Hop::Entry { vni, mac, vtep }));
                Ok(())
            }
            Some(_) => self.unheld(network, &format!("{} is not answered for with {mac}", way.to)),
            None => self.unheld(network, &format!("the segment has no entry for {mac}")),
        }
    }

    /// What is known is not what is there.
    fn unheld<T>(&self, network: NetworkId, missing: &str) -> Result<T, Break> {
        let place = Place::Network(network);
        broken(
            format!("{place}: {missing}"),
            &format!("have {place} hold what is desired: it is known here, and not applied"),
        )
    }

    fn sections_of(&self, local: &LocalEndpoint) -> impl Iterator<Item = &'w Section> {
        let container = local.endpoint.spec.container.clone();
        let of =
            move |section: &&Section| section.local.values().any(|local| local.endpoint.spec.container == container);
        self.knowledge.networks.values().map(|section| &**section).filter(of)
    }

    fn segment(&self, of: &'w Desired, network: NetworkId) -> Option<&'w Segment> {
        self.state(of, &Place::Network(network))?.vxlan.segments.values().next()
    }

    pub(super) fn state(&self, of: &'w Desired, place: &Place) -> Option<&'w PlaceState> {
        of.places.get(place).map(|state| &**state)
    }

    /// Where the container's routes and names are; a virtual machine's names are its sandbox's.
    fn place_of(&self, local: &LocalEndpoint) -> Place {
        match local.namespace {
            Some(_) => Place::Container(local.endpoint.spec.container.clone()),
            None => Place::Network(local.endpoint.spec.network),
        }
    }
}

pub(super) fn broken<T>(missing: String, repair: &str) -> Result<T, Break> {
    Err(Break { missing, repair: repair.to_owned() })
}

/// Somebody says what would lead on, and it does not count.
fn unbelieved<T>(said: &Said<'_>, what: &str) -> Result<T, Break> {
    let repair = match said.why {
        Contest::Unknown => {
            "see by the status whether this node hears the catalogue; if it does, the endpoint was detached: unplug it on that node"
        }
        Contest::Here => "the endpoint has moved here: unplug it on that node",
        Contest::Owner { .. } => "the endpoint is elsewhere: unplug it on the node that says it has it",
        Contest::Address { .. } | Contest::Mac { .. } | Contest::Service | Contest::Names | Contest::Labels => {
            "that node says what the catalogue has otherwise: if it goes on for seconds, attach the endpoint there anew, or remove the node"
        }
    };
    broken(format!("node {} says {what}, which does not count: {}", said.endpoint.node.short(), said.why), repair)
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}
