//! The seal of gossip.

mod behind;
mod tell;
mod turn;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use overlay_core::{Instant, NodeId};
use overlay_crypto::gossip::{GossipKey, KeyId, Keyring, KeyringError, OpenError, Purpose, Succession};
use overlay_crypto::{Cause, Chance, Stage};
use overlay_gossip::{Class, Transmit};

use super::{Agent, AgentConfig, AgentError, AgentEvent, Me};

pub(super) use tell::{CLUSTER, Told as SealsTold};
pub(super) use turn::Seal;

/// A change by hand of the keys that gossip is sealed with. It is for a node that lacks a key and cannot hear of it by gossip; all else does
/// [`Input::RotateGossipKeys`](crate::Input::RotateGossipKeys). To change them by hand without losing a message, install the new one on all nodes, then promote it, then retire the old one on all.
#[derive(Debug, Clone)]
pub enum GossipKeyChange {
    /// What is sealed with this key is opened too.
    Install(GossipKey),
    /// As that, unless the key was here and was retired: what somebody tells who has not heard of that brings nothing back.
    Remember(GossipKey),
    /// This node seals with this key, and with it all that have it and hear of that.
    Promote(KeyId),
    /// What is sealed with this key is not opened any more.
    Retire(KeyId),
}

/// Why the keys that gossip is sealed with were not changed. They are as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipKeyError {
    /// Gossip is not sealed here.
    #[error("gossip is not sealed here: start the node with a key, as all others")]
    Unsealed,
    /// The keyring refuses it.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// For how long a key that is not here is said to be lacking, and how often it is told.
const LACKING: Duration = Duration::from_secs(60);

impl Agent {
    /// As [`new`](Self::new), an agent whose gossip is sealed: all nodes of the cluster have one of these keys or were given it, and what nobody sealed is as if it had
    /// not come. `chance` is fit for keys, and new with each start.
    ///
    /// The keys are those of an earlier start, if there was one. At each [`AgentEvent::GossipKeys`] they are to be [written down](Self::gossip_keys): until
    /// [`Input::GossipKeysKept`](crate::Input::GossipKeysKept) nobody is told of them.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if the settings of [rotation](AgentConfig::gossip_rotation) are out of range.
    pub fn sealed(
        config: AgentConfig,
        me: Me,
        (keys, chance): (Succession, Chance),
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, AgentError> {
        config.gossip_rotation.check()?;
        let rotation = (config.gossip_rotation, config.rotates_gossip_by_time);
        let gossip = overlay_gossip::Config { seal_overhead: Keyring::OVERHEAD, ..config.gossip };
        let mut agent = Self::new(AgentConfig { gossip, ..config }, me, seed, now)?;
        agent.seal = Seal::new(me.id, keys, chance, rotation);
        agent.settle_seal(now);
        Ok(agent)
    }

    /// What gossip is sealed with; `None` if it goes as it is.
    pub fn seal(&self) -> Option<&Keyring> {
        self.seal.as_ref().map(|seal| &seal.keyring)
    }

    /// The keys of gossip, to be written down where only this node reads them; `None` if it goes as it is.
    pub fn gossip_keys(&self) -> Option<&Succession> {
        self.seal.as_ref().map(|seal| &seal.keys)
    }

    /// The stage that the change to a key of this node's is in; steady while none is under way.
    pub fn gossip_stage(&self) -> Stage {
        self.seal.as_ref().map_or(Stage::Steady, Seal::stage)
    }

    /// A key that other nodes seal with and that this one lacks, if that was heard in the last minute: it was away as the key was changed, and does not come by it by gossip unless a node
    /// opens still what this one seals. [`change_gossip_keys`](Self::change_gossip_keys) takes it: installed, and promoted.
    pub fn lacking_gossip_key(&self, now: Instant) -> Option<KeyId> {
        let (key, said) = self.seal.as_ref()?.lacking?;
        (now - said < LACKING).then_some(key)
    }

    /// Changes what gossip is sealed with.
    ///
    /// # Errors
    /// See [`GossipKeyError`]. Nothing was changed then.
    pub fn change_gossip_keys(&mut self, change: GossipKeyChange, now: Instant) -> Result<(), GossipKeyError> {
        let seal = self.seal.as_mut().ok_or(GossipKeyError::Unsealed)?;
        match change {
            GossipKeyChange::Install(key) => seal.keys.install(key),
            GossipKeyChange::Remember(key) => seal.keys.remember(key).map(drop),
            GossipKeyChange::Promote(id) => seal.keys.lead(id),
            GossipKeyChange::Retire(id) => seal.keys.retire(id),
        }?;
        seal.is_doubted = true;
        self.settle(now);
        Ok(())
    }

    /// This node has all change to a new key, which the nodes `without` do not get.
    pub(super) fn rotate_gossip(&mut self, without: BTreeSet<NodeId>, now: Instant) {
        if let Some(seal) = &mut self.seal {
            seal.want(Cause::Demand, without, now);
        }
    }

    /// A node is the cluster's no more: what it knows is to be of no use. All nodes hear so, and the first of them sees to it; if it does not, the next.
    pub(super) fn rotate_gossip_without(&mut self, node: NodeId, now: Instant) {
        let me = self.knowledge.me;
        let before = self.others().live.iter().filter(|other| **other < me && **other != node).count();
        let Some(seal) = self.seal.as_mut().filter(|_| node != me) else { return }; // whoever was removed has no say
        let at = now + seal.patience().saturating_mul(before as u32);
        seal.want(Cause::Removal, [node], at);
    }

    /// The keys of that version are written down.
    pub(super) fn keep_gossip_keys(&mut self, version: u64) {
        if let Some(seal) = self.seal.as_mut().filter(|seal| seal.asked.0 == version) {
            seal.kept.clone_from(&seal.asked.1);
            seal.is_doubted = true;
        }
    }

    /// The next message to send, sealed if gossip is.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        loop {
            let transmit = self.gossip.poll_transmit(now)?;
            let is_alone = self.gossip.live() == 0;
            let Some(seal) = &mut self.seal else { return Some(transmit) };
            let key = match is_alone {
                true => seal.any_key(),
                false => seal.behind.key_for(transmit.to, now),
            };
            let mut message = Vec::with_capacity(transmit.payload.len() + Keyring::OVERHEAD);
            message.extend_from_slice(&transmit.payload);
            // What cannot be sealed does not leave.
            if seal.seal(key, purpose(transmit.class), &mut message).is_ok() {
                return Some(Transmit { payload: message.into(), ..transmit });
            }
        }
    }

    /// What is in a message that came.
    pub(super) fn open(
        &mut self,
        from: SocketAddr,
        class: Class,
        message: Bytes,
        now: Instant,
    ) -> Result<Bytes, OpenError> {
        let Some(seal) = &mut self.seal else { return Ok(message) };
        let mut message = Vec::from(message);
        match seal.keyring.open(purpose(class), &mut message) {
            Ok(key) => {
                if class == Class::Datagram {
                    // Who has said that it holds the primary opens it, whatever it seals with still. O(nodes), while a key is changed.
                    let mut members = self.gossip.members().filter(|(member, _)| member.address == from);
                    let is_left =
                        key != seal.keyring.primary() && !members.any(|(member, _)| seal.can_follow(member.id, key));
                    seal.behind.heard(from, key, is_left, now);
                }
                seal.lacking.take_if(|(lacking, _)| *lacking == key);
                Ok(message.into())
            }
            Err(error) => {
                self.counts.unopened += 1;
                self.note_lacking(from, error, now);
                Err(error)
            }
        }
    }

    /// Somebody seals with a key that is not here: a member, or whoever answers a node that is alone.
    fn note_lacking(&mut self, from: SocketAddr, error: OpenError, now: Instant) {
        let OpenError::Unknown(key) = error else { return };
        let is_member = self.gossip.live() == 0 || self.gossip.members().any(|(member, _)| member.address == from);
        let Some(seal) = self.seal.as_mut().filter(|_| is_member) else { return };
        let is_told = seal.lacking.is_some_and(|(_, said)| now - said < LACKING);
        seal.lacking = Some((key, if is_told { seal.lacking.map_or(now, |(_, said)| said) } else { now }));
        if !is_told {
            self.events.push_back(AgentEvent::LackingGossipKey { key });
        }
    }
}

impl Seal {
    fn seal(
        &mut self,
        key: Option<KeyId>,
        purpose: Purpose,
        message: &mut Vec<u8>,
    ) -> Result<(), overlay_crypto::gossip::SealError> {
        match key {
            Some(key) if self.keys.get(key).is_some() => self.keyring.seal_with(key, purpose, message),
            _ => self.keyring.seal(purpose, message),
        }
    }
}

const fn purpose(class: Class) -> Purpose {
    match class {
        Class::Datagram => Purpose::Datagram,
        Class::Stream => Purpose::Stream,
    }
}
