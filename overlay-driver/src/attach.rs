//! Attaching a container.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::{EndpointId, IfName, Mac, Name, NodeId, ServiceId};
use overlay_dns::DnsName;
use overlay_lb::Weight;
use overlay_node::{Endpoint, EndpointSpec, Reference};

use crate::Source;

/// A container that is to be attached to a network.
///
/// ```
/// use overlay_driver::{Attach, Source};
///
/// let attach = Attach {
///     addresses: [[10, 0, 9, 7].into()].into(),
///     ..Attach::new("web".parse()?, Source::Path("/run/netns/web".into()), "front")
/// };
/// assert_eq!(attach.network.as_str(), "front");
/// # Ok::<(), overlay_core::NameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Attach {
    /// The container, by a name that no other of the node has.
    pub container: Name,
    /// Where it is.
    pub source: Source,
    /// The network.
    pub network: Reference,
    /// The endpoint's id: a call that is repeated with it does what the first did. A random one if `None`.
    pub id: Option<EndpointId>,
    /// What its interface is to be called; `eth0` or the first name that is free, if `None`.
    pub interface: Option<IfName>,
    /// See [`EndpointSpec`].
    pub service: Option<ServiceId>,
    /// Further names.
    pub names: Vec<DnsName>,
    /// Addresses, at most one of a family; any that are free of a family without one.
    pub addresses: BTreeSet<IpAddr>,
    /// The Ethernet address; one of its own if `None`.
    pub mac: Option<Mac>,
    /// What policies select it by.
    pub labels: BTreeMap<String, String>,
    /// Which of a container's networks gives the default route: that with the highest.
    pub priority: i32,
    /// Its share of its service's work, relative to the others'.
    pub weight: Weight,
}

impl Attach {
    /// A container at any address.
    pub fn new(container: Name, source: Source, network: impl Into<Reference>) -> Self {
        Self {
            container,
            source,
            network: network.into(),
            id: None,
            interface: None,
            service: None,
            names: Vec::new(),
            addresses: BTreeSet::new(),
            mac: None,
            labels: BTreeMap::new(),
            priority: 0,
            weight: Weight::ONE,
        }
    }

    pub(crate) fn spec(&self, network: overlay_core::NetworkId, node: NodeId) -> EndpointSpec {
        EndpointSpec {
            service: self.service,
            names: self.names.clone(),
            addresses: self.addresses.clone(),
            mac: self.mac,
            labels: self.labels.clone(),
            priority: self.priority,
            weight: self.weight,
            ..EndpointSpec::new(network, self.container.clone(), node)
        }
    }
}

/// A container that is attached: the other nodes know of it, and it finds others by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The endpoint, with its addresses.
    pub endpoint: Endpoint,
    /// What its interface is called in the container; or the tap.
    pub interface: IfName,
}
