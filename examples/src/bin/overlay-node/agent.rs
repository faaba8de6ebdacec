//! What a node is begun with: its keys, its id, its catalogue.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use overlay_core::{NetworkId, NodeId, Prefix, Store, UnixTime};
use overlay_crypto::gossip::GossipKey;
use overlay_dns::ResolvConf;
use overlay_driver::control::{ControlClient, Follow};
use overlay_driver::{Builder, Driver, Ground, OpenVault};
use overlay_examples::process;
use overlay_node::{Control, Feed, Manager};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::Outcome;
use crate::arguments::Run;
use crate::cluster::Place;
use crate::lock;
use crate::question::End;
use crate::running::{Running, Signals};
use crate::seat::Seat;
use crate::store;

/// Below which the catalogue is.
const ROOT: &str = "overlay/";

pub(crate) async fn run(run: Run) -> Outcome {
    if let Err(error) = process::raise_open_files() {
        eprintln!("overlay-node: it may have no more open files than it was begun with: {error}");
    }
    let (mut signals, mut held) = (Signals::new()?, None);
    loop {
        let running = tokio::select! {
            begun = Running::begin(&run, held) => begun?,
            () = signals.told() => return Ok(()), // as if it had been killed: the next start goes on from what there is
        };
        let (end, next) = running.until_its_end(&mut signals).await?;
        if end != Some(End::Again) {
            return Ok(());
        }
        held = next;
        println!("the node begins anew; containers go on to reach each other meanwhile");
    }
}

/// What a node begins with.
pub(crate) struct Beginning<'r> {
    pub(crate) run: &'r Run,
    pub(crate) id: NodeId,
    pub(crate) keys: Vec<GossipKey>,
    pub(crate) place: Option<&'r Place>,
    pub(crate) catalogue: (Arc<dyn Control>, Box<dyn Follow>),
    pub(crate) manager: Option<Arc<Manager>>,
    pub(crate) leads: Option<watch::Receiver<bool>>,
}

impl Beginning<'_> {
    pub(crate) async fn on(self, places: impl Ground) -> Outcome<Driver> {
        let Self { run, id, keys, place, catalogue: (control, feed), manager, leads } = self;
        let resolv_conf = ResolvConf::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        let mut builder = Driver::builder(id, places, control, Heard(feed))
            .name(run.name.clone())
            .gossip(run.address)
            .dir(&run.dir)
            .gossip_keys(keys)
            .upstreams(resolv_conf.nameservers());
        builder = kept(builder, place.map(|place| Arc::clone(&place.seat.vault)), &run.state);
        if let Some(manager) = manager {
            builder = builder.manager(manager);
        }
        if let Some(place) = place {
            builder = builder.signed(place.credentials());
        }
        if let Some(leads) = leads {
            builder = builder.settles_while(leads);
        }
        Ok(builder.start().await?)
    }
}

/// Where the keys of gossip are kept: with the node's others, if it is in a cluster.
fn kept<G: Ground>(builder: Builder<G>, vault: Option<Arc<OpenVault>>, state: &Path) -> Builder<G> {
    match vault {
        Some(vault) => builder.gossip_keys_kept(vault),
        None => builder.gossip_key_file(state.join("gossip-keys")),
    }
}

/// What the node keeps of its cluster, if it is in one, once it is unlocked.
pub(crate) async fn seat(run: &Run) -> Outcome<Option<Arc<Seat>>> {
    if run.is_manager || run.manager.is_some() {
        // By a catalogue alone it would speak in the clear, as nobody else of its cluster does.
        return match Seat::is_taken(&run.state)? {
            true => {
                Err("this node is in a cluster: run it without --manager and --manager-socket, or leave it first"
                    .into())
            }
            false => Ok(None),
        };
    }
    match Seat::open(&run.state, None) {
        Err(error) if error.is_locked() => Ok(Some(Arc::new(lock::wait(&run.state, &run.dir).await?))),
        opened => Ok(opened?.map(Arc::new)),
    }
}

/// The node's place in a cluster, if it has one, and the catalogue.
pub(crate) async fn open(
    run: &Run,
    (seat, unable): (Option<Arc<Seat>>, Option<u32>),
    id: NodeId,
) -> Outcome<(Option<Place>, Catalogue)> {
    match seat {
        Some(seat) => {
            let (place, catalogue) = Place::open(seat, unable, run.address.ip(), &run.state).await?;
            Ok((Some(place), catalogue))
        }
        None if run.is_manager || run.manager.is_some() => Ok((None, Catalogue::open(run, id).await?)),
        None => Err("this node is in no cluster: node init, node join, or run --manager or --manager-socket".into()),
    }
}

/// Where the cluster's catalogue is.
pub(crate) struct Catalogue {
    pub(crate) control: Arc<dyn Control>,
    pub(crate) feed: Box<dyn Follow>,
    pub(crate) manager: Option<Arc<Manager>>,
    pub(crate) store: Option<Arc<dyn Store>>,
    /// Whether this manager leads, where there are others.
    pub(crate) leads: Option<watch::Receiver<bool>>,
}

impl Catalogue {
    async fn open(run: &Run, id: NodeId) -> Outcome<Self> {
        if let Some(path) = &run.manager {
            let client = ControlClient::new(path);
            let feed = Box::new(client.follow());
            return Ok(Self { control: Arc::new(client), feed, manager: None, store: None, leads: None });
        }
        let store = store::in_file(&run.state)?;
        let mut seed = [0; 32];
        random(&mut seed);
        let manager = Arc::new(Manager::new(Arc::clone(&store), &root()?, id, seed)?);
        manager.found_cluster(NetworkId::generate(random), now()).await?;
        let feed = Box::new(Feed::new(Arc::clone(&store), &root()?)?);
        Ok(Self { control: manager.clone(), feed, manager: Some(manager), store: Some(store), leads: None })
    }
}

/// Either catalogue's feed.
#[derive(Debug)]
struct Heard(Box<dyn Follow>);

#[async_trait::async_trait]
impl Follow for Heard {
    async fn next(&mut self) -> Result<Vec<overlay_node::CatalogueChange>, overlay_driver::control::FollowError> {
        self.0.next().await
    }

    async fn watch(
        &mut self,
        services: BTreeSet<overlay_node::Reference>,
    ) -> Result<Vec<overlay_node::CatalogueChange>, overlay_driver::control::FollowError> {
        self.0.watch(services).await
    }

    fn unreadable(&self) -> std::collections::BTreeMap<String, String> {
        self.0.unreadable()
    }
}

/// A directory of the node's, made if it is not there.
pub(crate) fn folder(path: &Path) -> Outcome {
    let named = |error| format!("{}: {error}: make it, or name another by --dir or --state", path.display());
    Ok(fs::create_dir_all(path).map_err(named)?)
}

/// Who this node is, at every start. It is another only where nothing is written: what cannot be read now is not lost.
pub(crate) fn own_id(state: &Path) -> Outcome<NodeId> {
    let file = state.join("node-id");
    match fs::read_to_string(&file) {
        Ok(text) => return Ok(text.trim().parse()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("who this node is, in {}: {error}", file.display()).into()),
    }
    let id = NodeId::generate(random);
    fs::write(&file, format!("{id}\n"))?;
    Ok(id)
}

/// A key that nobody else may read.
pub(crate) fn gossip_key(file: &Path) -> Outcome<GossipKey> {
    let named = |error: &dyn std::fmt::Display| format!("the key of gossip in {}: {error}", file.display());
    let mut opened = fs::File::open(file).map_err(|error| named(&error))?;
    let mode = opened.metadata().map_err(|error| named(&error))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(named(&format!("others may read or write it, chmod 600 {}", file.display())).into());
    }
    let mut text = Zeroizing::new(String::new());
    opened.read_to_string(&mut text).map_err(|error| named(&error))?;
    Ok(text.trim().parse().map_err(|error| named(&error))?)
}

pub(crate) fn root() -> Outcome<Prefix> {
    Ok(Prefix::new(ROOT)?)
}

#[expect(clippy::disallowed_methods, reason = "a program reads the clock")]
pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(since.as_millis() as u64)
}

/// Chance, of which keys are made: without it the program ends, rather than go on with keys that anybody can guess.
#[expect(clippy::exit, reason = "nothing of it is begun that would have to be ended")]
pub(crate) fn random(bytes: &mut [u8]) {
    if let Err(error) = process::random(bytes) {
        eprintln!("overlay-node: {error}; without chance there are no keys");
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_id_cannot_be_read_does_not_become_another() {
        let dir = std::env::temp_dir().join(format!("overlay-node-id-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let id = own_id(&dir).unwrap();
        assert_eq!(own_id(&dir).unwrap(), id);
        fs::write(dir.join("node-id"), [0xff]).unwrap();
        let refused = own_id(&dir).map_err(|error| error.to_string());
        let kept = fs::read(dir.join("node-id")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(refused.is_err() && kept == [0xff], "{refused:?}");
    }
}
