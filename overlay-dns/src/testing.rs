//! Proptest strategies for names, zones and queries (feature `testing`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::testing::any;
use overlay_core::{EndpointId, IpFamily, Name};
use proptest::prelude::*;

use crate::{DnsName, Endpoint, Given, Health, Mode, Policy, RecordTtl, Service, Srv, Txt, Zone};

/// Names of all shapes, with any bytes in their labels.
pub fn dns_name() -> impl Strategy<Value = DnsName> {
    let label = proptest::collection::vec(any::<u8>(), 1..=63);
    proptest::collection::vec(label, 0..8).prop_filter_map("255 bytes", |labels| DnsName::from_labels(labels).ok())
}

/// One of few names, so that things meet.
pub fn few_names() -> impl Strategy<Value = Name> {
    proptest::sample::select(&["web", "Web", "db", "cache", "tasks", "a", "front-end"][..])
        .prop_filter_map("a name", |text| text.parse().ok())
}

/// One of few addresses of both families.
pub fn few_addresses() -> impl Strategy<Value = IpAddr> {
    (0_u8..12, any::ip_family()).prop_map(|(low, family)| match family {
        IpFamily::V4 => [10, 0, 9, low].into(),
        IpFamily::V6 => [0xfd00, 9, 0, 0, 0, 0, 0, u16::from(low)].into(),
    })
}

/// Services with few names.
pub fn service() -> impl Strategy<Value = Service> {
    let vips = proptest::collection::btree_set(few_addresses(), 0..3).prop_map(Mode::Vip);
    let mode = prop_oneof![vips, Just(Mode::RoundRobin)];
    let ports = proptest::collection::btree_map((few_names(), any::protocol()), any::port(), 0..3);
    let aliases = proptest::collection::btree_set(few_names(), 0..3);
    (few_names(), aliases, mode, ports, texts()).prop_map(|(name, aliases, mode, ports, texts)| Service {
        name,
        aliases,
        mode,
        ports,
        texts,
    })
}

/// One of few endpoints' ids.
pub fn few_ids() -> impl Strategy<Value = EndpointId> {
    (0_u8..8).prop_map(|low| EndpointId::from_bytes([low << 4 | 1; 16]))
}

/// Endpoints with few names, of few services.
pub fn endpoint() -> impl Strategy<Value = Endpoint> {
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Suspect), Just(Health::Draining)];
    let names = proptest::collection::vec(few_names().prop_map(|name| DnsName::from(&name)), 0..3);
    let addresses = proptest::collection::btree_set(few_addresses(), 0..3);
    let rest = (health, 0_u16..3);
    (few_ids(), names, addresses, proptest::option::of(few_names()), rest).prop_map(
        |(id, names, addresses, service, (health, weight))| Endpoint {
            id,
            names,
            addresses: addresses.into(),
            service,
            health,
            weight,
        },
    )
}

/// Records as they are given.
pub fn given() -> impl Strategy<Value = Given> {
    let target = || few_names().prop_map(|name| DnsName::from(&name));
    let srv = (any::<u16>(), any::<u16>(), any::port(), target()).prop_map(|(priority, weight, port, target)| Srv {
        priority,
        weight,
        port,
        target,
    });
    let addresses = proptest::collection::btree_set(few_addresses(), 0..3);
    let (srv, ptr) = (proptest::collection::btree_set(srv, 0..2), proptest::collection::btree_set(target(), 0..2));
    let ttl = proptest::option::of((0_u32..9).prop_map(RecordTtl::from_secs));
    (ttl, addresses, srv, ptr, texts()).prop_map(|(ttl, addresses, srv, ptr, txt)| Given {
        ttl,
        addresses,
        srv,
        ptr,
        txt,
    })
}

/// One change of a zone.
#[derive(Debug, Clone)]
pub enum Change {
    /// A service is put.
    PutService(Service),
    /// A service is removed.
    RemoveService(Name),
    /// An endpoint is put.
    PutEndpoint(Endpoint),
    /// An endpoint is removed.
    RemoveEndpoint(EndpointId),
    /// Records are put.
    PutRecords(Name, Given),
}

impl Change {
    /// Makes it.
    pub fn apply(self, zone: &mut Zone) {
        match self {
            Self::PutService(service) => zone.put_service(service),
            Self::RemoveService(name) => zone.remove_service(&name),
            Self::PutEndpoint(endpoint) => zone.put_endpoint(endpoint),
            Self::RemoveEndpoint(id) => zone.remove_endpoint(id),
            Self::PutRecords(name, given) => zone.put_records(&DnsName::from(&name), given),
        }
    }
}

/// Changes that meet each other.
pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => service().prop_map(Change::PutService),
        1 => few_names().prop_map(Change::RemoveService),
        3 => endpoint().prop_map(Change::PutEndpoint),
        1 => few_ids().prop_map(Change::RemoveEndpoint),
        1 => (few_names(), given()).prop_map(|(name, given)| Change::PutRecords(name, given)),
    ]
}

/// What is left of services, endpoints and records after changes, and so what a zone should be made of.
#[derive(Debug, Clone, Default)]
pub struct Left {
    services: BTreeMap<Name, Service>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    records: BTreeMap<DnsName, Given>,
}

impl Left {
    /// Notes a change.
    pub fn note(&mut self, change: Change) {
        match change {
            Change::PutService(service) => drop(self.services.insert(service.name.folded(), service)),
            Change::RemoveService(name) => drop(self.services.remove(&name.folded())),
            Change::PutEndpoint(endpoint) => drop(self.endpoints.insert(endpoint.id, endpoint)),
            Change::RemoveEndpoint(id) => drop(self.endpoints.remove(&id)),
            Change::PutRecords(name, given) => drop(self.records.insert(DnsName::from(&name), given)),
        }
    }

    /// The zone of all services and endpoints at once, and then the records.
    pub fn zone(self, network: Name, policy: Policy) -> Zone {
        let mut zone = Zone::of(network, policy, self.services.into_values(), self.endpoints.into_values());
        self.records.into_iter().for_each(|(name, given)| zone.put_records(&name, given));
        zone
    }

    /// Puts it all into a zone without names.
    pub fn fill(self, zone: &mut Zone) {
        self.endpoints.into_values().rev().for_each(|endpoint| zone.put_endpoint(endpoint));
        self.records.into_iter().for_each(|(name, given)| zone.put_records(&name, given));
        self.services.into_values().for_each(|service| zone.put_service(service));
    }
}

fn texts() -> impl Strategy<Value = BTreeSet<Txt>> {
    let text = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..3);
    proptest::collection::btree_set(text.prop_filter_map("a text", |strings| Txt::new(strings).ok()), 0..3)
}
