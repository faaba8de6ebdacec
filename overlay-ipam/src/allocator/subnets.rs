//! Subnets in the store: claimed, grown, released, and what nodes report.

use bytes::Bytes;
use ipnet::IpNet;
use overlay_core::{
    Commit, Compare, Entry, Key, NetworkId, NodeId, Prefix, Revision, Snapshot, TransactionError, Undecided,
};

use super::record::{Change, Network, Space, encode_report};
use super::space::corrupt;
use super::{Allocator, TRIES};
use crate::ledger::failed;
use crate::ledger::wire::Flaw;
use crate::{IpamError, PoolUsage, Subnet, SubnetError, SubnetRequest, Usage};

/// Why a decision about subnets was none.
enum No {
    /// The catalogue is older than the store: catch up.
    Behind,
    Refused(IpamError),
}

/// What a decision about subnets makes of space and network; nothing if it found things as they should be.
struct Made {
    subnets: Vec<Subnet>,
    written: Option<(Space, Bytes, Option<Network>)>,
}

impl Allocator {
    pub(super) async fn claim_all(
        &self,
        network: NetworkId,
        requests: &[SubnetRequest],
    ) -> Result<Vec<Subnet>, IpamError> {
        crate::request::check(requests).map_err(SubnetError::Request)?;
        let _turn = self.space.turn().await;
        for _ in 0..TRIES {
            if self.catalog().version.is_none() {
                self.catch_up().await?;
            }
            let known = self.known(network);
            let claimed = self
                .ledger
                .transaction()
                .assuming(known)
                .run(|snapshot| self.decide_claim(snapshot, network, requests));
            match claimed.await {
                Ok(done) => {
                    self.note(network, done.output.written, done.at);
                    return Ok(done.output.subnets);
                }
                Err(TransactionError::Refused(No::Behind)) => self.catch_up().await?,
                Err(TransactionError::Refused(No::Refused(error))) => return Err(error),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(IpamError::Contended { attempts: TRIES })
    }

    pub(super) async fn release_all(&self, network: NetworkId) -> Result<(), IpamError> {
        let _turn = self.space.turn().await;
        for _ in 0..TRIES {
            self.catch_up().await?;
            let Some(number) = self.catalog().networks.get(&network).map(|found| found.number) else {
                return self.sweep().await;
            };
            let [prefix, ..] = self.ledger.keys.all_of(number);
            let leases = self.ledger.store.list(&prefix).await?;
            if !leases.entries.is_empty() {
                return Err(IpamError::InUse { network, leases: leases.entries.len() });
            }
            let none = Compare::Prefix { prefix, revision: leases.at };
            let known = self.known(network);
            let transaction = self.ledger.transaction().assuming(known).attempts(2);
            let released = transaction.run(|snapshot| self.decide_release(snapshot, network, number, &none));
            match released.await {
                Ok(done) => {
                    self.note(network, done.output.written, done.at);
                    return self.sweep().await;
                }
                // Somebody was faster, with a lease or a subnet: look again.
                Err(TransactionError::Refused(No::Behind) | TransactionError::Contended { .. }) => {}
                Err(TransactionError::Refused(No::Refused(error))) => return Err(error),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(IpamError::Contended { attempts: TRIES })
    }

    /// Removes what released networks have left behind; done after every release, and again by the next after a crash.
    ///
    /// # Errors
    /// What the store was short of; the rest is removed by the next call.
    pub async fn sweep(&self) -> Result<(), IpamError> {
        let graves = self.ledger.keys.prefix(&[b"x"]);
        for (grave, _) in self.ledger.store.list(&graves).await?.entries {
            let number = grave.strip(&graves).and_then(|number| <[u8; 8]>::try_from(number).ok());
            let number = number.ok_or_else(|| corrupt(&grave, Flaw::Field { field: "key" }))?;
            for prefix in self.ledger.keys.all_of(u64::from_be_bytes(number)) {
                self.clear(&prefix).await?;
            }
            self.ledger.store.commit(Commit::new().delete(grave)).await?;
        }
        Ok(())
    }

    /// Puts in the store what `node` has in use, so that no manager puts a subnet there; empty to take it back.
    ///
    /// # Errors
    /// What the store was short of.
    pub async fn report(&self, node: NodeId, occupied: &[IpNet]) -> Result<(), IpamError> {
        let (key, space_key) = (self.report_key(node), self.space_key());
        let mut nets: Vec<IpNet> = occupied.iter().map(IpNet::trunc).collect();
        nets.sort_unstable();
        nets.dedup();
        let record = encode_report(&nets);
        let both = [space_key.clone(), key.clone()];
        let _turn = self.space.turn().await;
        let reported = self.ledger.transaction().reading(both).run(|snapshot| {
            let found = snapshot.get(&key)?;
            let same = found.map_or(nets.is_empty(), |found| found.value == record);
            if same {
                return Ok((Commit::new(), ()));
            }
            let space = read_space(&space_key, snapshot.get(&space_key)?)?.changed(Change::Occupied);
            let commit = Commit::new().put(space_key.clone(), space.encode());
            match nets.is_empty() {
                true => Ok((commit.delete(key.clone()), ())),
                false => Ok((commit.put(key.clone(), record.clone()), ())),
            }
        });
        match reported.await {
            Ok(_) => Ok(()),
            Err(TransactionError::Refused(No::Refused(error))) => Err(error),
            Err(error) => Err(failed(error)),
        }
    }

    /// How full the pools are.
    ///
    /// # Errors
    /// What the store was short of.
    pub async fn pools(&self) -> Result<Vec<PoolUsage>, IpamError> {
        self.catch_up().await?;
        let catalog = self.catalog();
        let usage = catalog.subnets.pools().map(|(pool, in_use)| {
            let usage = Usage { capacity: pool.subnets(), in_use, resting: 0 };
            PoolUsage { pool, usage, warning: usage.is_above(self.config.warn_at) }
        });
        Ok(usage.collect())
    }

    pub(super) async fn all_networks(&self) -> Result<Vec<(NetworkId, Vec<Subnet>)>, IpamError> {
        self.catch_up().await?;
        Ok(self.catalog().networks.iter().map(|(id, network)| (*id, network.subnets.clone())).collect())
    }

    /// The records that a decision about a network rests on, as far as they are known.
    fn known(&self, network: NetworkId) -> Vec<(Key, Option<Entry>)> {
        let catalog = self.catalog();
        let space = (self.space_key(), catalog.entry.clone());
        match catalog.networks.contains_key(&network) {
            true => vec![space],
            false => vec![space, (self.network_key(network), None)],
        }
    }

    fn decide_claim(
        &self,
        snapshot: &Snapshot,
        id: NetworkId,
        requests: &[SubnetRequest],
    ) -> Result<(Commit, Made), Undecided<No>> {
        let (space_key, key) = (self.space_key(), self.network_key(id));
        snapshot.need([&space_key, &key])?;
        let mut catalog = self.catalog();
        let network = read_network(&key, snapshot.get(&key)?)?;
        let has = network.as_ref().map_or(&[][..], |network| &network.subnets);
        for (at, (subnet, request)) in has.iter().zip(requests).enumerate() {
            if !request.is_met_by(subnet) {
                let mismatch = IpamError::Mismatch { network: id, number: at, has: subnet.net() };
                return Err(Undecided::Refused(No::Refused(mismatch)));
            }
        }
        if requests.len() <= has.len() {
            return Ok((Commit::new(), Made { subnets: has.to_vec(), written: None }));
        }
        let space = read_space(&space_key, snapshot.get(&space_key)?)?;
        if Some(space.version) != catalog.version {
            return Err(Undecided::Refused(No::Behind));
        }
        let added = catalog.subnets.claim_all(id, &requests[has.len()..]);
        let added = added.map_err(|error| Undecided::Refused(No::Refused(error.into())))?;
        added.iter().for_each(|subnet| catalog.subnets.release(id, subnet)); // until it is written down
        let space = space.changed(Change::Network(id));
        let subnets: Vec<Subnet> = has.iter().cloned().chain(added).collect();
        let number = network.as_ref().map_or(space.version, |network| network.number);
        let network = Network { number, subnets: subnets.clone() };
        let value = space.encode();
        let commit = Commit::new().put(space_key, value.clone()).put(key, network.encode());
        Ok((commit, Made { subnets, written: Some((space, value, Some(network))) }))
    }

    fn decide_release(
        &self,
        snapshot: &Snapshot,
        id: NetworkId,
        number: u64,
        no_leases: &Compare,
    ) -> Result<(Commit, Made), Undecided<No>> {
        let (space_key, key) = (self.space_key(), self.network_key(id));
        let grave = self.ledger.keys.key(&[b"x", &number.to_be_bytes()]);
        snapshot.need([&space_key, &key, &grave])?;
        let network = read_network(&key, snapshot.get(&key)?)?;
        if network.is_none_or(|network| network.number != number) {
            return Ok((Commit::new(), Made { subnets: Vec::new(), written: None })); // done by a lost attempt
        }
        let space = read_space(&space_key, snapshot.get(&space_key)?)?;
        if Some(space.version) != self.catalog().version {
            return Err(Undecided::Refused(No::Behind));
        }
        snapshot.get(&grave)?;
        let space = space.changed(Change::Network(id));
        let value = space.encode();
        let commit = Commit::new().compare(no_leases.clone());
        let commit = commit.put(space_key, value.clone()).put(grave, Bytes::from_static(&[1])).delete(key);
        Ok((commit, Made { subnets: Vec::new(), written: Some((space, value, None)) }))
    }

    /// What was decided is written down at `revision`.
    fn note(&self, id: NetworkId, written: Option<(Space, Bytes, Option<Network>)>, revision: Revision) {
        self.forget(id);
        if let Some((space, value, network)) = written {
            let gone = self.catalog().set(id, network);
            self.bury(id, gone);
            self.advance(&space, value, revision);
        }
    }

    /// Deletes everything under a prefix that nobody uses any more.
    async fn clear(&self, prefix: &Prefix) -> Result<(), IpamError> {
        let keys: Vec<Key> = self.ledger.store.list(prefix).await?.entries.into_iter().map(|(key, _)| key).collect();
        let limits = self.ledger.store.limits();
        let most = limits.operations.min(limits.commit / Key::MAX).max(1);
        for some in keys.chunks(most) {
            let commit = some.iter().fold(Commit::new(), |commit, key| commit.delete(key.clone()));
            self.ledger.store.commit(commit).await?;
        }
        Ok(())
    }
}

fn read_space(key: &Key, entry: Option<&Entry>) -> Result<Space, Undecided<No>> {
    let Some(entry) = entry else { return Ok(Space::default()) };
    Space::parse(&entry.value).map_err(|flaw| Undecided::Refused(No::Refused(corrupt(key, flaw))))
}

fn read_network(key: &Key, entry: Option<&Entry>) -> Result<Option<Network>, Undecided<No>> {
    let network = entry.map(|entry| Network::parse(&entry.value)).transpose();
    network.map_err(|flaw| Undecided::Refused(No::Refused(corrupt(key, flaw))))
}
