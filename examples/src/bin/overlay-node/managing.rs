//! What a manager does for others.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{NetworkId, Store};
use overlay_crypto::pki::{CertificateAuthority, SealingKey, SigningKey, StoreAuthority};
use overlay_driver::control::{
    Cluster, ControlClient, ControlServer, Credentials, Managers, NodeLimits, Serving, reissue,
};
use overlay_driver::{Keep as _, Leading, OpenVault};
use overlay_node::{Feed, Manager};
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::agent::{Catalogue, now, random, root};
use crate::cluster::{authority, told};
use crate::seat::Kept;
use crate::store;

/// A manager at work: it serves nodes, stands for the lead, and believes whom the cluster's authority believes.
pub(crate) struct Managing {
    pub(crate) cluster: Cluster,
    manager: Arc<Manager>,
    store: Arc<dyn Store>,
    leading: Leading,
    _serving: Serving,
    heeds: JoinHandle<()>,
}

impl Managing {
    /// Serves from now on at `served`. A manager that was promoted, or joined, is given by another what it needs to sign.
    pub(crate) async fn begin(
        (credentials, key): (&Credentials, &mut SigningKey),
        managers: &Managers,
        (kept, vault): (&Kept, &Arc<OpenVault>),
        served: SocketAddr,
        state: &Path,
    ) -> Outcome<Self> {
        let identity = credentials.identity();
        let store = store::open(kept.etcd.as_ref(), state).await?;
        let (authority, leading) = authority(&store, identity.node, identity.cluster).await?;
        authority.hold(sealing(managers, vault).await?);
        let unbound =
            |error| format!("nodes cannot be served at {served}: {error}: free it, or name another --address");
        let listener = std::net::TcpListener::bind(served).map_err(unbound)?;
        // Once it can serve: from then on it counts as one that does.
        authority.announce(identity.node).await.map_err(told)?;
        if credentials.validity().until < now() {
            renew(&authority, (credentials, key), vault).await?;
        }
        let mut seed = [0; 32];
        random(&mut seed);
        let manager = Arc::new(Manager::new(Arc::clone(&store), &root()?, identity.node, seed)?);
        manager.found_cluster(NetworkId::generate(random), now()).await?;
        let cluster = Cluster::new(authority as Arc<dyn CertificateAuthority>, credentials.clone());
        cluster.set_managers(managers.addresses());
        cluster.set_others(managers.clone());
        cluster.set_ring(vault.ring());
        let server = ControlServer::new(manager.clone()).with_feed(Arc::clone(&store), &root()?)?;
        let serving =
            server.with_cluster(cluster.clone()).listen(listener, credentials.clone(), NodeLimits::default())?;
        println!("nodes are served at {served}");
        let heeds = Leading::heed(cluster.clone(), Duration::from_secs(5));
        Ok(Self { cluster, manager, store, leading, _serving: serving, heeds })
    }

    /// The catalogue, as it is here.
    pub(crate) fn catalogue(&self) -> Outcome<Catalogue> {
        Ok(Catalogue {
            control: self.manager.clone(),
            feed: Box::new(Feed::new(Arc::clone(&self.store), &root()?)?),
            manager: Some(self.manager.clone()),
            store: Some(Arc::clone(&self.store)),
            leads: Some(self.leading.watch()),
        })
    }
}

impl Drop for Managing {
    fn drop(&mut self) {
        self.heeds.abort();
    }
}

/// What a manager signs with once it leads: its own, or given by another, and kept before anything else.
async fn sealing(managers: &Managers, vault: &Arc<OpenVault>) -> Outcome<SealingKey> {
    if let Some(own) = vault.sealing() {
        return Ok(own);
    }
    let given = ControlClient::of_managers(managers.clone()).sealing_key().await?;
    vault.hold(Some(given.clone()))?;
    Ok(given)
}

/// Nobody who calls would believe a certificate that is over, so a manager cannot have it renewed as others do.
async fn renew(
    authority: &Arc<StoreAuthority>,
    (credentials, key): (&Credentials, &mut SigningKey),
    vault: &Arc<OpenVault>,
) -> Outcome {
    let own = credentials.chain().into_iter().next().ok_or("there is no certificate")?;
    let (issued, next) = reissue(&**authority, &own, key).await?;
    vault.keep(&issued, &next)?;
    credentials.renew(issued.chain, &next)?;
    *key = next;
    Ok(())
}
