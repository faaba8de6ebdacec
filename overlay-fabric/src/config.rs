//! How a cluster is set up.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use overlay_core::{Mtu, Name, NsId, NsKey};
use overlay_gossip::testing::Conditions;
use overlay_node::{AgentConfig, GatewayBridge, UpkeepConfig};

/// What a [`Cluster`](crate::Cluster) is made of.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// How many of the nodes are managers: the first ones. At least one is.
    pub managers: usize,
    /// How the underlay treats messages.
    pub conditions: Conditions,
    /// Of each node's agent.
    pub agent: AgentConfig,
    /// Of each node's places.
    pub upkeep: UpkeepConfig,
    /// The nodes whose places cannot protect tunnels by ESP.
    pub without_esp: BTreeSet<usize>,
    /// Largest packet of the underlay.
    pub mtu: Mtu,
    /// How many changes the store remembers for those that watch it. Few make feeds read all again.
    pub history: usize,
    /// Whether gossip is sealed, with keys that follow from the run's seed. Of a cluster that is not sealed nothing of its gossip is kept from anybody.
    pub sealed: bool,
    /// Whether nodes sign what they say by gossip, with keys that follow from the run's seed, and verify what others say.
    pub signed: bool,
    /// Whether it is looked at each sealed message that no nonce comes twice; it takes some 100 bytes for each.
    pub nonces: bool,
    /// Whether each job at each place is looked at for something open that is not guarded: the larger the cluster, the dearer.
    pub watched: bool,
}

impl Default for ClusterConfig {
    /// Up to three managers, a switched network without loss, gossip that is sealed and signed, usual settings, a gateway bridge on each node.
    fn default() -> Self {
        Self {
            managers: 3,
            conditions: Conditions::lan(),
            agent: agent(),
            upkeep: UpkeepConfig::default(),
            without_esp: BTreeSet::new(),
            mtu: Mtu::ETHERNET,
            history: 4096,
            sealed: true,
            signed: true,
            nonces: false,
            watched: true,
        }
    }
}

/// Of nodes that confirm what they act upon, as those of a driver do.
fn agent() -> AgentConfig {
    let mut config = AgentConfig { gateway: Some(gateway()), host: host(), ..AgentConfig::lan() };
    config.gossip.tables.act_within = Some(Duration::from_secs(3));
    config
}

/// The host's namespace, of which each node has one of its own.
fn host() -> Option<NsKey> {
    Some(NsKey { name: Name::new("host").ok()?, id: NsId { device: 0, inode: 0 } })
}

/// The same on every node, as it may be: 172.18.0.0/16 and fd00:18::/64.
fn gateway() -> GatewayBridge {
    let v4 = Ipv4Net::new([172, 18, 0, 0].into(), 16).ok();
    let v6 = Ipv6Net::new([0xfd00, 0x18, 0, 0, 0, 0, 0, 0].into(), 64).ok();
    GatewayBridge { v4, v6 }
}
