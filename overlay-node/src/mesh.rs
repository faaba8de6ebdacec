//! The routing mesh: every node takes part in the ingress network with an endpoint of its own, in its own namespace.

use overlay_core::{EndpointId, IfName, Mac, Name, NameError, NetworkId, NodeId, ServiceId};

use crate::{Endpoint, EndpointSpec, Network};

/// The node's endpoint on an ingress network: its id is made of both, so that every node knows it without being told.
pub(crate) fn endpoint(network: NetworkId, node: NodeId) -> EndpointId {
    id_of(&[&b"mesh"[..], &network.to_bytes(), &node.to_bytes()])
}

/// The endpoint on the ingress network that a container gets besides those by which it serves a service that publishes there: its id is made of all
/// three, so that whoever attached the container knows it without being told.
pub fn mesh_replica(service: ServiceId, node: NodeId, container: &Name) -> EndpointId {
    id_of(&[&b"replica"[..], &service.to_bytes(), &node.to_bytes(), container.as_str().as_bytes()])
}

/// Whether an endpoint is what a container has by its service.
pub(crate) fn is_replica(endpoint: &Endpoint) -> bool {
    let EndpointSpec { service, node, container, .. } = &endpoint.spec;
    service.is_some_and(|service| endpoint.id == mesh_replica(service, *node, container))
}

fn id_of(parts: &[&[u8]]) -> EndpointId {
    let fold = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME);
    EndpointId::from_bytes(parts.iter().copied().flatten().fold(FNV_BASIS, fold).to_be_bytes())
}

/// What of the node is attached by it.
pub(crate) fn spec(network: NetworkId, node: NodeId) -> Result<EndpointSpec, NameError> {
    Ok(EndpointSpec::new(network, Name::new("routing-mesh")?, node))
}

/// Whether an endpoint of a network is its node's part of the mesh. On other networks ids mean nothing.
pub(crate) fn is_part(network: &Network, endpoint: &Endpoint) -> bool {
    let id = || self::endpoint(endpoint.spec.network, endpoint.spec.node);
    network.spec.ingress && endpoint.spec.network == network.id && endpoint.id == id()
}

/// What its interface is called: `m`, and the first 7 characters of the node and of the network, so that nodes of one machine do not share it.
pub(crate) fn interface(network: NetworkId, node: NodeId) -> Option<IfName> {
    let (node, network) = (node.short().to_string(), network.short().to_string());
    IfName::new(&format!("m{}{}", node.get(..7)?, network.get(..7)?)).ok()
}

/// The mark of flows that came by the node of this Ethernet address: 30 bits, not 0.
pub(crate) fn mark(mac: Mac) -> u32 {
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    (mac.octets().iter().fold(0x811c_9dc5, fold) >> 2).max(1)
}

/// FNV-1a of 128 bits.
const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_an_endpoint_of_its_own_on_each_network() {
        let (networks, nodes) =
            ([1, 2].map(|it| NetworkId::from_bytes([it; 16])), [1, 2].map(|it| NodeId::from_bytes([it; 16])));
        let mut all: Vec<EndpointId> =
            networks.into_iter().flat_map(|network| nodes.map(|node| endpoint(network, node))).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
        assert_eq!(interface(networks[0], nodes[1]).unwrap().as_str().len(), 15);
        assert!((1..1 << 30).contains(&mark(Mac::ZERO)));
    }
}
