//! A member as foca names it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use foca::Identity;
use overlay_core::NodeId;
use serde::{Deserialize, Serialize};

use crate::member::plain;
use crate::wire::{Number, Update};
use crate::{Member, Metadata, Role, Standing};

/// What foca spreads for each member, all of it in every update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peer {
    address: SocketAddr,
    id: NodeId,
    incarnation: u64,
    revision: u32,
    manager: bool,
    metadata: Bytes,
    /// Set by a goodbye, since foca knows but one way of being down.
    pub(super) leaving: bool,
}

impl Peer {
    pub(super) fn new(member: &Member, revision: u32) -> Self {
        Self {
            address: member.address,
            id: member.id,
            incarnation: member.incarnation,
            revision,
            manager: member.role == Role::Manager,
            metadata: Bytes::copy_from_slice(member.metadata.as_bytes()),
            leaving: false,
        }
    }

    /// Stands for whoever is at an address, which is all that foca asks of an announcement's receiver.
    pub(super) fn somebody(address: SocketAddr) -> Self {
        Self::new(&Member::new(NodeId::from_bytes([0; 16]), 0, address), 0)
    }

    /// A greater number for the same node.
    pub(super) fn revised(&self, member: &Member) -> Self {
        Self::new(member, self.revision.saturating_add(1))
    }

    pub(super) fn leaving(&self) -> Self {
        Self { leaving: true, revision: self.revision.saturating_add(1), ..self.clone() }
    }

    pub(super) const fn id(&self) -> NodeId {
        self.id
    }

    pub(super) const fn number(&self) -> Number {
        Number { incarnation: self.incarnation, revision: self.revision }
    }

    pub(super) fn member(&self) -> Member {
        Member {
            role: if self.manager { Role::Manager } else { Role::Worker },
            metadata: Metadata::new(self.metadata.clone()).unwrap_or_default(), // too long: from no node of ours
            ..Member::new(self.id, self.incarnation, self.address)
        }
    }

    pub(super) fn update(&self, standing: Standing, age: Duration) -> Update {
        let (accusers, signature) = (Vec::new(), Box::default());
        Update { member: self.member(), revision: self.revision, standing, age, accusers, signature }
    }

    pub(super) fn of(update: &Update) -> Self {
        Self::new(&update.member, update.revision)
    }
}

impl Identity for Peer {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self { revision: self.revision.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> SocketAddr {
        plain(self.address)
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.number() > other.number()
    }
}
