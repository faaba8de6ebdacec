//! What protects the tunnels of encrypted networks: the host's ESP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use overlay_core::{
    Backend as _, BackendError, ErrorKind, IpFamily, Owner, Phase, Plan, ReconcileError, Shadow, Table, told,
};
use overlay_crypto::kernel::{Lack, Xfrm};
use overlay_crypto::{Cipher, State};
use overlay_kernel::Namespace;

use super::nothing::Nothing;

/// Whether an association was lost whose key was put to work: what it protected needs others. Heard once.
#[derive(Debug, Clone, Default)]
pub(super) struct Spent(Arc<AtomicBool>);

impl Spent {
    /// Whether there was one since this was asked last.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Associations and policies, which tell when one needs another key.
struct Tunnels {
    xfrm: Shadow<Xfrm>,
    spent: Spent,
}

/// What protects the tunnels of this host: nothing, where the kernel has no XFRM.
///
/// # Errors
/// If the namespace may not be entered, or without the capability.
pub(super) fn open(owner: &Owner, host: Namespace, spent: Spent) -> Result<Box<dyn Table<State>>, BackendError> {
    match Xfrm::open(owner, host) {
        Ok(xfrm) => Ok(Box::new(Tunnels { xfrm: Shadow::new(xfrm), spent })),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Box::new(Nothing::because(NO_XFRM))),
        Err(error) => Err(error),
    }
}

/// Whether the host's kernel has what protects tunnels; what is missing, if not.
pub(super) fn are_protected(owner: &Owner, host: Namespace) -> Result<(), String> {
    let xfrm = Xfrm::open(owner, host).map_err(|error| told(&error))?;
    // Of both families: else one peer at an address of the other would have the whole host's place refused.
    let wanted = [Lack::Over(IpFamily::V4), Lack::Over(IpFamily::V6), Lack::Cipher(Cipher::default())];
    match wanted.into_iter().find(|lack| xfrm.esp().lacks.contains(lack)) {
        Some(missing) => Err(format!("{missing}: {}", missing.remedy())),
        None => Ok(()),
    }
}

/// Whether the host has associations, policies or guards of ours.
///
/// # Errors
/// If they cannot be read.
pub(super) fn are_left(owner: &Owner, host: Namespace) -> Result<bool, BackendError> {
    match Xfrm::open(owner, host).and_then(|mut xfrm| xfrm.observe()) {
        Ok(held) => Ok(held != overlay_kernel::xfrm::State::default()),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

const NO_XFRM: &str = "this kernel has no XFRM, which protects tunnels";

impl Table<State> for Tunnels {
    fn plan(&mut self, desired: &State) -> Result<Plan, ReconcileError> {
        self.xfrm.plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        let done = Table::<State>::run(&mut self.xfrm, plan, phase);
        // Associations come in phase Build, and nothing else does: a policy of others' in the way is mended by no key.
        if let Err(ReconcileError::Apply { error, phase: Phase::Build, .. }) = &done
            && error.source.kind() == ErrorKind::Conflict
        {
            self.spent.0.store(true, Ordering::Relaxed);
        }
        done
    }
}
