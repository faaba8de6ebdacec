//! What works between a namespace of the node's and those of containers.

use std::collections::BTreeSet;
use std::sync::Arc;

use overlay_core::{BackendError, ErrorKind, NsKey, Phase, Plan, ReconcileError, Shadow, State, Table, Witness};
use overlay_kernel::Namespace;
use overlay_link::LocalNetworks;
use overlay_vxlan::{PortEnd, Sandbox};

use super::kernel::Containers;

/// A backend that works in containers' namespaces as well.
pub(super) trait Reach: Witness {
    /// What it holds.
    type Value: State;

    /// The containers' namespaces that a value names.
    fn named(value: &Self::Value) -> BTreeSet<NsKey>;
    fn reach(&mut self, key: NsKey, container: Namespace) -> Result<(), BackendError>;
    fn leave(&mut self, key: &NsKey);
}

impl Reach for Sandbox {
    type Value = overlay_vxlan::State;

    fn named(value: &overlay_vxlan::State) -> BTreeSet<NsKey> {
        let ports = value.segments.values().flat_map(|segment| segment.ports.values());
        let namespaces = ports.filter_map(|port| match &port.end {
            PortEnd::Namespace { namespace, .. } => Some(namespace.clone()),
            PortEnd::Tap { .. } => None,
        });
        namespaces.collect()
    }

    fn reach(&mut self, key: NsKey, container: Namespace) -> Result<(), BackendError> {
        self.reach(key, container)
    }

    fn leave(&mut self, key: &NsKey) {
        self.leave(key);
    }
}

impl Reach for LocalNetworks {
    type Value = overlay_link::State;

    fn named(value: &overlay_link::State) -> BTreeSet<NsKey> {
        let ports =
            value.bridges.values().flat_map(|bridge| bridge.ports.values()).filter_map(|port| port.inside.as_ref());
        let macvlans = value.macvlans.values().map(|macvlan| &macvlan.inside);
        ports.chain(macvlans).map(|inside| inside.namespace.clone()).collect()
    }

    fn reach(&mut self, key: NsKey, container: Namespace) -> Result<(), BackendError> {
        self.reach(key, container)
    }

    fn leave(&mut self, key: &NsKey) {
        self.leave(key);
    }
}

/// A backend that works in the namespaces of the containers that its state names, and in no others.
pub(super) struct Reaching<B: Reach> {
    backend: Shadow<B>,
    containers: Arc<Containers>,
    reached: BTreeSet<NsKey>,
    /// Of those, the ones that the last plan needs no more once it has run.
    leaving: BTreeSet<NsKey>,
}

impl<B: Reach> Reaching<B> {
    pub(super) fn new(backend: B, containers: Arc<Containers>) -> Self {
        let (reached, leaving) = Default::default();
        Self { backend: Shadow::new(backend), containers, reached, leaving }
    }

    /// The same where an earlier life has left something in containers that no value may name: it works in all that there are, until it has
    /// planned for the first time.
    pub(super) fn anywhere(mut self) -> Result<Self, BackendError> {
        for key in self.containers.all() {
            let Some(namespace) = self.containers.namespace(&key) else { continue };
            self.backend.inner_mut().reach(key.clone(), namespace.try_clone()?)?;
            self.reached.insert(key);
        }
        Ok(self)
    }

    fn reach(&mut self, desired: &B::Value) -> Result<(), BackendError> {
        let mut wanted = B::named(desired);
        wanted.retain(|key| !self.containers.is_hosts(key));
        for key in wanted.difference(&self.reached.clone()) {
            // What was reached by this name before is another namespace: its container began anew.
            let stale: Vec<NsKey> = self.reached.iter().filter(|old| old.name == key.name).cloned().collect();
            for old in stale {
                self.backend.inner_mut().leave(&old);
                self.reached.remove(&old);
            }
            let namespace = self.containers.namespace(key).ok_or_else(|| {
                BackendError::new(ErrorKind::Gone, format!("reach container {}", key.name)).caused_by("it has ended")
            })?;
            self.backend.inner_mut().reach(key.clone(), namespace.try_clone()?)?;
            self.reached.insert(key.clone());
        }
        self.leaving = self.reached.difference(&wanted).cloned().collect();
        Ok(())
    }
}

impl<B> Table<B::Value> for Reaching<B>
where
    B: Reach,
    Shadow<B>: Table<B::Value>,
{
    fn plan(&mut self, desired: &B::Value) -> Result<Plan, ReconcileError> {
        self.reach(desired).map_err(ReconcileError::Observe)?;
        self.backend.plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        self.backend.run(plan, phase)?;
        if phase == Phase::Dismantle {
            for key in std::mem::take(&mut self.leaving) {
                self.backend.inner_mut().leave(&key);
                self.reached.remove(&key);
            }
        }
        Ok(())
    }
}
