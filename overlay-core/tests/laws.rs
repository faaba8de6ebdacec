//! The shape proven: two states of different kinds pass all laws through every backend and middleware.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ruleset;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use overlay_core::testing::{Dice, Lamps, laws, seeded_faults};
use overlay_core::{
    Applied, Backend, Call, Fault, Flaky, Memory, Owner, Phase, ReconcileError, Shadow, State, Table, Traced, reconcile,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use ruleset::{Kernel, Policy, Ruleset, Tables};

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
    T: overlay_core::Lower<S, Native = S> + Backend<State = S>,
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

/// A kernel with somebody else's ruleset beside ours.
struct Shared<T> {
    tables: Arc<Mutex<Tables>>,
    open: fn(Kernel) -> T,
}

impl<T> Shared<T> {
    fn new(open: fn(Kernel) -> T) -> Self {
        let theirs = Ruleset { rules: vec!["a".into()], sets: BTreeMap::from([("a".into(), [1].into())]) };
        let tables = Tables { rulesets: BTreeMap::from([(owner("theirs"), theirs)]), generation: 0 };
        Self { tables: Arc::new(Mutex::new(tables)), open }
    }
}

fn owner(instance: &str) -> Owner {
    Owner::new("cluster".parse().unwrap(), instance.parse().unwrap())
}

impl<T> laws::World<Policy> for Shared<T>
where
    T: overlay_core::Lower<Policy, Native = Ruleset> + Backend<State = Ruleset>,
{
    type Native = Ruleset;
    type Table = T;
    type Foreign = BTreeMap<Owner, Ruleset>;

    fn open(&mut self) -> T {
        (self.open)(Kernel::new(Arc::clone(&self.tables), owner("ours")))
    }

    fn foreign(&mut self) -> Self::Foreign {
        let mut rulesets = self.tables.lock().unwrap().rulesets.clone();
        rulesets.remove(&owner("ours"));
        rulesets
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut tables = self.tables.lock().unwrap();
        tables.generation += 1;
        let Some(ours) = tables.rulesets.get_mut(&owner("ours")) else { return false };
        match dice.below(3) {
            0 => drop(tables.rulesets.remove(&owner("ours"))), // flush
            1 => ours.rules.reverse(),
            _ => ours.sets.values_mut().for_each(BTreeSet::clear),
        }
        true
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
        let kernel = Flaky::new(Kernel::new(Arc::clone(&tables), owner("ours")), seeded_faults(Dice::new(seed), 3));
        let mut table: Box<dyn Table<Policy>> = Box::new(Shadow::new(kernel));
        for policy in desired.iter().filter(|policy| policy.0.values().all(|ports| ports.len() <= ruleset::MOST_PORTS)) {
            let mut tries = 0;
            while reconcile(&mut *table, policy).is_err() {
                tries += 1;
                prop_assert!(tries < 1000);
            }
            prop_assert_eq!(tables.lock().unwrap().rulesets.get(&owner("ours")).cloned().unwrap_or_default().sets, policy.0.clone());
        }
    }
}

#[test]
fn the_laws_are_put_to_the_test() {
    let desired: Vec<_> = (1..40).map(|n| Policy(BTreeMap::from([("a".into(), (1..n % 9).collect())]))).collect();
    let seen = laws::backend(&mut Shared::new(Shadow::new), &desired, [7; 32]).unwrap();
    assert!(seen.reached > 20 && seen.refused > 3 && seen.steps > 20, "{seen:?}");
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
    assert_eq!(error.to_string(), "build: set hall to 2 %");
    assert_eq!(memory.state(), Lamps::from([("attic", 1), ("cellar", 3)]));
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

#[test]
fn a_backend_that_misremembers_is_found_out() {
    /// Forgets, but does not say so, every change of brightness.
    struct Liar(Memory<Lamps>);

    impl Backend for Liar {
        type State = Lamps;

        fn observe(&mut self) -> Result<Lamps, overlay_core::BackendError> {
            self.0.observe()
        }

        fn apply(&mut self, steps: &[<Lamps as State>::Step]) -> Result<(), overlay_core::StepError> {
            self.0.apply(&steps[..steps.len() - 1])
        }
    }

    impl overlay_core::Lower<Lamps> for Liar {
        type Native = Lamps;

        fn lower<'d>(&self, desired: &'d Lamps) -> Result<Cow<'d, Lamps>, overlay_core::Refusal> {
            Ok(Cow::Borrowed(desired))
        }
    }

    let mut world = InMemory { memory: Memory::default(), open: Liar, damage: damage_lamps };
    assert!(laws::backend(&mut world, &[Lamps::from([("hall", 1), ("attic", 2)])], [1; 32]).is_err());
}
