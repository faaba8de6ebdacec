//! How the hosts of a lab come together: by join tokens, over TLS.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{ClusterId, Port, Prefix, Seat, Store};
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{
    Algorithm, CertificateAuthority, Issued, JoinToken, NextRoot, Role, SealingKey, SigningKey, StoreAuthority,
};
use overlay_node::Manager;
use tokio::task::JoinHandle;

use super::Lab;
use super::hosts::{HostsError, node, root};
use crate::chance::random;
use crate::control::{Cluster, ControlServer, Joined, Managers, NodeLimits, Ring, Serving, found, join};
use crate::driver::now;
use crate::{Keep, Leading, Membership, MembershipConfig, MembershipParts};

/// What the first host has as a manager, and the hosts that have joined.
#[derive(Debug)]
pub(super) struct Formed {
    pub(super) authority: Arc<StoreAuthority>,
    pub(super) address: SocketAddr,
    pub(super) key: GossipKey,
    members: Vec<Option<Membership>>,
    heeds: JoinHandle<()>,
    _leading: Leading,
    _serving: Serving,
}

/// A lab's nodes end with it.
struct Nowhere;

impl Keep for Nowhere {
    fn keep(&self, _: &Issued, _: &SigningKey) -> io::Result<()> {
        Ok(())
    }
}

impl Formed {
    /// Founds a cluster on the first host: it serves the control API at its address.
    pub(super) async fn found(lab: &Lab, store: &Arc<dyn Store>, manager: Arc<Manager>) -> Result<Self, HostsError> {
        let mut seed = [0; 32];
        random(&mut seed);
        let prefix = Prefix::new("lab-ca/")?;
        let authority = StoreAuthority::new(Arc::clone(store), &prefix, ClusterId::generate(random), seed)?;
        let authority = Arc::new(authority);
        authority.hold(SealingKey::generate(random));
        let seat = Seat::new(&Prefix::new("lab-lead/")?, node(0))?;
        let leading = Leading::begin(Arc::clone(store), seat, Arc::clone(&authority)).await;
        let begun = authority.found(&NextRoot::Generate(Algorithm::EcdsaP256), now()).await;
        begun.map_err(|error| HostsError::Authority(error.to_string()))?;
        let joined = found(&*authority, node(0)).await?;
        authority.announce(node(0)).await.map_err(|error| HostsError::Authority(error.to_string()))?;
        let address = SocketAddr::new(lab.address(0), Port::CONTROL.get());
        let listener = lab.host(0).run(|| TcpListener::bind(address))?.map_err(super::LabError::Dir)?;
        let cluster = Cluster::new(authority.clone() as Arc<dyn CertificateAuthority>, joined.credentials.clone());
        let key = GossipKey::generate(random);
        cluster.set_managers([address]);
        cluster.set_ring(Ring { revision: 1, keys: vec![key.clone()] });
        let server = ControlServer::new(manager).with_feed(Arc::clone(store), &root()?)?.with_cluster(cluster.clone());
        let serving = server.listen(listener, joined.credentials.clone(), NodeLimits::default())?;
        let mut members: Vec<Option<Membership>> = (0..lab.hosts()).map(|_| None).collect();
        members[0] = Some(member(lab, 0, joined, address)?);
        let heeds = Leading::heed(cluster, Duration::from_secs(1));
        Ok(Self { authority, address, key, members, heeds, _leading: leading, _serving: serving })
    }

    /// Has a host join.
    pub(super) async fn join(&mut self, lab: &Lab, host: usize, token: &JoinToken) -> Result<(), HostsError> {
        let namespace = Arc::new(lab.host(host).try_clone()?);
        let joined = join([self.address], token, Some(node(host)), Some(namespace)).await?;
        let member = member(lab, host, joined, self.address)?;
        if let Some(slot) = self.members.get_mut(host) {
            *slot = Some(member);
        }
        Ok(())
    }

    pub(super) async fn token(&self, role: Role) -> Result<JoinToken, HostsError> {
        self.authority.token(role).await.map_err(|error| HostsError::Authority(error.to_string()))
    }

    pub(super) fn member(&self, host: usize) -> Option<&Membership> {
        self.members.get(host)?.as_ref()
    }
}

impl Drop for Formed {
    fn drop(&mut self) {
        self.heeds.abort();
    }
}

fn member(lab: &Lab, host: usize, joined: Joined, manager: SocketAddr) -> Result<Membership, HostsError> {
    let Joined { credentials, key, ring, .. } = joined;
    let managers = Managers::new([manager], &credentials)?.from_host(Arc::new(lab.host(host).try_clone()?));
    let parts = MembershipParts { credentials, key, managers, ring: ring.unwrap_or_default() };
    Membership::begin(parts, Arc::new(Nowhere), MembershipConfig::default())
        .map_err(|error| HostsError::Authority(error.to_string()))
}
