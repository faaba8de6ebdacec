//! The shape proven: two states of different kinds pass all laws through every backend and middleware.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ruleset;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use overlay_core::testing::{Dice, LampStep, Lamps, laws, seeded_faults};
use overlay_core::{
    Amended, Applied, Backend, BackendError, Call, Fault, Flaky, Lower, Memo, Memory, Owner, Phase, ReconcileError,
    Refusal, Shadow, State, StepError, Table, Traced, Witness, reconcile,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use ruleset::{Kernel, Policy, Ruleset, Step, Tables};

fn lamps() -> impl Strategy<Value = Lamps> {
    btree_map("[a-d]{1,2}", 0_u8..3, 0..6).prop_map(Lamps)
}

fn policy() -> impl Strategy<Value = Policy> {
    btree_map("[a-c]", btree_set(1_u16..9, 0..8), 0..4).prop_map(Policy)
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let sets = btree_map("[a-c]", btree_set(1_u16..9, 0..6), 0..4);
    sets.prop_flat_map(|sets| {
        let names: Vec<_> = sets.keys().cloned().collect();
        let rules = match names.is_empty() {
            true => Just(Vec::new()).boxed(),
            false => vec(prop::sample::select(names), 0..5).boxed(),
        };
        rules.prop_map(move |rules| Ruleset { rules, sets: sets.clone() })
    })
}

/// A world of any state in memory, reached through middleware of the test's choice.
struct InMemory<S, T> {
    memory: Memory<S>,
    open: fn(Memory<S>) -> T,
    damage: fn(&mut S, &mut Dice),
}

impl<S: State, T> laws::World<S> for InMemory<S, T>
where
    T: Lower<S, Native = S> + Backend<State = S>,
{
    type Native = S;
    type Table = T;
    type Foreign = ();

    fn open(&mut self) -> T {
        (self.open)(self.memory.clone())
    }

    fn foreign(&mut self) {}

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let before = self.memory.state();
        self.memory.update(|state| (self.damage)(state, dice));
        self.memory.state() != before
    }
}

fn damage_lamps(lamps: &mut Lamps, dice: &mut Dice) {
    let room = lamps.0.keys().nth(dice.below(lamps.0.len())).cloned();
    match room.filter(|_| dice.one_in(2)) {
        Some(room) => drop(lamps.0.remove(&room)),
        None => drop(lamps.0.insert("cellar".into(), 9)),
    }
}

fn damage_ruleset(ruleset: &mut Ruleset, dice: &mut Dice) {
    match dice.below(3) {
        0 => *ruleset = Ruleset::default(), // flush
        1 => ruleset.rules.reverse(),
        _ => ruleset.sets.values_mut().for_each(BTreeSet::clear),
    }
}

/// A kernel with somebody else's ruleset beside ours.
struct Shared<T> {
    tables: Arc<Mutex<Tables>>,
    open: fn(Kernel) -> T,
}

impl<T> Shared<T> {
    fn new(open: fn(Kernel) -> T) -> Self {
        let theirs = Ruleset { rules: vec!["a".into()], sets: BTreeMap::from([("a".into(), [1].into())]) };
        let tables = Tables { rulesets: BTreeMap::from([(owner("theirs"), theirs)]), generation: 0, room: None };
        Self { tables: Arc::new(Mutex::new(tables)), open }
    }
}

fn table_of(tables: &Arc<Mutex<Tables>>) -> Kernel {
    Kernel::new(Arc::clone(tables), owner("ours"))
}

fn owner(instance: &str) -> Owner {
    Owner::new("cluster".parse().unwrap(), instance.parse().unwrap())
}

impl<T> laws::World<Policy> for Shared<T>
where
    T: Lower<Policy, Native = Ruleset> + Backend<State = Ruleset>,
{
    type Native = Ruleset;
    type Table = T;
    type Foreign = BTreeMap<Owner, Ruleset>;

    fn open(&mut self) -> T {
        (self.open)(table_of(&self.tables))
    }

    fn foreign(&mut self) -> Self::Foreign {
        let mut rulesets = self.tables.lock().unwrap().rulesets.clone();
        rulesets.remove(&owner("ours"));
        rulesets
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut tables = self.tables.lock().unwrap();
        tables.generation += 1;
        let Some(mut ours) = tables.rulesets.remove(&owner("ours")) else { return false };
        let before = ours.clone();
        damage_ruleset(&mut ours, dice);
        let damaged = ours != before;
        if ours != Ruleset::default() {
            tables.rulesets.insert(owner("ours"), ours);
        }
        damaged
    }

    fn obstruct(&mut self, _: &[Step], dice: &mut Dice) -> bool {
        self.tables.lock().unwrap().room = Some(dice.below(4));
        true
    }

    fn clear(&mut self) {
        self.tables.lock().unwrap().room = None;
    }
}

proptest! {
    #[test]
    fn lamps_keep_the_laws_of_a_state(from in lamps(), to in lamps()) {
        laws::state(&from, &to)?;
    }

    #[test]
    fn rulesets_keep_the_laws_of_a_state(from in ruleset(), to in ruleset()) {
        laws::state(&from, &to)?;
    }

    #[test]
    fn memory_keeps_the_laws_of_a_backend(desired in vec(lamps(), 1..5), seed in any::<[u8; 32]>()) {
        let mut world = InMemory { memory: Memory::default(), open: |memory| memory, damage: damage_lamps };
        laws::backend(&mut world, &desired, seed)?;
    }

    #[test]
    fn rulesets_in_memory_keep_the_laws_of_a_backend(desired in vec(ruleset(), 1..5), seed in any::<[u8; 32]>()) {
        let mut world = InMemory { memory: Memory::default(), open: |memory| memory, damage: damage_ruleset };
        laws::backend(&mut world, &desired, seed)?;
        let mut world = InMemory { memory: Memory::default(), open: Shadow::new, damage: damage_ruleset };
        laws::backend(&mut world, &desired, seed)?;
    }

    #[test]
    fn a_shadow_keeps_the_laws_of_a_backend(desired in vec(lamps(), 1..5), seed in any::<[u8; 32]>()) {
        let mut world = InMemory { memory: Memory::default(), open: Shadow::new, damage: damage_lamps };
        laws::backend(&mut world, &desired, seed)?;
    }

    #[test]
    fn one_transaction_keeps_the_laws_of_a_backend(desired in vec(policy(), 1..5), seed in any::<[u8; 32]>()) {
        laws::backend(&mut Shared::new(|kernel| kernel), &desired, seed)?;
    }

    #[test]
    fn a_shadow_of_one_transaction_keeps_the_laws(desired in vec(policy(), 1..5), seed in any::<[u8; 32]>()) {
        laws::backend(&mut Shared::new(Shadow::new), &desired, seed)?;
    }

    #[test]
    fn tables_that_fail_at_random_get_there(desired in vec(policy(), 1..5), seed in any::<[u8; 32]>()) {
        let tables = Arc::default();
        let kernel = Flaky::new(table_of(&tables), seeded_faults(Dice::new(seed), 3));
        let mut table: Box<dyn Table<Policy>> = Box::new(Shadow::new(kernel));
        for policy in desired.iter().filter(|policy| policy.0.values().all(|ports| ports.len() <= ruleset::MOST_PORTS)) {
            let mut tries = 0;
            while reconcile(&mut *table, policy).is_err() {
                tries += 1;
                prop_assert!(tries < 1000);
            }
            let held = tables.lock().unwrap().rulesets.get(&owner("ours")).cloned().unwrap_or_default();
            prop_assert_eq!(held, table_of(&tables).lower(policy).unwrap().into_owned());
        }
    }
}

#[test]
fn the_laws_are_put_to_the_test() {
    let desired: Vec<_> = (1..100).map(|n| Policy(BTreeMap::from([("a".into(), (1..n % 9).collect())]))).collect();
    let seen = laws::backend(&mut Shared::new(Shadow::new), &desired, [7; 32]).unwrap();
    assert!(seen.reached > 20 && seen.refused > 3 && seen.steps > 20, "{seen:?}");
    assert!(seen.obstructions > 10, "{seen:?}");
    assert!(seen.faults > 20 && seen.kills > 10 && seen.repairs > 20, "{seen:?}");
}

#[test]
fn a_plan_runs_phase_by_phase_and_a_failed_phase_stops_the_later_ones() {
    let memory = Memory::new(Lamps::from([("attic", 1)]));
    let mut applied = 0;
    let mut table = Flaky::new(memory.clone(), |call| match call {
        Call::Apply { .. } => {
            applied += 1;
            (applied == 1).then_some(Fault::Stop { after: 1 })
        }
        Call::Read => None,
    });
    let error = reconcile(&mut table, &Lamps::from([("cellar", 3), ("hall", 2)])).unwrap_err();
    assert_eq!(error.applied(), Applied::Before);
    assert_eq!(error.to_string(), "build failed: set hall to 2 %");
    assert_eq!(memory.state(), Lamps::from([("attic", 1), ("cellar", 3)]));
}

#[test]
fn a_borrowed_backend_can_be_wrapped_and_a_boxed_table_reconciled() {
    let mut memory = Memory::<Lamps>::default();
    let lit = Lamps::from([("hall", 80)]);
    let mut calls = 0;
    let mut boxed: Box<dyn Table<Lamps> + '_> = Box::new(Traced::new(Shadow::new(&mut memory), |_| calls += 1));
    assert_eq!(reconcile(&mut boxed, &lit).unwrap().len(), 1);
    drop(boxed);
    assert_eq!((calls, memory.state()), (2, lit));
}

#[test]
fn a_table_refuses_the_plan_of_another_kind() {
    let plan = Memory::<Lamps>::default().plan(&Lamps::default()).unwrap();
    let refused = Memory::<Ruleset>::default().run(&plan, Phase::Build);
    assert!(matches!(refused, Err(ReconcileError::ForeignPlan)));
}

#[test]
fn a_shadow_reads_once_and_again_only_when_somebody_else_wrote() {
    let memory = Memory::<Lamps>::default();
    let reads = Arc::new(Mutex::new(0));
    let count = Arc::clone(&reads);
    let told = Traced::new(memory.clone(), move |call| {
        *count.lock().unwrap() += usize::from(matches!(call, overlay_core::Trace::Observed(_)));
    });
    let mut table = Shadow::new(told);
    for brightness in 1..5 {
        reconcile(&mut table, &Lamps::from([("hall", brightness)])).unwrap();
    }
    assert_eq!(*reads.lock().unwrap(), 1);
    memory.update(|lamps| lamps.0.clear());
    assert_eq!(reconcile(&mut table, &Lamps::from([("hall", 4)])).unwrap().len(), 1);
    assert_eq!(*reads.lock().unwrap(), 2);
}

#[test]
fn a_shadow_lowers_whole_only_what_it_cannot_amend() {
    /// Counts how often a value is lowered whole.
    struct Counted(Kernel, Arc<Mutex<usize>>);

    impl Backend for Counted {
        type State = Ruleset;

        fn observe(&mut self) -> Result<Ruleset, BackendError> {
            self.0.observe()
        }

        fn apply(&mut self, steps: &[Step]) -> Result<(), StepError> {
            self.0.apply(steps)
        }
    }

    impl Witness for Counted {
        fn watch(&mut self) -> Result<(), BackendError> {
            self.0.watch()
        }

        fn undisturbed(&mut self) -> Result<bool, BackendError> {
            self.0.undisturbed()
        }
    }

    impl Lower<Policy> for Counted {
        type Native = Ruleset;

        fn lower<'d>(&self, desired: &'d Policy) -> Result<Cow<'d, Ruleset>, Refusal> {
            *self.1.lock().unwrap() += 1;
            self.0.lower(desired)
        }

        fn remember(&self, desired: &Policy) -> Option<Memo> {
            self.0.remember(desired)
        }

        fn amend(&self, memo: &Memo, native: &Ruleset, desired: &Policy) -> Option<Amended<Step>> {
            self.0.amend(memo, native, desired)
        }
    }

    let (tables, lowered) = (Arc::default(), Arc::new(Mutex::new(0)));
    let owner = |name: &str| Owner::new("laws".parse().unwrap(), name.parse().unwrap());
    let kernel = |name| Kernel::new(Arc::clone(&tables), owner(name));
    let mut table = Shadow::new(Counted(kernel("a"), Arc::clone(&lowered)));
    let policy = |groups: &[(&str, std::ops::Range<u16>)]| {
        Policy(groups.iter().map(|(name, ports)| ((*name).to_owned(), ports.clone().collect())).collect())
    };
    let visit = |table: &mut Shadow<Counted>, wanted: &Policy| {
        let result = reconcile(table, wanted).map(|plan| plan.len());
        let holds = kernel("a").observe().unwrap() == *kernel("a").lower(wanted).unwrap();
        (result.ok(), holds, std::mem::take(&mut *lowered.lock().unwrap()))
    };
    assert_eq!(visit(&mut table, &policy(&[("web", 1..3)])), (Some(4), true, 1), "nothing is remembered yet");
    assert_eq!(visit(&mut table, &policy(&[("web", 2..5)])), (Some(3), true, 0));
    assert_eq!(visit(&mut table, &policy(&[("web", 2..5)])), (Some(0), true, 0));
    assert_eq!(visit(&mut table, &policy(&[("db", 2..5)])), (Some(6), true, 1), "other rules");
    assert_eq!(visit(&mut table, &policy(&[("db", 2..4)])), (Some(1), true, 0));
    kernel("b").apply(&[Step::CreateSet("x".into())]).unwrap(); // somebody else: the witness doubts
    assert_eq!(visit(&mut table, &policy(&[("db", 2..5)])), (Some(1), true, 1));
    let plan = table.plan(&policy(&[("db", 2..6)])).unwrap();
    assert_eq!(table.plan(&policy(&[("db", 1..2)])).unwrap().len(), 4, "another plan, and it is the first that runs");
    Phase::ALL.into_iter().for_each(|phase| Table::<Policy>::run(&mut table, &plan, phase).unwrap());
    *lowered.lock().unwrap() = 0;
    assert_eq!(visit(&mut table, &policy(&[("db", 2..7)])), (Some(1), true, 1));
    tables.lock().unwrap().room = Some(1); // a plan that fails on the way
    assert!(reconcile(&mut table, &policy(&[("db", 3..8)])).is_err());
    tables.lock().unwrap().room = None;
    *lowered.lock().unwrap() = 0;
    assert_eq!(visit(&mut table, &policy(&[("db", 3..7)])), (Some(1), true, 1));
}

#[test]
fn a_state_that_breaks_a_law_is_found_out() {
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Forgetful(Lamps);

    impl State for Forgetful {
        type Step = <Lamps as State>::Step;

        fn plan(&self, desired: &Self) -> Vec<Self::Step> {
            self.0.plan(&desired.0).into_iter().skip(1).collect()
        }

        fn apply(&mut self, step: &Self::Step) {
            self.0.apply(step);
        }

        fn phase(step: &Self::Step) -> Phase {
            Lamps::phase(step)
        }
    }

    let broken = laws::state(&Forgetful::default(), &Forgetful(Lamps::from([("hall", 1)]))).unwrap_err();
    assert_eq!(broken.law, "a plan is empty exactly if nothing differs");
}

/// A backend of lamps with one vice.
struct Liar {
    lamps: Memory<Lamps>,
    vice: Vice,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Vice {
    /// Forgets the last step of every batch and does not say so.
    Forgets,
    /// Fails at a step whose effect is there already.
    InsistsOnNews,
    /// Swears that nobody else changed anything.
    Perjures,
    /// Takes a lamp away that is not ours.
    Steals,
    /// Forgets a step where it amends a plan.
    AmendsHalf,
}

impl Backend for Liar {
    type State = Lamps;

    fn observe(&mut self) -> Result<Lamps, BackendError> {
        let mut lamps = self.lamps.observe()?;
        lamps.0.remove(THEIRS);
        Ok(lamps)
    }

    fn apply(&mut self, steps: &[LampStep]) -> Result<(), StepError> {
        let before = self.lamps.state();
        match self.vice {
            Vice::Forgets => self.lamps.apply(&steps[..steps.len() - 1])?,
            _ => self.lamps.apply(steps)?,
        }
        if self.vice == Vice::InsistsOnNews && self.lamps.state() == before {
            let source = BackendError::new(overlay_core::ErrorKind::Conflict, "set a lamp");
            return Err(StepError { at: 0, applied: Applied::Nothing, source });
        }
        if self.vice == Vice::Steals {
            self.lamps.update(|lamps| lamps.0.retain(|room, _| room != THEIRS));
        }
        Ok(())
    }
}

impl Witness for Liar {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.lamps.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        Ok(self.vice == Vice::Perjures || self.lamps.undisturbed()?)
    }
}

impl Lower<Lamps> for Liar {
    type Native = Lamps;

    fn lower<'d>(&self, desired: &'d Lamps) -> Result<Cow<'d, Lamps>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }

    fn remember(&self, _: &Lamps) -> Option<Memo> {
        (self.vice == Vice::AmendsHalf).then(|| Memo::new(()))
    }

    fn amend(&self, _: &Memo, native: &Lamps, desired: &Lamps) -> Option<Amended<LampStep>> {
        Some(Amended { steps: native.plan(desired).into_iter().skip(1).collect(), memo: Memo::new(()) })
    }
}

const THEIRS: &str = "neighbour";

/// A house with a neighbour's lamp in it.
struct House(Memory<Lamps>, Vice);

impl laws::World<Lamps> for House {
    type Native = Lamps;
    type Table = Shadow<Liar>;
    type Foreign = Option<u8>;

    fn open(&mut self) -> Shadow<Liar> {
        Shadow::new(Liar { lamps: self.0.clone(), vice: self.1 })
    }

    fn foreign(&mut self) -> Option<u8> {
        self.0.state().0.get(THEIRS).copied()
    }

    fn meddle(&mut self, _: &mut Dice) -> bool {
        self.0.update(|lamps| lamps.0.retain(|room, _| room == THEIRS));
        true
    }
}

#[test]
fn a_backend_with_a_vice_is_found_out_by_the_law_against_it() {
    for (vice, laws) in [
        (Vice::Forgets, &["a failed apply says truly what is in effect", "what is observed is what was lowered"][..]),
        (Vice::InsistsOnNews, &["a step whose effect is there already counts as done"]),
        (Vice::Perjures, &["what is observed is what was lowered"]),
        (Vice::Steals, &["what is not ours stays as it was"]),
        (Vice::AmendsHalf, &["what is observed is what was lowered"]),
    ] {
        for seed in 0..8 {
            let mut house = House(Memory::new(Lamps::from([(THEIRS, 3)])), vice);
            let desired = [Lamps::from([("hall", 1), ("attic", 2)]), Lamps::from([("attic", 1)])];
            let broken = laws::backend(&mut house, &desired, [seed; 32]).unwrap_err();
            assert!(laws.contains(&broken.law), "{vice:?}, seed {seed}: {broken}");
        }
    }
}

#[test]
fn a_backend_that_boasts_of_what_it_did_before_it_failed_is_found_out() {
    /// Does nothing where it fails, and says that it did all but the last step.
    struct Boaster(Kernel);

    impl Backend for Boaster {
        type State = Ruleset;

        fn observe(&mut self) -> Result<Ruleset, BackendError> {
            self.0.observe()
        }

        fn apply(&mut self, steps: &[Step]) -> Result<(), StepError> {
            let boast = |error| StepError { at: steps.len() - 1, applied: Applied::Before, ..error };
            self.0.apply(steps).map_err(boast)
        }
    }

    impl Lower<Policy> for Boaster {
        type Native = Ruleset;

        fn lower<'d>(&self, desired: &'d Policy) -> Result<Cow<'d, Ruleset>, Refusal> {
            self.0.lower(desired)
        }
    }

    let desired = [Policy(BTreeMap::from([("a".into(), (1..6).collect())]))];
    let broken = (0..16).filter_map(|seed| laws::backend(&mut Shared::new(Boaster), &desired, [seed; 32]).err());
    let laws: Vec<_> = broken.map(|broken| broken.law).collect();
    assert!(laws.len() > 4 && laws.iter().all(|law| *law == "a failed apply says truly what is in effect"), "{laws:?}");
}
