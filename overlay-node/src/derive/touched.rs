//! What differs between what was known of a network and what is.

use std::collections::BTreeSet;
use std::sync::Arc;

use overlay_core::{Change, EndpointId, NodeId, ServiceId, keyed_diff};

use super::claim::vips;
use crate::{Knowledge, Section};

/// A network, as it was or is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'k> {
    pub(super) knowledge: &'k Knowledge,
    pub(super) section: &'k Section,
}

/// What may be otherwise in what is derived.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    /// Endpoints that are otherwise themselves, or whose node or service is.
    pub(super) endpoints: BTreeSet<EndpointId>,
    pub(super) services: bool,
    pub(super) vips: bool,
}

impl Touched {
    /// O(n), of pointers that are compared.
    pub(super) fn between(old: Known<'_>, new: Known<'_>) -> Self {
        let (was, is) = (old.section, new.section);
        let mut touched = Self::default();
        touched.endpoints.extend(keyed_diff(&was.local, &is.local).map(|change| key(&change)));
        touched.endpoints.extend(keyed_diff(&was.remote, &is.remote).map(|change| key(&change)));
        let nodes = nodes(old.knowledge, new.knowledge);
        if !nodes.is_empty() {
            let of = is.remote.iter().filter(|(_, remote)| nodes.contains(&remote.node));
            touched.endpoints.extend(of.map(|(id, _)| *id));
        }
        let services: BTreeSet<ServiceId> =
            keyed_diff(&was.services, &is.services).map(|change| key(&change)).collect();
        if !services.is_empty() {
            touched.services = true;
            touched.vips = vips(was) != vips(is);
            let serves = |service: Option<ServiceId>| service.is_some_and(|service| services.contains(&service));
            let local = is.local.iter().filter(|(_, local)| serves(local.endpoint.spec.service)).map(|(id, _)| *id);
            let remote = is.remote.iter().filter(|(_, remote)| serves(remote.service)).map(|(id, _)| *id);
            touched.endpoints.extend(local.chain(remote));
        }
        touched
    }
}

/// Nodes that are otherwise, new or gone.
fn nodes(old: &Knowledge, new: &Knowledge) -> BTreeSet<NodeId> {
    if Arc::ptr_eq(&old.nodes, &new.nodes) {
        return BTreeSet::new();
    }
    keyed_diff(&old.nodes, &new.nodes).map(|change| key(&change)).collect()
}

const fn key<K: Copy, V>(change: &Change<'_, K, V>) -> K {
    match change {
        Change::Add(key, _) | Change::Replace(key, ..) | Change::Remove(key, _) => **key,
    }
}
