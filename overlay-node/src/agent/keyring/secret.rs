//! One epoch of this node, and what was agreed on by it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::NodeId;
use overlay_crypto::{
    AgreeError, AlreadyIssued, Cipher, Direction, Epoch, EpochRecord, EpochSecret, Issued, Lanes, Pair, Use,
};

use super::Peer;
use crate::{Carried, LaneKeys};

/// A secret, and the keys of each epoch of each peer.
#[derive(Debug)]
pub(super) struct Secret {
    secret: EpochSecret,
    agreed: BTreeMap<(NodeId, Epoch), Agreed>,
}

/// What two nodes agreed on in an epoch of each.
#[derive(Debug)]
struct Agreed {
    record: EpochRecord,
    /// Where the peer was then.
    peer: IpAddr,
    /// What further keys come of.
    pair: Pair,
    tunnels: BTreeMap<Carried, LaneKeys>,
}

/// No keys come of this secret for some tunnel: the peer's record is older than one that was there, or was let go, or is for another address; or a key would
/// be issued twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent;

impl Secret {
    pub(super) const fn new(secret: EpochSecret) -> Self {
        Self { secret, agreed: BTreeMap::new() }
    }

    pub(super) fn record(&self) -> EpochRecord {
        self.secret.record()
    }

    /// Whether the node knows keys of this secret, or did.
    pub(super) fn is_known_to(&self, node: NodeId) -> bool {
        self.secret.has_agreed_with(node)
    }

    /// Forgets what was agreed on with who is gone, for what is not carried here any more, and by records that are published no more.
    pub(super) fn let_go(&mut self, keep: impl Fn(NodeId, Epoch, IpAddr) -> bool, carried: &BTreeSet<Carried>) {
        self.agreed.retain(|(node, epoch), agreed| keep(*node, *epoch, agreed.peer));
        let all = self.agreed.values_mut();
        all.for_each(|agreed| agreed.tunnels.retain(|of, _| carried.contains(of)));
    }

    /// Agrees on what tunnels to a peer are to carry, by each record that is to be opened; what was agreed on stays.
    pub(super) fn agree(&mut self, node: NodeId, peer: &Peer, lanes: Lanes) -> Result<(), Spent> {
        for record in peer.records.to_open() {
            let name = (node, record.epoch);
            let is_there =
                self.agreed.get(&name).is_some_and(|agreed| (agreed.record, agreed.peer) == (record, peer.vtep));
            if !is_there {
                let pair = match self.secret.agree(node, record) {
                    Ok(pair) => pair,
                    Err(AgreeError::Old { .. }) => return Err(Spent),
                    Err(_) => continue, // nothing comes of that record
                };
                self.agreed.insert(name, Agreed { record, peer: peer.vtep, pair, tunnels: BTreeMap::new() });
            }
            let agreed = self.agreed.get_mut(&name).map(|agreed| agreed.issue(&peer.carried, lanes));
            agreed.unwrap_or(Ok(())).map_err(|_| Spent)?;
        }
        Ok(())
    }

    /// All of it: whom with, in which epoch of theirs, at which address.
    pub(super) fn all(&self) -> impl Iterator<Item = (NodeId, EpochRecord, IpAddr, &BTreeMap<Carried, LaneKeys>)> {
        self.agreed.iter().map(|((node, _), agreed)| (*node, agreed.record, agreed.peer, &agreed.tunnels))
    }
}

impl Agreed {
    fn issue(&mut self, carried: &BTreeSet<Carried>, lanes: Lanes) -> Result<(), AlreadyIssued> {
        for of in carried {
            if !self.tunnels.contains_key(of) {
                self.tunnels.insert(*of, issue(&mut self.pair, *of, lanes)?);
            }
        }
        Ok(())
    }
}

/// What follows from a secret that two nodes have: each key once.
pub(super) fn issue(pair: &mut Pair, carried: Carried, lanes: Lanes) -> Result<LaneKeys, AlreadyIssued> {
    let mut all = |direction| -> Result<Vec<Issued>, AlreadyIssued> {
        let r#use = |lane| Use { network: carried.network(), lane, direction };
        lanes.iter().map(|lane| pair.issue(r#use(lane), Cipher::default())).collect()
    };
    Ok(LaneKeys { takes: all(Direction::In)?, sends: all(Direction::Out)? })
}
