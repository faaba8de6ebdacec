//! Places that fail now and then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlay_core::testing::{Dice, seeded_faults};
use overlay_core::{BackendError, Call, ErrorKind, Fault, Flaky};
use overlay_node::{MemoryPlace, MemoryPlaces, Place, PlaceTables, Places};

use crate::plane::Published;

/// A node's places in memory, of whose calls one in `rate` fails: refused, stopped half-way, or done with the answer lost.
#[derive(Debug, Clone)]
pub(crate) struct FaultyPlaces {
    pub(crate) held: MemoryPlaces,
    faults: Arc<Mutex<Faults>>,
    /// Whether it can protect tunnels.
    esp: bool,
    publication: Arc<Mutex<Publication>>,
}

/// What the node's data plane is to carry by.
#[derive(Debug, Default)]
struct Publication {
    /// Whether there is one.
    wanted: bool,
    new: Option<Published>,
}

#[derive(Debug)]
struct Faults {
    dice: Dice,
    rate: usize,
    injected: u64,
}

impl FaultyPlaces {
    pub(crate) fn new(dice: Dice, esp: bool) -> Self {
        let faults = Faults { dice, rate: 0, injected: 0 };
        Self { held: MemoryPlaces::default(), faults: Arc::new(Mutex::new(faults)), esp, publication: Arc::default() }
    }

    /// From now on what is held is published when a round is over; what is held now is at once.
    pub(crate) fn begin_to_publish(&self) {
        self.lock().wanted = true;
        self.publish();
    }

    /// Lets the node's data plane have what is held.
    pub(crate) fn publish(&self) {
        if self.lock().wanted {
            let published = Published::of(&self.held);
            self.lock().new = Some(published);
        }
    }

    /// What was published since the last call.
    pub(crate) fn published(&self) -> Option<Published> {
        self.lock().new.take()
    }

    fn lock(&self) -> MutexGuard<'_, Publication> {
        self.publication.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call in so many fails from now on; none for 0.
    pub(crate) fn fail_one_in(&self, rate: usize) {
        self.with(|faults| faults.rate = rate);
    }

    /// How many calls were made to fail.
    pub(crate) fn injected(&self) -> u64 {
        self.with(|faults| faults.injected)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Faults) -> T) -> T {
        f(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn may(&self, doing: &'static str) -> Result<(), BackendError> {
        self.with(|faults| {
            if faults.rate == 0 || !faults.dice.one_in(faults.rate) {
                return Ok(());
            }
            faults.injected += 1;
            Err(BackendError::new(ErrorKind::Timeout, doing).caused_by("a fault was injected"))
        })
    }

    /// Chooses faults for a table, as often as the rate at that moment says.
    fn choose(&self) -> impl FnMut(Call) -> Option<Fault> + Send + 'static {
        let faults = Arc::clone(&self.faults);
        move |call| {
            let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
            if faults.rate == 0 {
                return None;
            }
            let (seed, rate) = (faults.dice.seed(), faults.rate);
            let fault = seeded_faults(Dice::new(seed), rate)(call);
            faults.injected += u64::from(fault.is_some());
            fault
        }
    }
}

impl Places for FaultyPlaces {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        self.may("open place")?;
        let MemoryPlace { crypto, link, vxlan, firewall, lb, routes } = self.held.make(place);
        Ok(PlaceTables {
            crypto: Box::new(Flaky::new(crypto, self.choose())),
            link: Box::new(Flaky::new(link, self.choose())),
            vxlan: Box::new(Flaky::new(vxlan, self.choose())),
            firewall: Box::new(Flaky::new(firewall, self.choose())),
            lb: Box::new(Flaky::new(lb, self.choose())),
            routes: Box::new(Flaky::new(routes, self.choose())),
        })
    }

    fn protects(&self) -> Result<(), String> {
        self.esp.then_some(()).ok_or_else(|| "its kernel has no ESP".to_owned())
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.may("close place")?;
        self.held.close(place)
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        self.held.list()
    }
}
