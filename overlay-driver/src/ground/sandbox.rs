//! A network's sandbox, and the containers that it reaches into.

use std::collections::BTreeSet;
use std::sync::Arc;

use overlay_core::{BackendError, ErrorKind, NsKey, Phase, Plan, ReconcileError, Shadow, Table};
use overlay_vxlan::{PortEnd, Sandbox, State};

use super::kernel::Containers;

/// A [`Sandbox`] that works in the namespaces of the containers that its state names, and in no others.
pub(super) struct Reaching {
    sandbox: Shadow<Sandbox>,
    containers: Arc<Containers>,
    reached: BTreeSet<NsKey>,
    /// Of those, the ones that the last plan needs no more once it has run.
    leaving: BTreeSet<NsKey>,
}

impl Reaching {
    pub(super) fn new(sandbox: Sandbox, containers: Arc<Containers>) -> Self {
        let (reached, leaving) = Default::default();
        Self { sandbox: Shadow::new(sandbox), containers, reached, leaving }
    }

    fn reach(&mut self, desired: &State) -> Result<(), BackendError> {
        let wanted: BTreeSet<NsKey> = named(desired).cloned().collect();
        for key in wanted.difference(&self.reached.clone()) {
            // What was reached by this name before is another namespace: its container began anew.
            let stale: Vec<NsKey> = self.reached.iter().filter(|old| old.name == key.name).cloned().collect();
            for old in stale {
                self.sandbox.inner_mut().leave(&old);
                self.reached.remove(&old);
            }
            let namespace = self.containers.namespace(key).ok_or_else(|| {
                BackendError::new(ErrorKind::Gone, format!("reach container {}", key.name)).caused_by("it has ended")
            })?;
            self.sandbox.inner_mut().reach(key.clone(), namespace.try_clone()?)?;
            self.reached.insert(key.clone());
        }
        self.leaving = self.reached.difference(&wanted).cloned().collect();
        Ok(())
    }
}

fn named(state: &State) -> impl Iterator<Item = &NsKey> {
    let ports = state.segments.values().flat_map(|segment| segment.ports.values());
    ports.filter_map(|port| match &port.end {
        PortEnd::Namespace { namespace, .. } => Some(namespace),
        PortEnd::Tap { .. } => None,
    })
}

impl Table<State> for Reaching {
    fn plan(&mut self, desired: &State) -> Result<Plan, ReconcileError> {
        self.reach(desired).map_err(ReconcileError::Observe)?;
        self.sandbox.plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        self.sandbox.run(plan, phase)?;
        if phase == Phase::Dismantle {
            for key in std::mem::take(&mut self.leaving) {
                self.sandbox.inner_mut().leave(&key);
                self.reached.remove(&key);
            }
        }
        Ok(())
    }
}
