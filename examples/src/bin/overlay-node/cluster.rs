//! A node's place in a cluster: founded, joined, served.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{ClusterId, NodeId, Port, Prefix, Seat as Lead, Store};
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{
    Algorithm, CertificateAuthority as _, Identity, JoinToken, NextRoot, Role, SealingKey, StoreAuthority,
};
use overlay_driver::control::{Cluster, ControlClient, Credentials, Managers, Ring, found, join};
use overlay_driver::{Driver, Leading, Membership, MembershipConfig, MembershipEvent, MembershipParts};
use serde_json::json;
use tokio::sync::{Mutex, broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::agent::{Catalogue, folder, now, own_id, random};
use crate::commands::show;
use crate::failure::Failure;
use crate::managing::Managing;
use crate::question::End;
use crate::seat::{Kept, Seat};
use crate::store::{self, Etcd};

/// Founds a cluster, of which this node is the first manager.
pub(crate) async fn init(json: bool, address: IpAddr, state: &Path, etcd: Option<Etcd>) -> Outcome {
    if Seat::is_taken(state)? {
        return Err("this node is in a cluster already: leave it first".into());
    }
    folder(state)?;
    let node = own_id(state)?;
    let store = store::open(etcd.as_ref(), state).await?;
    let sealing = SealingKey::generate(random);
    let (authority, leading) = authority(&store, node, ClusterId::generate(random)).await?;
    if !leading.leads() {
        return Err("other managers are at work there already: join them by a manager's token".into());
    }
    if authority.trusted().await.is_ok() {
        return Err(store::taken(etcd.as_ref(), state).into()); // what unseals its root's key is not here
    }
    authority.hold(sealing.clone());
    authority.found(&NextRoot::Generate(Algorithm::EcdsaP256), now()).await.map_err(told)?;
    let mut joined = found(&*authority, node).await?;
    joined.ring = Some(Ring { revision: 1, keys: vec![GossipKey::generate(random)] });
    joined.managers = vec![SocketAddr::new(address, Port::CONTROL.get())];
    Seat::take(state, &joined, &Kept { managers: joined.managers.clone(), etcd }, Some(sealing))?;
    authority.announce(node).await.map_err(told)?; // the key is kept: this node can sign
    let (cluster, token) = (joined.identity.cluster, authority.token(Role::Worker).await.map_err(told)?.to_string());
    show(json, &json!({ "node": node, "cluster": cluster, "token": token }), || {
        format!(
            "node {node} has founded cluster {cluster}. Once it runs, others join by\n    overlay-node node join --token {token} {address}"
        )
    })
}

/// Joins a cluster by a token.
pub(crate) async fn enter(
    json: bool,
    (token, managers): (&JoinToken, &[SocketAddr]),
    state: &Path,
    etcd: Option<Etcd>,
) -> Outcome {
    if Seat::is_taken(state)? {
        return Err("this node is in a cluster already: leave it first".into());
    }
    if etcd.is_some() {
        store::open(etcd.as_ref(), state).await?; // before a token is used
    }
    folder(state)?;
    let joined = join(managers.iter().copied(), token, Some(own_id(state)?), None).await;
    let joined = joined.map_err(|error| Failure::at(managers, &error))?;
    let can_serve = etcd.is_some();
    Seat::take(state, &joined, &Kept { managers: joined.managers.clone(), etcd }, None)?;
    let Identity { cluster, node, role } = joined.identity;
    let serves = role == Role::Manager && can_serve;
    show(json, &json!({ "node": node, "cluster": cluster, "role": role, "serves": serves }), || {
        let lacks = Duty { serves: false, can_serve }.lacks_for(role).map(|lacks| format!("\n{lacks}"));
        format!("this node is {} now: run it{}", joined.identity, lacks.unwrap_or_default())
    })
}

pub(crate) async fn authority(
    store: &Arc<dyn Store>,
    node: NodeId,
    cluster: ClusterId,
) -> Outcome<(Arc<StoreAuthority>, Leading)> {
    let mut seed = [0; 32];
    random(&mut seed);
    let authority = StoreAuthority::new(Arc::clone(store), &Prefix::new("overlay-ca/")?, cluster, seed)?;
    let (authority, lead) = (Arc::new(authority), Lead::new(&Prefix::new("overlay-lead/")?, node)?);
    let leading = Leading::begin(Arc::clone(store), lead, Arc::clone(&authority)).await;
    Ok((authority, leading))
}

/// What keeps a node in its cluster while it runs.
pub(crate) struct Place {
    pub(crate) membership: Membership,
    pub(crate) managers: Managers,
    pub(crate) seat: Arc<Seat>,
    /// Of a manager: what serves others.
    pub(crate) managing: Option<Managing>,
    /// How often in a row it could not begin to serve, though it is a manager.
    unable: u32,
}

/// What a node that begins anew has of its former beginning.
pub(crate) struct Held {
    /// Open, though it may be locked where it is kept.
    pub(crate) seat: Arc<Seat>,
    pub(crate) unable: u32,
}

impl Place {
    /// The place that was kept, and the catalogue as it is seen from there. A manager serves from now on, at its own address.
    ///
    /// Who begins anew, was `unable` to serve so often before, and is so again, goes on as a worker: what it does for its containers is more than nothing.
    pub(crate) async fn open(
        seat: Arc<Seat>,
        unable: Option<u32>,
        own: IpAddr,
        state: &Path,
    ) -> Outcome<(Self, Catalogue)> {
        let (kept, vault) = (seat.kept()?, Arc::clone(&seat.vault));
        let (credentials, mut key) = vault.credentials()?;
        let served = SocketAddr::new(own, Port::CONTROL.get());
        let others = kept.managers.iter().copied().filter(|it| *it != served);
        let is_manager = credentials.identity().role == Role::Manager;
        let (mut managing, mut failed) = (None, 0);
        if is_manager && (vault.sealing().is_some() || kept.etcd.is_some()) {
            let all = Managers::new([served].into_iter().chain(others.clone()), &credentials)?;
            match Managing::begin((&credentials, &mut key), &all, (&kept, &vault), served, state).await {
                Ok(begun) => managing = Some((begun, all)),
                Err(error) => {
                    let Some(before) = unable else { return Err(error) };
                    failed = before.saturating_add(1);
                    let pause = pause_after(failed).as_secs();
                    println!(
                        "it cannot serve as a manager: {error}; it goes on as a worker, and tries again in {pause} s"
                    );
                }
            }
        }
        let (managing, managers) = match managing {
            Some((begun, all)) => (Some(begun), all),
            None => (None, Managers::new(others, &credentials)?),
        };
        let parts = MembershipParts { credentials, key, managers: managers.clone(), ring: vault.ring() };
        let membership = Membership::begin(parts, vault.clone(), MembershipConfig::default())?;
        let catalogue = match &managing {
            Some(managing) => managing.catalogue()?,
            None => {
                let client = membership.client().clone();
                let feed = Box::new(client.follow());
                Catalogue { control: Arc::new(client), feed, manager: None, store: None, leads: None }
            }
        };
        Ok((Self { membership, managers, seat, managing, unable: failed }, catalogue))
    }

    /// For the next beginning of this node.
    pub(crate) fn held(self) -> Held {
        Held { seat: self.seat, unable: self.unable }
    }

    /// What answers commands about the cluster.
    pub(crate) fn cluster(&self) -> Option<Cluster> {
        self.managing.as_ref().map(|managing| managing.cluster.clone())
    }

    /// The keys that gossip is sealed with.
    pub(crate) fn keys(&self) -> Vec<GossipKey> {
        self.membership.ring().borrow().keys.clone()
    }

    /// What the node proves itself with, by gossip too.
    pub(crate) fn credentials(&self) -> &Credentials {
        self.membership.credentials()
    }

    /// Its role, by its certificate.
    pub(crate) fn role(&self) -> Role {
        self.credentials().identity().role
    }

    /// How the cluster's managers are asked.
    pub(crate) fn client(&self) -> ControlClient {
        self.membership.client().clone()
    }

    /// Where managers' gossip is, for a node that was told nobody else.
    pub(crate) fn seeds(&self) -> Vec<SocketAddr> {
        let gossip = |address: SocketAddr| SocketAddr::new(address.ip(), Port::GOSSIP.get());
        self.managers.addresses().into_iter().map(gossip).collect()
    }

    /// Finds managers by the node's gossip and writes down where they are, carries its keys between both, and says what happens to its membership. A change of role that
    /// changes what the node does is told to `changed`.
    pub(crate) fn follow(&self, driver: &Driver, changed: mpsc::Sender<End>) -> [JoinHandle<()>; 4] {
        let etcd = self.seat.kept().ok().and_then(|kept| kept.etcd);
        let duty = Duty { serves: self.managing.is_some(), can_serve: etcd.is_some() };
        let credentials = self.credentials().clone();
        // One pause, whatever is heard meanwhile.
        let pause = Arc::new(Mutex::new(Box::pin(tokio::time::sleep(pause_after(self.unable)))));
        let ready = move || {
            let (etcd, pause) = (etcd.clone(), Arc::clone(&pause));
            async move {
                pause.lock().await.as_mut().await;
                answers(etcd.as_ref()).await;
            }
        };
        let log = heed(self.membership.events(), move || credentials.identity().role, duty, (ready, changed));
        let log = tokio::spawn(log);
        let (seat, managers, cluster) = (Arc::clone(&self.seat), self.managers.clone(), self.cluster());
        let notes = tokio::spawn(async move {
            loop {
                tokio::time::sleep(NOTED).await;
                let known = managers.addresses();
                cluster.iter().for_each(|cluster| cluster.set_managers(known.clone()));
                if let Err(error) = seat.note_managers(known) {
                    println!("where managers are was not written down: {error}");
                }
            }
        });
        let carries = self.membership.carry_gossip_keys(driver.clone(), self.cluster());
        [log, notes, carries, self.membership.find_managers(self.managers.clone(), driver.clone(), Port::CONTROL)]
    }
}

/// What a node does for others.
#[derive(Debug, Clone, Copy)]
struct Duty {
    /// It serves them, as a manager.
    serves: bool,
    /// It knows where the catalogue is, so it can if it is one.
    can_serve: bool,
}

impl Duty {
    /// Whether it is to do something else in that role.
    fn is_another_in(self, role: Role) -> bool {
        if role == Role::Manager { !self.serves && self.can_serve } else { self.serves }
    }

    /// What it lacks for that role.
    fn lacks_for(self, role: Role) -> Option<&'static str> {
        (role == Role::Manager && !self.serves && !self.can_serve).then_some(LACKS)
    }
}

/// What a manager lacks that was not told where the catalogue is.
const LACKS: &str = "It serves nobody, as it was not told where the catalogue is: node join --etcd";

/// Says what happens to a node's membership, and tells `changed` of each role in which the node does something else. Who is to serve goes on as it is
/// until it is `ready` to: what it serves may be out of its reach, and what it does for its containers is more than nothing.
async fn heed<R: Future<Output = ()>>(
    mut events: broadcast::Receiver<MembershipEvent>,
    role: impl Fn() -> Role,
    duty: Duty,
    (ready, changed): (impl Fn() -> R, mpsc::Sender<End>),
) {
    let (mut told, mut is_to_serve) = (Some(role()), false); // it may have had another before anybody listened
    loop {
        if let Some(role) = told.take() {
            is_to_serve = role == Role::Manager && duty.is_another_in(role);
            if !is_to_serve && duty.is_another_in(role) {
                let _ = changed.send(End::Again).await; // or it ends anyway
            }
        }
        let event = tokio::select! {
            event = events.recv() => event,
            () = ready(), if is_to_serve => {
                is_to_serve = false;
                let _ = changed.send(End::Again).await; // or it ends anyway
                continue;
            }
        };
        told = match event {
            Ok(event) => {
                println!("{event}");
                match event {
                    MembershipEvent::Role(role) => Some(role),
                    MembershipEvent::Lost { .. } => {
                        is_to_serve = false; // nobody would have it
                        None
                    }
                    _ => None,
                }
            }
            // What was missed may be that it has another role.
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                println!("… {lost} lines more");
                Some(role())
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        told.and_then(|role| duty.lacks_for(role)).into_iter().for_each(|lacks| println!("{lacks}"));
    }
}

/// Waits until the catalogue can be reached that a manager serves.
async fn answers(etcd: Option<&Etcd>) {
    let (Some(etcd), mut said) = (etcd, String::new()) else { return };
    while let Err(error) = store::on_etcd(etcd).await {
        let why = error.to_string();
        if why != said {
            println!("it serves nobody before it reaches the catalogue, and tries every {} s: {why}", RETRY.as_secs());
            said = why;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// How long until the catalogue is looked for again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a node that could not serve so often in a row goes on before it tries again, for which it begins anew: 15 s to 8 minutes.
fn pause_after(failed: u32) -> Duration {
    match failed {
        0 => Duration::ZERO,
        more => Duration::from_secs(15 << (more - 1).min(5)),
    }
}

/// How often it is written down where managers are, if they are elsewhere.
const NOTED: Duration = Duration::from_secs(2);

pub(crate) fn told(error: impl std::error::Error) -> String {
    overlay_core::told(&error)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn a_node_that_missed_what_happened_goes_by_the_role_that_it_has() {
        let (events, heard) = broadcast::channel(1);
        let (changed, mut ends) = mpsc::channel(1);
        let first = std::cell::Cell::new(true);
        let managers = move || if first.replace(false) { Role::Worker } else { Role::Manager };
        events.send(MembershipEvent::Role(Role::Manager)).unwrap();
        events.send(MembershipEvent::Heard).unwrap(); // in the place of what was told before
        let duty = Duty { serves: false, can_serve: true };
        let heeding = tokio::spawn(heed(heard, managers, duty, (|| async {}, changed)));
        assert_eq!(ends.recv().await, Some(End::Again));
        events.send(MembershipEvent::Role(Role::Manager)).unwrap();
        assert_eq!(ends.recv().await, Some(End::Again), "and it goes on");
        let unable = Duty { serves: false, can_serve: false };
        assert!(!unable.is_another_in(Role::Manager) && unable.lacks_for(Role::Manager).is_some());
        assert!(unable.lacks_for(Role::Worker).is_none() && duty.lacks_for(Role::Manager).is_none());
        drop(events);
        heeding.await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_has_another_role_before_anybody_listens_does_what_that_is() {
        for (role, duty) in [
            (Role::Manager, Duty { serves: false, can_serve: true }),
            (Role::Worker, Duty { serves: true, can_serve: true }),
        ] {
            let ((events, heard), (changed, mut ends)) = (broadcast::channel(1), mpsc::channel(1));
            let heeding = tokio::spawn(heed(heard, move || role, duty, (|| async {}, changed)));
            assert_eq!(ends.recv().await, Some(End::Again));
            drop(events);
            heeding.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_node_goes_on_as_it_is_until_it_reaches_what_it_is_to_serve_or_is_not_to_any_more() {
        let (events, heard) = broadcast::channel(8);
        let (changed, mut ends) = mpsc::channel(1);
        let (reached, reaches) = watch::channel(false);
        let ready = move || {
            let mut reaches = reaches.clone();
            async move { assert!(reaches.wait_for(|it| *it).await.is_ok()) }
        };
        let duty = Duty { serves: false, can_serve: true };
        let heeding = tokio::spawn(heed(heard, || Role::Worker, duty, (ready, changed)));
        events.send(MembershipEvent::Role(Role::Manager)).unwrap();
        events.send(MembershipEvent::Heard).unwrap();
        events.send(MembershipEvent::Role(Role::Worker)).unwrap();
        while !events.is_empty() {
            tokio::task::yield_now().await;
        }
        reached.send(true).unwrap();
        tokio::task::yield_now().await;
        assert!(ends.try_recv().is_err(), "it is a worker again");
        reached.send(false).unwrap();
        events.send(MembershipEvent::Role(Role::Manager)).unwrap();
        while !events.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(ends.try_recv().is_err(), "it reaches nothing");
        reached.send(true).unwrap();
        assert_eq!(ends.recv().await, Some(End::Again));
        drop(events);
        heeding.await.unwrap();
    }
}
