use overlay_core::testing::{Dice, seeded_faults};
use overlay_core::{BackendError, ErrorKind, Flaky, IfName, Mtu, Vni};
use overlay_firewall::Strangers;
use overlay_vxlan::{Segment, Vtep};
use proptest::prelude::*;

use super::*;
use overlay_link::{Route, Routes};

use crate::{MemoryPlace, MemoryPlaces, PlaceTables, Places, RoundRun};

/// Memory whose tables, and which itself, fail now and then.
struct Moody {
    inner: MemoryPlaces,
    dice: Dice,
    rate: usize,
}

impl Moody {
    fn fails(&mut self, doing: &'static str) -> Result<(), BackendError> {
        match self.rate > 0 && self.dice.one_in(self.rate) {
            true => Err(BackendError::new(ErrorKind::Timeout, doing)),
            false => Ok(()),
        }
    }
}

impl Places for Moody {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        self.fails("open")?;
        let MemoryPlace { crypto, link, vxlan, firewall, lb, routes } = self.inner.make(place);
        if self.rate == 0 {
            return self.inner.open(place);
        }
        let mut faults = || seeded_faults(Dice::new(self.dice.seed()), self.rate);
        Ok(PlaceTables {
            crypto: Box::new(Flaky::new(crypto, faults())),
            link: Box::new(Flaky::new(link, faults())),
            vxlan: Box::new(Flaky::new(vxlan, faults())),
            firewall: Box::new(Flaky::new(firewall, faults())),
            lb: Box::new(Flaky::new(lb, faults())),
            routes: Box::new(Flaky::new(routes, faults())),
        })
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.fails("close")?;
        self.inner.close(place)
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        self.inner.list()
    }
}

fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

/// What a node should hold for some containers on some networks.
fn desired(containers: &BTreeMap<u8, BTreeSet<u8>>) -> Arc<Desired> {
    let guarded = overlay_firewall::State { strangers: Strangers::Drop, ..Default::default() };
    let sandbox = |number: &u8| {
        let segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450).unwrap());
        let vxlan = overlay_vxlan::State { segments: [(Vni::new(u32::from(*number) + 1).unwrap(), segment)].into() };
        (Place::Network(network(*number)), PlaceState { vxlan, firewall: guarded.clone(), ..PlaceState::default() })
    };
    let container = |(number, networks): (&u8, &BTreeSet<u8>)| {
        let route = |network: &u8| {
            let route = Route { interface: IfName::new(&format!("eth{network}")).unwrap(), via: None };
            (format!("10.0.{network}.0/24").parse().unwrap(), route)
        };
        let state = PlaceState {
            routes: Routes { to: networks.iter().map(route).collect(), ..Routes::default() },
            within: networks.iter().copied().map(network).collect(),
            ..PlaceState::default()
        };
        (Place::Container(format!("c{number}").parse().unwrap()), state)
    };
    let host = (Place::Host, PlaceState { firewall: guarded.clone(), ..PlaceState::default() });
    let networks: BTreeSet<&u8> = containers.values().flatten().collect();
    let places = networks.into_iter().map(sandbox).chain(containers.iter().map(container)).chain([host]);
    Arc::new(Desired { places: places.map(|(place, state)| (place, Arc::new(state))).collect() })
}

/// Whether memory holds exactly this.
fn holds(places: &MemoryPlaces, desired: &Desired) -> bool {
    let places = places.places();
    places.iter().map(|(place, _)| place).eq(desired.places.keys())
        && places.iter().zip(desired.places.values()).all(|((_, held), state)| {
            held.vxlan.state() == state.vxlan
                && held.firewall.state() == state.firewall
                && held.routes.state() == state.routes
        })
}

/// Whether every container that has routes is in sandboxes that are guarded, on a host that is.
fn is_guarded(places: &MemoryPlaces, known: &[Arc<Desired>]) -> bool {
    let guarded =
        |place: &Place| places.place(place).is_some_and(|it| it.firewall.state().strangers == Strangers::Drop);
    places.places().iter().filter(|(_, held)| !held.routes.state().to.is_empty()).all(|(place, held)| {
        let open: BTreeSet<IfName> = held.routes.state().to.values().map(|route| route.interface).collect();
        let networks = known.iter().filter_map(|desired| desired.places.get(place)).flat_map(|state| &state.within);
        let named = |id: &&NetworkId| open.contains(&IfName::new(&format!("eth{}", id.to_bytes()[0])).unwrap());
        guarded(&Place::Host) && networks.filter(named).all(|id| guarded(&Place::Network(*id)))
    })
}

fn rounds(upkeep: &mut Upkeep, places: &mut Moody, now: Instant, mut each: impl FnMut(&MemoryPlaces)) {
    let Some(round) = upkeep.begin(now) else { return };
    let mut run = RoundRun::new(round, places);
    let mut dice = places.dice.clone();
    while run.step(places, |ready| dice.below(ready)).is_some() {
        each(&places.inner);
    }
    places.dice = dice;
    let (round, schedule) = run.into_parts();
    upkeep.end(round, &schedule, now);
}

fn wanted() -> impl Strategy<Value = Vec<BTreeMap<u8, BTreeSet<u8>>>> {
    let containers = proptest::collection::btree_map(0..4_u8, proptest::collection::btree_set(0..3_u8, 1..3), 0..4);
    proptest::collection::vec(containers, 1..5)
}

proptest! {
    #[test]
    fn whatever_fails_all_that_is_desired_is_there_in_the_end_and_nothing_else_and_nothing_was_ever_open_unguarded(
        wanted in wanted(), seed: [u8; 32], restart in 0..6_usize,
    ) {
        let (mut now, inner) = (Instant::ZERO, MemoryPlaces::default());
        let mut places = Moody { inner: inner.clone(), dice: Dice::new(seed), rate: 4 };
        let mut upkeep = Upkeep::new(UpkeepConfig::default(), [], now);
        let all: Vec<_> = wanted.iter().map(desired).collect();
        for (at, desired) in all.iter().enumerate() {
            if at == restart {
                upkeep = Upkeep::new(UpkeepConfig::default(), places.list().unwrap(), now);
            }
            upkeep.desire(Arc::clone(desired), now);
            for _ in 0..3 {
                rounds(&mut upkeep, &mut places, now, |places| assert!(is_guarded(places, &all)));
                now += Duration::from_millis(150);
            }
        }
        places.rate = 0;
        let (last, calm) = (all.last().unwrap(), now);
        while upkeep.lacking().count() > 0 {
            now = upkeep.poll_timeout().unwrap().max(now);
            rounds(&mut upkeep, &mut places, now, |places| assert!(is_guarded(places, &all)));
            prop_assert!(now < calm + Duration::from_secs(20), "{upkeep:?}");
        }
        prop_assert!(holds(&inner, last), "{:?}\n{:?}", inner.places(), upkeep);
    }
}

#[test]
fn a_place_that_fails_rests_longer_each_time_and_is_tried_at_once_when_something_else_is_desired() {
    let one = |networks: &[u8]| desired(&[(1, networks.iter().copied().collect())].into());
    let mut places = Moody { inner: MemoryPlaces::default(), dice: Dice::new([1; 32]), rate: 1 };
    let mut now = Instant::ZERO;
    let mut upkeep = Upkeep::new(UpkeepConfig::default(), [], now);
    upkeep.desire(one(&[1]), now);
    let mut rests = Vec::new();
    for _ in 0..10 {
        rounds(&mut upkeep, &mut places, now, |_| {});
        let due = upkeep.poll_timeout().unwrap();
        rests.push((due - now).as_millis());
        now = due;
    }
    assert_eq!(rests[..4], [100, 200, 400, 800]);
    assert_eq!(rests[9], 10_000);
    rounds(&mut upkeep, &mut places, now, |_| {});
    upkeep.desire(one(&[2]), now);
    assert_eq!(upkeep.poll_timeout(), Some(now));
}

#[test]
fn drift_is_found_when_the_time_to_look_for_it_comes() {
    let mut places = Moody { inner: MemoryPlaces::default(), dice: Dice::new([1; 32]), rate: 0 };
    let mut upkeep = Upkeep::new(UpkeepConfig::default(), [], Instant::ZERO);
    let desired = desired(&[(1, [1].into())].into());
    upkeep.desire(Arc::clone(&desired), Instant::ZERO);
    rounds(&mut upkeep, &mut places, Instant::ZERO, |_| {});
    assert!(holds(&places.inner, &desired));
    places.inner.place(&Place::Host).unwrap().firewall.update(|state| *state = Default::default());
    let due = upkeep.poll_timeout().unwrap();
    assert_eq!(due, Instant::ZERO + Duration::from_secs(60));
    rounds(&mut upkeep, &mut places, due, |_| {});
    assert!(holds(&places.inner, &desired));
}
