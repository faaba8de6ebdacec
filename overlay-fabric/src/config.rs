//! How a cluster is set up.

use overlay_core::Mtu;
use overlay_gossip::testing::Conditions;
use overlay_node::{AgentConfig, UpkeepConfig};

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
    /// Largest packet of the underlay.
    pub mtu: Mtu,
    /// How many changes the store remembers for those that watch it. Few make feeds read all again.
    pub history: usize,
    /// Whether each job at each place is looked at for something open that is not guarded: the larger the cluster, the dearer.
    pub watched: bool,
}

impl Default for ClusterConfig {
    /// Up to three managers, a switched network without loss, usual settings.
    fn default() -> Self {
        Self {
            managers: 3,
            conditions: Conditions::lan(),
            agent: AgentConfig::lan(),
            upkeep: UpkeepConfig::default(),
            mtu: Mtu::ETHERNET,
            history: 4096,
            watched: true,
        }
    }
}
