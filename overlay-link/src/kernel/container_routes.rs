//! The kernel as the holder of a container's routes.

use std::borrow::Cow;

use overlay_core::{Backend, BackendError, Lower, Refusal, State as _, StepError, StepOf, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::link::{KernelWays, MarkedWay, Way, Ways};

use crate::{Marked, Route, Routes};

/// Holds the routes of one container, in its namespace; the container's own are left alone.
///
/// It needs what [`KernelWays`] does.
#[derive(Debug)]
pub struct ContainerRoutes(KernelWays);

impl ContainerRoutes {
    /// Works in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if it may not be entered.
    pub fn open(container: Namespace) -> Result<Self, BackendError> {
        KernelWays::open(container).map(Self)
    }
}

impl Lower<Routes> for ContainerRoutes {
    type Native = Ways;

    fn lower<'d>(&self, desired: &'d Routes) -> Result<Cow<'d, Ways>, Refusal> {
        desired.check()?;
        let way = |route: &Route| Way { device: route.interface, gateway: route.via };
        let marked = |route: &Marked| MarkedWay { device: route.interface, v4: route.v4, v6: route.v6 };
        Ok(Cow::Owned(Ways {
            to: desired.to.iter().map(|(to, route)| (*to, way(route))).collect(),
            from: desired.from.iter().map(|(from, route)| (*from, way(route))).collect(),
            marked: desired.marked.iter().map(|(mark, route)| (*mark, marked(route))).collect(),
            ..Ways::default()
        }))
    }
}

impl Backend for ContainerRoutes {
    type State = Ways;

    fn observe(&mut self) -> Result<Ways, BackendError> {
        self.0.observe()
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        self.0.apply(steps)
    }
}

impl Witness for ContainerRoutes {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.0.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.0.undisturbed()
    }
}
