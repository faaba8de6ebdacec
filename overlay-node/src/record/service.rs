//! Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::{Name, NetworkId, ServiceId, UnixTime};
use serde::{Deserialize, Serialize};

use super::{Balancing, PublishedPort};
use crate::Condition;

/// A service that somebody wants: a name for all its endpoints on some networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name: unique among services, capitals or not.
    pub name: Name,
    /// The networks its endpoints are on, each with the other names it has there.
    pub networks: BTreeMap<NetworkId, BTreeSet<Name>>,
    /// What its name stands for.
    pub mode: EndpointMode,
    /// How the work is shared; of mode `dnsrr` it is the [usual](Balancing::is_usual), as clients choose.
    #[serde(default, skip_serializing_if = "Balancing::is_usual")]
    pub balancing: Balancing,
    /// Ports that are reached from outside.
    pub ports: Vec<PublishedPort>,
    /// What its user knows it by.
    pub labels: BTreeMap<String, String>,
}

impl ServiceSpec {
    /// A service with a VIP on each of these networks, and no published ports.
    pub fn new(name: Name, networks: impl IntoIterator<Item = NetworkId>) -> Self {
        Self {
            name,
            networks: networks.into_iter().map(|network| (network, BTreeSet::new())).collect(),
            mode: EndpointMode::Vip,
            balancing: Balancing::default(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// What a service's name stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointMode {
    /// A virtual address on each network, behind which the load is balanced.
    #[default]
    Vip,
    /// Its endpoints' addresses.
    #[serde(rename = "dnsrr")]
    RoundRobin,
}

/// A service of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Names it for good.
    pub id: ServiceId,
    /// What was asked for.
    pub spec: ServiceSpec,
    /// Its virtual addresses: none in mode `dnsrr`; on the ingress network, too, if a port is published there.
    pub vips: BTreeMap<NetworkId, BTreeSet<IpAddr>>,
    /// Its published ports as they were allocated: each has a number.
    pub ports: Vec<PublishedPort>,
    /// When it was created, by the manager's clock.
    pub created: UnixTime,
    /// How far it is.
    pub condition: Condition,
}
