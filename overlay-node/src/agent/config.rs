//! How an agent is set, and which node it is of.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use overlay_core::{Mtu, NodeId, NsKey, Port, PortRange, Protocol};
use overlay_crypto::{Lanes, Limits, RotationConfig, RotationConfigError};
use overlay_dns::DnsName;
use overlay_gossip::{ConfigError, Role};

use crate::{GatewayBridge, Settings, Underlay};

/// Settings of an [`Agent`](crate::Agent).
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Of gossip: all nodes of a cluster agree on them.
    pub gossip: overlay_gossip::Config,
    /// The UDP port of VXLAN, one in the cluster and not gossip's. 4789 is usual.
    pub vxlan_port: Port,
    /// The UDP port that encrypted networks share, one in the cluster, and no other's: whatever is sent there passes in ESP only, and nothing is sent from it, so it is below 49152. 4793 is usual.
    pub encrypted_port: Port,
    /// The UDP ports of which encrypted networks have [their own](crate::Encryption::Own), as managers [have it](crate::Manager::with_own_ports); the same holds
    /// for each while such a network is here, and no service publishes one. [`PortRange::VXLAN_ENCRYPTED`] is usual.
    pub own_ports: PortRange,
    /// How many security associations the tunnel to another node sends by, each a core's work: one number in the cluster. 1 is usual.
    pub lanes: Lanes,
    /// How often the keys of encrypted networks are changed and after how much, and how long others are waited for then. One that was not changed in time ends, at a quarter more
    /// than that, and a tunnel with it until there is another.
    pub rotation: RotationConfig,
    /// How long others are waited for as the key of gossip is changed; and how often it is, if it is so [by time](Self::rotates_gossip_by_time).
    pub gossip_rotation: RotationConfig,
    /// Whether the key of gossip is changed by time, by the first of all nodes; the key before it is opened until the next time. It is not usual as long as a new node gets its first key by a
    /// file that somebody keeps up to date.
    pub rotates_gossip_by_time: bool,
    /// The port, at 127.0.0.11 in each container, that the node's resolver listens at. Port 53 there is led to it and stays free for the
    /// container's own use, so any that its programs do not bind at all addresses will do. 10053 is usual.
    pub resolver_port: Port,
    /// Domains under which containers find all names as well, such as `swarm.internal`; none are usual.
    pub suffixes: Vec<DnsName>,
    /// The subnets of this node's [gateway bridge](GatewayBridge), which nothing else on the node may have; without it containers do not reach
    /// the outside.
    pub gateway: Option<GatewayBridge>,
    /// The host's namespace, in which the node takes part in the routing mesh; without it the node has no published ports.
    pub host: Option<NsKey>,
    /// Ports that this node needs itself and so never publishes, whatever the catalogue says, besides its gossip port and VXLAN's.
    /// [`usually_kept`](crate::usually_kept) is usual.
    pub kept: BTreeSet<(Protocol, Port)>,
}

impl AgentConfig {
    /// For nodes within one data centre. The names of a node's containers are hidden a second after it was taken for failed, not
    /// gossip's five: nothing is lost by it, since they are back as soon as it is.
    pub fn lan() -> Self {
        let mut gossip = overlay_gossip::Config::lan();
        gossip.tables.hide_after = Duration::from_secs(1);
        Self {
            gossip,
            vxlan_port: Port::VXLAN,
            encrypted_port: Port::VXLAN_ENCRYPTED,
            own_ports: PortRange::VXLAN_ENCRYPTED,
            lanes: Lanes::ONE,
            rotation: RotationConfig::default(),
            gossip_rotation: RotationConfig::default(),
            rotates_gossip_by_time: false,
            resolver_port: Port::RESOLVER,
            suffixes: Vec::new(),
            gateway: None,
            host: None,
            kept: crate::usually_kept(),
        }
    }

    pub(super) fn settings(&self, me: &Me) -> Result<Settings, AgentError> {
        let gossip_port = Port::new(me.address.port()).map_err(|_| AgentError::Address)?;
        if gossip_port == self.vxlan_port {
            return Err(AgentError::OnePort { port: gossip_port });
        }
        // Nothing leaves from a guarded port, and VXLAN sends from those of the dynamic range.
        let is_others = [gossip_port, self.vxlan_port].contains(&self.encrypted_port);
        if is_others || PortRange::DYNAMIC.contains(self.encrypted_port) {
            return Err(AgentError::EncryptedPort { port: self.encrypted_port });
        }
        let kept = self.kept.iter().filter(|(protocol, _)| *protocol == Protocol::Udp).map(|(_, port)| *port);
        let mut others = [gossip_port, self.vxlan_port, self.encrypted_port].into_iter().chain(kept);
        let other = others.find(|port| self.own_ports.contains(*port));
        let last = self.own_ports.last();
        if let Some(port) = other.or_else(|| PortRange::DYNAMIC.contains(last).then_some(last)) {
            return Err(AgentError::OwnPorts { range: self.own_ports, port });
        }
        self.rotation.check()?;
        Ok(Settings {
            vxlan_port: self.vxlan_port,
            encrypted_port: self.encrypted_port,
            own_ports: self.own_ports,
            lanes: self.lanes,
            limits: Limits::of(self.rotation.usage),
            gossip_port,
            stranger_rate: NonZeroU32::new(self.gossip.stranger_rate).unwrap_or(NonZeroU32::MIN),
            stranger_burst: self.gossip.stranger_burst,
            resolver_port: self.resolver_port,
            suffixes: self.suffixes.clone(),
            gateway: self.gateway,
            host: self.host.clone(),
            kept: self.kept.clone(),
        })
    }
}

/// Which node an agent is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Me {
    /// Its id.
    pub id: NodeId,
    /// Which start of the node this is: greater at each. A counter on disk does, so does the date in milliseconds.
    pub incarnation: u64,
    /// Where its gossip port is reached.
    pub address: SocketAddr,
    /// What it is.
    pub role: Role,
    /// Where its datagrams of VXLAN are sent from and received at; no link-local address.
    pub vtep: IpAddr,
    /// Largest packet of the underlay there, 576 at least.
    pub mtu: Mtu,
}

impl Me {
    pub(super) fn underlay(&self) -> Result<Underlay, UnderlayError> {
        let underlay = Underlay { vtep: self.vtep, mtu: self.mtu };
        check(&underlay)?;
        Ok(underlay)
    }
}

/// Whether others can send there.
pub(super) fn check(underlay: &Underlay) -> Result<(), UnderlayError> {
    if !crate::derive::is_vtep(underlay.vtep) {
        return Err(UnderlayError::Vtep { found: underlay.vtep });
    }
    if underlay.mtu.get() < Underlay::LEAST_MTU.into() {
        return Err(UnderlayError::Mtu { found: underlay.mtu });
    }
    Ok(())
}

/// Why an [`Agent`](crate::Agent) was not made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A setting of gossip is out of range.
    #[error(transparent)]
    Gossip(#[from] ConfigError),
    /// The gossip address has port 0, at which nobody is reached.
    #[error("the gossip address needs a port")]
    Address,
    /// Gossip and VXLAN on one port.
    #[error("gossip and VXLAN cannot share port {port}; give each its own")]
    OnePort {
        /// The port.
        port: Port,
    },
    /// Encrypted networks on a port that is used in the clear.
    #[error(
        "encrypted networks cannot have port {port}, which gossip or VXLAN uses in the clear or sends from; give them one of their own below 49152"
    )]
    EncryptedPort {
        /// The port.
        port: Port,
    },
    /// Encrypted networks with ports of their own of which one is used otherwise.
    #[error(
        "encrypted networks cannot have ports of their own among {range}: {port} is that of gossip, VXLAN or networks that share one, is kept, or VXLAN sends from it; give a range below 49152 without it"
    )]
    OwnPorts {
        /// The range.
        range: PortRange,
        /// The first of it that is used otherwise.
        port: Port,
    },
    /// A setting of the rotation of keys is out of range.
    #[error(transparent)]
    Rotation(#[from] RotationConfigError),
    /// A setting of how gossip's key is changed is out of range.
    #[error("gossip's key: {0}")]
    GossipRotation(#[source] RotationConfigError),
    /// The underlay cannot be used.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
}

/// Why an end of the underlay cannot be used; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnderlayError {
    /// No host's address, or a link-local one.
    #[error("{found} is no VTEP that other nodes could send to; give an address of this host that is not link-local")]
    Vtep {
        /// What was given.
        found: IpAddr,
    },
    /// Smaller than every host's.
    #[error("an underlay carries packets of 576 bytes at least (RFC 791), this one {found}")]
    Mtu {
        /// What was given.
        found: Mtu,
    },
}
