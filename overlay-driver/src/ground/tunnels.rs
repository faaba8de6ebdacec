//! What protects the tunnels of encrypted networks: the host's ESP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use overlay_core::{
    Backend as _, BackendError, ErrorKind, IpFamily, Owner, Phase, Plan, ReconcileError, Shadow, Table, told,
};
use overlay_crypto::kernel::{Lack, Xfrm};
use overlay_crypto::{Cipher, SaId, State, Usage};
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

    /// One was lost.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Associations and policies, which tell when one needs another key.
struct Tunnels<T> {
    held: T,
    spent: Spent,
}

/// What protects the tunnels of this host: nothing, where the kernel has no XFRM.
///
/// # Errors
/// If the namespace may not be entered, or without the capability.
pub(super) fn open(owner: &Owner, host: Namespace, spent: Spent) -> Result<Box<dyn Table<State>>, BackendError> {
    match Xfrm::open(owner, host) {
        Ok(xfrm) => Ok(Box::new(Tunnels { held: Shadow::new(xfrm), spent })),
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

/// What was sealed and opened by each association.
///
/// # Errors
/// If they cannot be read.
pub(super) fn usage(owner: &Owner, host: Namespace) -> Result<BTreeMap<SaId, Usage>, BackendError> {
    match Xfrm::open(owner, host).and_then(|mut xfrm| xfrm.usage()) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(BTreeMap::new()),
        read => read,
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

impl<T: Table<State>> Table<State> for Tunnels<T> {
    fn plan(&mut self, desired: &State) -> Result<Plan, ReconcileError> {
        self.held.plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        let done = self.held.run(plan, phase);
        // Associations come in phase Build, and nothing else does: a policy of others' in the way is mended by no key.
        if let Err(ReconcileError::Apply { error, phase: Phase::Build, .. }) = &done
            && error.source.kind() == ErrorKind::Conflict
        {
            self.spent.set();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{Applied, Memory, Port, StepError};
    use overlay_crypto::{Direction, Epoch, Epochs, Numbers, Sa, SaKey, Spi, WindowSize};

    use super::*;

    /// Refuses a phase so.
    struct Refusing(Memory<State>, Phase, ErrorKind);

    impl Table<State> for Refusing {
        fn plan(&mut self, desired: &State) -> Result<Plan, ReconcileError> {
            self.0.plan(desired)
        }

        fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
            if phase != self.1 {
                return Table::run(&mut self.0, plan, phase);
            }
            let error = StepError { at: 0, applied: Applied::Nothing, source: BackendError::new(self.2, "put an SA") };
            Err(ReconcileError::Apply { phase, error, step: String::new() })
        }
    }

    fn protected() -> State {
        let (port, peer) = (Port::VXLAN_ENCRYPTED, [192, 0, 2, 2].into());
        let id = SaId { destination: [192, 0, 2, 1].into(), spi: Spi::MIN };
        let epochs = Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST };
        let key = SaKey::new(Cipher::Aes256Gcm, &[7; 36]).unwrap();
        let (numbers, window) = (Numbers::Extended, WindowSize::default());
        let sa =
            Sa { direction: Direction::In, source: peer, port, numbers, window, limits: None, udp: None, epochs, key };
        State { ports: [port].into(), sas: [(id, sa)].into(), tunnels: BTreeMap::new() }
    }

    #[test]
    fn other_keys_are_asked_for_where_an_association_is_in_conflict_with_what_was_there_and_for_nothing_else() {
        for (phase, kind, needs) in [
            (Phase::Build, ErrorKind::Conflict, true),
            (Phase::Build, ErrorKind::Limit, false),
            (Phase::Guard, ErrorKind::Conflict, false),
        ] {
            let spent = Spent::default();
            let mut tunnels = Tunnels { held: Refusing(Memory::default(), phase, kind), spent: spent.clone() };
            let plan = tunnels.plan(&protected()).unwrap();
            let failed = Phase::ALL.into_iter().filter(|phase| tunnels.run(&plan, *phase).is_err()).count();
            assert_eq!((failed, spent.take(), spent.take()), (1, needs, false), "{phase} {kind:?}");
        }
    }
}
