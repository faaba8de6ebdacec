//! A container whose kernel may not be able to lead what is asked at port 53 to its resolver.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlay_core::{Applied, ErrorKind, Memory, Phase, Plan, ReconcileError, Table};
use overlay_firewall::{Bind, State};
use overlay_node::{Place, RESOLVER};

/// The places whose resolvers listen at port 53 themselves, as nothing leads there. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Direct(Arc<Mutex<BTreeSet<Place>>>);

impl Direct {
    pub(crate) fn is(&self, place: &Place) -> bool {
        self.lock().contains(place)
    }

    fn set(&self, place: &Place, direct: bool) {
        let mut places = self.lock();
        match direct {
            true => drop(places.insert(place.clone())),
            false => drop(places.remove(place)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container's firewall that need not be carried out where its kernel has no nf_tables, as long as it is but the way to the resolver: the
/// resolver then listens where that way begins. Until the place is opened anew, it is not asked again whether it has them.
pub(crate) struct Led {
    firewall: Box<dyn Table<State>>,
    place: Place,
    direct: Direct,
    /// Whether what is desired can be done without.
    dispensable: bool,
    lacks: bool,
}

impl Led {
    pub(crate) const fn new(firewall: Box<dyn Table<State>>, place: Place, direct: Direct) -> Self {
        Self { firewall, place, direct, dispensable: false, lacks: false }
    }

    fn go_without(&mut self) {
        self.lacks = true;
        self.direct.set(&self.place, true);
    }
}

impl Table<State> for Led {
    fn plan(&mut self, desired: &State) -> Result<Plan, ReconcileError> {
        self.dispensable = leads_to_the_resolver_only(desired);
        if !(self.lacks && self.dispensable) {
            match self.firewall.plan(desired) {
                // Netfilter without nf_tables calls every question of theirs invalid.
                Err(ReconcileError::Observe(error))
                    if self.dispensable && matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {}
                planned => {
                    self.lacks = false;
                    self.direct.set(&self.place, false);
                    return planned;
                }
            }
        }
        self.go_without();
        Memory::<State>::default().plan(&State::default())
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        if self.lacks {
            return Ok(());
        }
        match self.firewall.run(plan, phase) {
            Err(ReconcileError::Apply { error, .. })
                if self.dispensable
                    && error.applied == Applied::Nothing
                    && error.source.kind() == ErrorKind::Unsupported =>
            {
                self.go_without();
                Ok(())
            }
            ran => ran,
        }
    }
}

fn leads_to_the_resolver_only(state: &State) -> bool {
    let rest = State { published: Default::default(), ..state.clone() };
    rest == State::default()
        && state.published.values().all(|published| published.bind == Bind::Address(RESOLVER.into()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use overlay_core::{BackendError, Port, Protocol, StepError};
    use overlay_firewall::{Published, Strangers};

    use super::*;

    /// Refuses to be read, or to be changed, like this.
    struct Refuses {
        reading: Option<ErrorKind>,
        changing: Option<ErrorKind>,
        held: Memory<State>,
    }

    impl Table<State> for Refuses {
        fn plan(&mut self, desired: &State) -> Result<Plan, ReconcileError> {
            match self.reading {
                Some(kind) => Err(ReconcileError::Observe(BackendError::new(kind, "read tables"))),
                None => self.held.plan(desired),
            }
        }

        fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
            match self.changing {
                Some(kind) => {
                    let source = BackendError::new(kind, "change tables");
                    let error = StepError { at: 0, applied: Applied::Nothing, source };
                    Err(ReconcileError::Apply { phase, step: String::new(), error })
                }
                None => self.held.run(plan, phase),
            }
        }
    }

    fn place() -> Place {
        Place::Container("web".parse().unwrap())
    }

    fn led(reading: Option<ErrorKind>, changing: Option<ErrorKind>) -> (Led, Direct, Memory<State>) {
        let (direct, held) = (Direct::default(), Memory::default());
        let firewall = Box::new(Refuses { reading, changing, held: held.clone() });
        (Led::new(firewall, place(), direct.clone()), direct, held)
    }

    fn way() -> State {
        let mut state = State::default();
        let to: SocketAddr = "127.0.0.11:10053".parse().unwrap();
        let published = Published::new(Protocol::Udp, Port::DNS).at(Bind::Address(RESOLVER.into())).to(to);
        state.published.insert("resolver".parse().unwrap(), published);
        state
    }

    fn reconcile(led: &mut Led, desired: &State) -> Result<(), ReconcileError> {
        let plan = led.plan(desired)?;
        Phase::ALL.into_iter().try_for_each(|phase| led.run(&plan, phase))
    }

    #[test]
    fn a_kernel_that_lacks_tables_is_done_without_and_one_that_has_them_is_not() {
        let lacks = [
            (Some(ErrorKind::Unsupported), None),
            (Some(ErrorKind::Invalid), None),
            (None, Some(ErrorKind::Unsupported)),
        ];
        for (reading, changing) in lacks {
            let (mut led, direct, _) = led(reading, changing);
            reconcile(&mut led, &way()).unwrap();
            assert!(direct.is(&place()), "{reading:?} {changing:?}");
            assert!(led.plan(&way()).unwrap().is_empty(), "it is held");
        }
        let (mut led, direct, held) = led(None, None);
        reconcile(&mut led, &way()).unwrap();
        assert!(!direct.is(&place()) && held.state() == way());
    }

    #[test]
    fn another_failure_is_one_and_more_than_a_way_to_the_resolver_is_not_done_without() {
        for (reading, changing) in [(Some(ErrorKind::Permission), None), (None, Some(ErrorKind::Interrupted))] {
            let (mut led, direct, _) = led(reading, changing);
            reconcile(&mut led, &way()).unwrap_err();
            assert!(!direct.is(&place()));
        }
        let more = State { strangers: Strangers::Drop, ..way() };
        let (mut led, direct, _) = led(Some(ErrorKind::Unsupported), None);
        reconcile(&mut led, &way()).unwrap();
        reconcile(&mut led, &more).unwrap_err();
        assert!(!direct.is(&place()), "it is asked for again");
    }
}
