//! The names of one network.

mod compile;
mod entry;
mod innate;
mod knowledge;
mod trie;
mod view;
mod whole;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{AddressSet, EndpointId, Name};
use smallvec::SmallVec;

pub use self::knowledge::{Endpoint, Health, Mode, Service};
pub use self::view::View;

use self::entry::{By, Found, Named, Source};
use self::innate::{Bearers, ByAddress, ById, Innate};
use self::trie::Trie;
use crate::name::reversed;
use crate::{DnsName, Question, RecordTtl, RecordType, Srv, Txt};

/// All names of one network, as a value: built whole, looked up in O(1), and cheap to copy and to change.
///
/// A copy shares everything with the original. A change copies what lies on the way to the names it touches, so to
/// publish one is to clone the zone, change the clone and swap it in: 10⁵ names cost no more than ten. Whatever the
/// order in which services and endpoints are put and removed, the zone is the one that those left would make.
///
/// | put | names that it gives |
/// |---|---|
/// | [`Service`] | its name and aliases (its VIPs, or its endpoints' addresses), `tasks.` before each of them (its endpoints' addresses), `_port._proto.` before each (SRV of the VIP, or of its endpoints), `_port._proto.tasks.` before each (SRV of its endpoints, by the beginnings of their ids), the reverse of its VIPs (PTR) |
/// | [`Endpoint`] | its own names, its id's first 12 characters, the reverse of its addresses (PTR) |
/// | records | any name, with addresses, SRV, PTR or TXT as they are given |
///
/// Where a name is given by several, its addresses are those of services; without services, of endpoints; without those, of
/// records: nobody captures a service's traffic by calling a container after it. Several of one rank are merged, and so
/// are SRV, PTR and TXT. A name once given by somebody is known even if no address is left: it is not asked elsewhere.
///
/// ```
/// use overlay_core::EndpointId;
/// use overlay_dns::{Endpoint, Mode, Policy, Service, View, Zone};
///
/// let mut zone = Zone::new("customoverlay".parse()?, Policy::default());
/// zone.put_service(Service::new("web".parse()?, Mode::Vip([[10, 0, 9, 2].into()].into())));
/// let mut task = Endpoint::new(EndpointId::from_bytes([7; 16]), [[10, 0, 9, 3].into()]);
/// task.names.push("web.1".parse()?);
/// task.service = Some("web".parse()?);
/// zone.put_endpoint(task);
///
/// let before = View::from(zone.clone());
/// zone.remove_endpoint(EndpointId::from_bytes([7; 16]));
/// let after = View::from(zone);
/// assert_eq!(before.addresses(&"tasks.web".parse()?), Some(vec![[10, 0, 9, 3].into()]));
/// assert_eq!(after.addresses(&"tasks.web".parse()?), Some(vec![])); // known, and empty
/// assert_eq!(after.addresses(&"web.1".parse()?), None); // not known
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    network: Name,
    label: DnsName,
    policy: Policy,
    /// But for those that are [innate](Innate), unless somebody gives them as well.
    names: Trie<Named>,
    /// How many names end with the network's own label, which is taken from a name that is asked for.
    ambiguous: usize,
    services: Trie<Arc<Group>>,
    endpoints: Trie<Bearers, ById>,
    addresses: Trie<Bearers, ByAddress>,
    records: Trie<Arc<Given>>,
}

/// What holds for all names of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The network's subnets: an address in them that nobody has is answered with NXDOMAIN, and never asked elsewhere.
    pub subnets: Vec<IpNet>,
    /// Whether nothing may leave this network (an *internal* network). A view that has only such networks forwards nothing.
    pub internal: bool,
    /// How long a service's VIP may be kept, and its SRV and TXT. 5 s by default: VIPs live as long as their service, and a client that
    /// keeps one past its end asks again soon.
    pub service_ttl: RecordTtl,
    /// How long the addresses of a service's endpoints may be kept, in mode `dnsrr` and by `tasks.`: 0 by default, since
    /// who keeps them sends to endpoints that are gone, and to few of those that are there.
    pub members_ttl: RecordTtl,
    /// How long an endpoint's own name, and PTR, may be kept: 5 s by default.
    pub endpoint_ttl: RecordTtl,
}

impl Default for Policy {
    fn default() -> Self {
        let seconds = RecordTtl::from_secs(5);
        Self {
            subnets: Vec::new(),
            internal: false,
            service_ttl: seconds,
            members_ttl: RecordTtl::ZERO,
            endpoint_ttl: seconds,
        }
    }
}

/// Records that are given as they are, for one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// How long they may be kept; [`Policy::service_ttl`] if not said.
    pub ttl: Option<RecordTtl>,
    /// A and AAAA.
    pub addresses: BTreeSet<IpAddr>,
    /// SRV.
    pub srv: BTreeSet<Srv>,
    /// PTR.
    pub ptr: BTreeSet<DnsName>,
    /// TXT.
    pub txt: BTreeSet<Txt>,
}

/// A service and the endpoints that said they are its; either may be known first.
#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    service: Option<Service>,
    /// In the order of their ids.
    members: Vec<Arc<Endpoint>>,
}

impl Group {
    /// Sets or removes a member.
    fn set(&mut self, id: EndpointId, member: Option<Arc<Endpoint>>) {
        let at = self.members.partition_point(|held| held.id < id);
        let held = self.members.get(at).is_some_and(|held| held.id == id);
        self.members.splice(at..at + usize::from(held), member);
    }
}

/// A name on the wire, in small letters; or an [address](address_key) that is looked up backwards.
type Key = SmallVec<[u8; 40]>;

impl Zone {
    /// A zone without names.
    pub fn new(network: Name, policy: Policy) -> Self {
        Self {
            label: DnsName::from(&network.folded()),
            network,
            policy,
            names: Trie::default(),
            ambiguous: 0,
            services: Trie::default(),
            endpoints: Trie::default(),
            addresses: Trie::default(),
            records: Trie::default(),
        }
    }

    /// The network's name, under which its names are found too: `web.customoverlay`.
    pub fn network(&self) -> &Name {
        &self.network
    }

    /// What holds for all its names.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How many names there are, reverse ones included. O(n).
    pub fn len(&self) -> usize {
        let twice = self.names.keys().filter(|key| self.is_innate(key)).count();
        self.names.len() + self.endpoints.len() + self.addresses.len() - twice
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.names.len() + self.endpoints.len() == 0
    }

    /// Puts a service, in place of the one that had its name. O(its names × its endpoints).
    pub fn put_service(&mut self, service: Service) {
        let key = service_key(&service.name);
        self.change_group(&key, |group| group.service = Some(service));
    }

    /// Removes a service; its endpoints keep their own names.
    pub fn remove_service(&mut self, name: &Name) {
        self.change_group(&service_key(name), |group| group.service = None);
    }

    /// Puts an endpoint, in place of the one that had its id. O(its names), and for a service's endpoint O(the service's names ×
    /// its endpoints).
    pub fn put_endpoint(&mut self, endpoint: Endpoint) {
        self.change_endpoint(endpoint.id, Some(Arc::new(endpoint)));
    }

    /// Removes an endpoint.
    pub fn remove_endpoint(&mut self, id: EndpointId) {
        self.change_endpoint(id, None);
    }

    /// Gives a name records as they are, in place of those it was given so before; none take them away.
    pub fn put_records(&mut self, name: &DnsName, records: Given) {
        let key = key(name);
        let given = (records != Given::default()).then(|| Arc::new(records));
        let is = given.is_some();
        self.records.alter(&key, |_| given);
        self.give(&key, &Source::Records, is);
    }

    /// The endpoint that has this id, as it was put.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.shared(id).map(AsRef::as_ref)
    }

    /// The service that has this name, as it was put.
    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(&service_key(name))?.service.as_ref()
    }

    /// The endpoints of a service, in the order of their ids; O(1) to begin.
    pub fn members(&self, service: &Name) -> impl Iterator<Item = &Endpoint> + Clone {
        let group = self.services.get(&service_key(service));
        group.into_iter().flat_map(|group| &group.members).map(AsRef::as_ref)
    }

    /// What is known of a name on the wire, in small letters; O(1).
    #[inline]
    pub(crate) fn entry(&self, key: &[u8]) -> Option<Found<'_>> {
        match reversed(key) {
            Some(address) => self.kept_or_made(&address_key(address)),
            None => self.kept_or_made(key),
        }
    }

    #[inline]
    fn kept_or_made(&self, key: &[u8]) -> Option<Found<'_>> {
        if let Some(named) = self.names.get(key) {
            return Some(Found::Kept(&named.sets));
        }
        self.is_innate(key).then(|| Found::Made(compile::sets(self, key, &[])))
    }

    /// As [`entry`](Self::entry), of a name that ends with the network's own label: hardly ever is there one.
    #[inline]
    pub(crate) fn ambiguous_entry(&self, key: &[u8]) -> Option<Found<'_>> {
        if self.ambiguous == 0 && self.label() != ARPA { None } else { self.entry(key) }
    }

    /// The endpoints that have such a name.
    fn bearers(&self, name: Innate) -> &[Arc<Endpoint>] {
        let bearers = match name {
            Innate::Id(beginning) => self.endpoints.get(&beginning.to_be_bytes()),
            Innate::Address(address) => self.addresses.get(&innate::by_address(address)),
        };
        bearers.map_or(&[], |bearers| bearers)
    }

    /// Whether an endpoint has such a name by its id, or an address.
    fn is_innate(&self, key: &[u8]) -> bool {
        Innate::of(key).is_some_and(|name| !self.bearers(name).is_empty())
    }

    /// The label under which the names are found too, on the wire and in small letters.
    #[inline]
    pub(crate) fn label(&self) -> &[u8] {
        self.label.as_wire()
    }

    fn shared(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&innate::by_id(id))?.iter().find(|bearer| bearer.id == id)
    }

    fn change_endpoint(&mut self, id: EndpointId, new: Option<Arc<Endpoint>>) {
        let old = self.shared(id).cloned();
        let keys = |endpoint: &Endpoint| knowledge::innate_keys(endpoint).collect::<Vec<_>>();
        let innate: BTreeSet<Key> = old.as_deref().into_iter().chain(new.as_deref()).flat_map(keys).collect();
        self.bear(id, old.as_deref(), new.as_ref());
        let before = old.as_deref().map(knowledge::endpoint_names).unwrap_or_default();
        let after = new.as_deref().map(knowledge::endpoint_names).unwrap_or_default();
        self.replace_sources(&before, &after);
        innate.iter().for_each(|key| self.compile(key));
        let group = |endpoint: &Endpoint| endpoint.service.as_ref().map(service_key);
        let (from, to) = (old.as_deref().and_then(group), new.as_deref().and_then(group));
        if let Some(from) = from.filter(|from| to.as_ref() != Some(from)) {
            self.change_group(&from, |group| group.set(id, None));
        }
        if let (Some(to), Some(endpoint)) = (to, new) {
            self.change_group(&to, |group| group.set(id, Some(endpoint)));
        }
    }

    /// Puts an endpoint where it is found by its id and addresses, and the former there no more.
    fn bear(&mut self, id: EndpointId, old: Option<&Endpoint>, new: Option<&Arc<Endpoint>>) {
        self.endpoints.alter(&innate::by_id(id), |held| innate::replaced(held, id, new.cloned()));
        let both = || old.into_iter().chain(new.map(AsRef::as_ref));
        let addresses: AddressSet = both().flat_map(|endpoint| endpoint.addresses.iter().copied()).collect();
        for address in &addresses {
            let new = new.filter(|endpoint| endpoint.addresses.contains(address));
            self.addresses.alter(&innate::by_address(*address), |held| innate::replaced(held, id, new.cloned()));
        }
    }

    /// Compiles anew what a name stands for that is kept.
    fn compile(&mut self, key: &[u8]) {
        let Some(old) = self.names.get(key) else { return };
        let new = Named { sets: compile::sets(self, key, old.by.as_slice()), by: old.by.clone() };
        if *old != new {
            self.names.alter(key, |_| Some(new));
        }
    }

    fn change_group(&mut self, key: &Key, change: impl FnOnce(&mut Group)) {
        let mut group = self.services.get(key).map(|group| Group::clone(group)).unwrap_or_default();
        let before = group.service.as_ref().map(knowledge::service_names).unwrap_or_default();
        change(&mut group);
        let after = group.service.as_ref().map(knowledge::service_names).unwrap_or_default();
        self.services.alter(key, |_| (group != Group::default()).then(|| Arc::new(group)));
        self.replace_sources(&before, &after);
    }

    /// Says at each name who gives it, and what it stands for now.
    fn replace_sources(&mut self, before: &BTreeSet<(Key, Source)>, after: &BTreeSet<(Key, Source)>) {
        for (key, source) in before.difference(after) {
            self.give(key, source, false);
        }
        for (key, source) in after {
            self.give(key, source, true);
        }
    }

    /// Says that somebody gives a name, or does not, and compiles what it stands for.
    fn give(&mut self, key: &[u8], source: &Source, is: bool) {
        let old = self.names.get(key);
        let known = old.map(|named| named.by.as_slice()).unwrap_or_default();
        let mut all = known.iter().filter(|known| *known != source).chain(Some(source).filter(|_| is)).cloned();
        let by = all.next().map(|first| By::all(first, all));
        let new = by.map(|by| Named { sets: compile::sets(self, key, by.as_slice()), by });
        if old == new.as_ref() {
            return;
        }
        if old.is_some() != new.is_some() && self.is_ambiguous(key) {
            self.ambiguous = if new.is_some() { self.ambiguous + 1 } else { self.ambiguous - 1 };
        }
        self.names.alter(key, |_| new);
    }

    fn is_ambiguous(&self, key: &[u8]) -> bool {
        if is_address_key(key) {
            return false; // such names are looked at anyway where they may be
        }
        let last = || Question::new(key, RecordType::ANY).last;
        key.ends_with(self.label()) && key.len() - self.label().len() == last() && last() > 0
    }
}

/// What a name is found by. A name that looks up an address backwards is found by the address, which is shorter.
fn key(name: &DnsName) -> Key {
    let folded = name.fold();
    reversed(&folded).map_or(folded, address_key)
}

/// What the name is found by that looks up an address backwards: no name begins with such a byte.
fn address_key(address: IpAddr) -> Key {
    let mut key = Key::from_slice(&[ADDRESS]);
    match address {
        IpAddr::V4(v4) => key.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => key.extend_from_slice(&v6.octets()),
    }
    key
}

fn is_address_key(key: &[u8]) -> bool {
    key.first() == Some(&ADDRESS)
}

/// No label is so long (RFC 1035 §2.3.4).
const ADDRESS: u8 = 0xff;
/// The last label of all names that look up an address backwards.
const ARPA: &[u8] = b"\x04arpa";

/// What a service is found by: its name as DNS compares it.
fn service_key(name: &Name) -> Key {
    DnsName::from(name).fold()
}
