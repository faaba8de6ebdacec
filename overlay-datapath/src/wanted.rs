//! What the places of a node should hold, as far as packets meet it.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId, Vni};

/// What the places of one node should hold, as far as packets meet it: the area values as they are, place by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of the host: which tunnels are protected.
    pub crypto: overlay_crypto::State,
    /// Of the host: who may send to tunnels' ports, and what never passes there in the clear. Its other sections are of no meaning here.
    pub host: overlay_firewall::State,
    /// The networks' sandboxes.
    pub networks: BTreeMap<NetworkId, Sandbox>,
    /// By endpoint, the virtual services that it reaches. Those of one container may be one value.
    pub services: BTreeMap<EndpointId, Arc<overlay_lb::State>>,
    /// What is plugged in as the gateway of a segment: packets for the gateway's own addresses go there, but for echo requests, which are
    /// answered anyway. It reaches the segment's endpoints here and nobody else, and is no endpoint of the network: nothing is routed to it, and no
    /// policy asks. So guests ask their gateway for names. Where there is none, what is for the gateway is dropped ([`NoRoute`](crate::Reason::NoRoute)).
    pub gateways: BTreeMap<Vni, EndpointId>,
}

/// What a network's sandbox should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Its segments, with the endpoints here and elsewhere.
    pub vxlan: overlay_vxlan::State,
    /// Who is at which port, by the names of [`overlay_vxlan::names`] or a tap's own, and the network's policy.
    pub firewall: overlay_firewall::State,
}
