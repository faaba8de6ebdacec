//! What an allocator knows of all subnets of its space.

use std::collections::BTreeMap;

use ipnet::IpNet;
use overlay_core::{Entry, Key, NetworkId, NodeId, Revision};

use super::record::{Change, Network, Space, parse_report};
use super::{Allocator, Config, TRIES};
use crate::ledger::wire::Flaw;
use crate::{IpamError, Occupant, Occupation, Subnets};

/// All subnets of the space, as of a version.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) subnets: Subnets,
    pub(crate) networks: BTreeMap<NetworkId, Network>,
    pub(crate) reports: BTreeMap<NodeId, Vec<IpNet>>,
    exclusions: Vec<IpNet>,
    /// What is known; `None` before the first reading.
    pub(crate) version: Option<u64>,
    /// The record it was known from.
    pub(crate) entry: Option<Entry>,
    pools: Vec<crate::Pool>,
}

impl Catalog {
    pub(crate) fn new(config: &Config) -> Self {
        let mut catalog = Self {
            subnets: Subnets::new(config.pools.iter().copied()),
            networks: BTreeMap::new(),
            reports: BTreeMap::new(),
            exclusions: config.exclusions.clone(),
            version: None,
            entry: None,
            pools: config.pools.clone(),
        };
        catalog.occupy();
        catalog
    }

    /// Gives the number of the network that is gone by it.
    pub(crate) fn set(&mut self, id: NetworkId, network: Option<Network>) -> Option<u64> {
        let former = self.networks.remove(&id);
        let gone = former.as_ref().map(|former| former.number);
        let gone = gone.filter(|number| network.as_ref().is_none_or(|network| network.number != *number));
        if let Some(former) = former {
            former.subnets.iter().for_each(|subnet| self.subnets.release(id, subnet));
        }
        if let Some(network) = network {
            network.subnets.iter().for_each(|subnet| self.subnets.take(id, subnet));
            self.networks.insert(id, network);
        }
        gone
    }

    pub(crate) fn occupy(&mut self) {
        let excluded = self.exclusions.iter().map(|net| Occupation { net: net.trunc(), by: Occupant::Excluded });
        let reported = self
            .reports
            .iter()
            .flat_map(|(node, nets)| nets.iter().map(|net| Occupation { net: net.trunc(), by: Occupant::Node(*node) }));
        self.subnets.set_occupied(excluded.chain(reported));
    }

    fn clear(&mut self) {
        self.subnets = Subnets::new(self.pools.iter().copied());
        self.networks.clear();
        self.reports.clear();
        self.occupy();
    }
}

impl Allocator {
    pub(super) fn space_key(&self) -> Key {
        self.ledger.keys.key(&[b"s"])
    }

    pub(super) fn network_key(&self, network: NetworkId) -> Key {
        self.ledger.keys.key(&[b"sn", &network.to_bytes()])
    }

    pub(super) fn report_key(&self, node: NodeId) -> Key {
        self.ledger.keys.key(&[b"so", &node.to_bytes()])
    }

    /// Reads what changed since the catalogue was last read: what few changes touched, or all of it.
    pub(super) async fn catch_up(&self) -> Result<(), IpamError> {
        for _ in 0..TRIES {
            let key = self.space_key();
            let entry = self.ledger.store.get(&key).await?;
            let space = match &entry {
                None => Space::default(),
                Some(entry) => Space::parse(&entry.value).map_err(|flaw| corrupt(&key, flaw))?,
            };
            let known = self.catalog().version;
            match known.and_then(|version| space.since(version)) {
                Some([]) => {
                    self.catalog().entry = entry;
                    return Ok(());
                }
                Some(changes) if !changes.contains(&Change::Occupied) => {
                    if self.read_changes(&key, &space, changes).await? {
                        return Ok(());
                    }
                }
                _ => return self.read_all(&key).await,
            }
        }
        Err(IpamError::Contended { attempts: TRIES })
    }

    /// Whether the space was still the same when the networks were read.
    async fn read_changes(&self, key: &Key, space: &Space, changes: &[Change]) -> Result<bool, IpamError> {
        let ids = changes.iter().filter_map(|change| match change {
            Change::Network(id) => Some(*id),
            Change::Occupied => None,
        });
        let mut ids: Vec<NetworkId> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let mut keys = vec![key.clone()];
        keys.extend(ids.iter().map(|id| self.network_key(*id)));
        let mut entries = self.ledger.store.read(&keys).await?.entries.into_iter();
        let Some(Some(entry)) = entries.next() else { return Ok(false) };
        if Space::parse(&entry.value) != Ok(space.clone()) {
            return Ok(false);
        }
        let mut networks = Vec::with_capacity(ids.len());
        for ((id, key), found) in ids.into_iter().zip(&keys[1..]).zip(entries) {
            let network = found.map(|found| Network::parse(&found.value)).transpose();
            networks.push((id, network.map_err(|flaw| corrupt(key, flaw))?));
        }
        let mut catalog = self.catalog();
        // First all that goes, then all that comes: a subnet may have gone from one network to another.
        let mut gone: Vec<(NetworkId, u64)> =
            networks.iter().filter_map(|(id, _)| Some((*id, catalog.set(*id, None)?))).collect();
        for (id, network) in networks {
            gone.retain(|(_, number)| network.as_ref().is_none_or(|network| network.number != *number));
            catalog.set(id, network);
        }
        (catalog.version, catalog.entry) = (Some(space.version), Some(entry));
        drop(catalog);
        gone.into_iter().for_each(|(id, number)| self.bury(id, Some(number)));
        Ok(true)
    }

    async fn read_all(&self, space_key: &Key) -> Result<(), IpamError> {
        let prefix = self.ledger.keys.prefix(&[b"s"]);
        let listing = self.ledger.store.list(&prefix).await?;
        let (mut space, mut entry) = (Space::default(), None);
        let (mut networks, mut reports) = (Vec::new(), BTreeMap::new());
        for (key, found) in listing.entries {
            let bad = |flaw| corrupt(&key, flaw);
            let id = |rest: &[u8]| <[u8; 16]>::try_from(rest).map_err(|_| bad(Flaw::Field { field: "key" }));
            match key.strip(&prefix).and_then(<[u8]>::split_first) {
                None => {
                    space = Space::parse(&found.value).map_err(bad)?;
                    entry = Some(found);
                }
                Some((b'n', rest)) => {
                    networks.push((NetworkId::from_bytes(id(rest)?), Network::parse(&found.value).map_err(bad)?));
                }
                Some((b'o', rest)) => {
                    reports.insert(NodeId::from_bytes(id(rest)?), parse_report(&found.value).map_err(bad)?);
                }
                Some(_) => return Err(corrupt(space_key, Flaw::Field { field: "key" })),
            }
        }
        let mut catalog = self.catalog();
        let mut gone: BTreeMap<NetworkId, u64> = catalog.networks.iter().map(|(id, of)| (*id, of.number)).collect();
        catalog.clear();
        for (id, network) in networks {
            if gone.get(&id) == Some(&network.number) {
                gone.remove(&id);
            }
            catalog.set(id, Some(network));
        }
        catalog.reports = reports;
        catalog.occupy();
        (catalog.version, catalog.entry) = (Some(space.version), entry);
        drop(catalog);
        gone.into_iter().for_each(|(id, number)| self.bury(id, Some(number)));
        Ok(())
    }

    /// Nothing is kept of a network that is gone: managers live long.
    pub(super) fn bury(&self, id: NetworkId, number: Option<u64>) {
        let Some(number) = number else { return };
        self.loaded().remove(&id);
        self.ledger.cache().drop_ground(number);
    }

    /// A commit of ours has made the space so.
    pub(super) fn advance(&self, space: &Space, value: bytes::Bytes, revision: Revision) {
        let mut catalog = self.catalog();
        catalog.version = Some(space.version);
        catalog.entry = Some(Entry { value, revision });
    }
}

pub(super) fn corrupt(key: &Key, flaw: Flaw) -> IpamError {
    IpamError::Corrupt { key: key.clone(), flaw }
}
