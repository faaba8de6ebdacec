//! A container, with all its endpoints.

use std::cmp::Reverse;

use overlay_core::{Name, NetworkId};
use overlay_dns::{View, Zone};

use super::routes;
use crate::{Knowledge, LocalEndpoint, Network, PlaceState};

/// A container's part of one network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attachment<'p> {
    pub(super) network: &'p Network,
    pub(super) local: &'p LocalEndpoint,
    pub(super) zone: &'p Zone,
}

impl<'p> Attachment<'p> {
    /// The first is the one that names are looked up in first, and that gives the default route.
    fn rank(&self) -> (Reverse<i32>, &'p Name, NetworkId) {
        (Reverse(self.local.endpoint.spec.priority), &self.network.spec.name, self.network.id)
    }
}

/// Its routes, and the names that it sees.
pub(super) fn state(knowledge: &Knowledge, attachments: &[Attachment<'_>]) -> PlaceState {
    let mut attachments = attachments.to_vec();
    attachments.sort_by(|a, b| a.rank().cmp(&b.rank()));
    PlaceState {
        routes: routes::routes(&attachments),
        view: view(knowledge, attachments.iter().map(|attachment| attachment.zone)),
        ..PlaceState::default()
    }
}

/// The names of these networks.
pub(super) fn view<'z>(knowledge: &Knowledge, zones: impl IntoIterator<Item = &'z Zone>) -> View {
    View { networks: zones.into_iter().cloned().collect(), suffixes: knowledge.settings.suffixes.clone() }
}
