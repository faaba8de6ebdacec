//! Places in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlay_core::{BackendError, Memory};
use overlay_link::Routes;

use crate::{Place, PlaceTables, Places};

/// Places whose tables are values in memory.
///
/// A clone sees the same places, as a second process sees those of a machine: what one life of a node left, the next
/// finds.
///
/// ```
/// use overlay_node::{MemoryPlaces, Place, Places};
///
/// let machine = MemoryPlaces::default();
/// let mut first = machine.clone();
/// first.open(&Place::Host)?;
/// drop(first); // the process dies
/// assert_eq!(machine.clone().list()?, [Place::Host]);
/// # Ok::<(), overlay_core::BackendError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryPlaces {
    places: Arc<Mutex<BTreeMap<Place, MemoryPlace>>>,
}

/// The tables of one place, to look at and to meddle with.
#[derive(Debug, Clone, Default)]
pub struct MemoryPlace {
    /// Which tunnels are protected.
    pub crypto: Memory<overlay_crypto::State>,
    /// Local networks.
    pub link: Memory<overlay_link::State>,
    /// Segments.
    pub vxlan: Memory<overlay_vxlan::State>,
    /// What is allowed and forbidden.
    pub firewall: Memory<overlay_firewall::State>,
    /// Virtual services.
    pub lb: Memory<overlay_lb::State>,
    /// Ways to other networks.
    pub routes: Memory<Routes>,
}

impl MemoryPlaces {
    /// A place's tables; `None` where nothing was opened.
    pub fn place(&self, place: &Place) -> Option<MemoryPlace> {
        self.lock().get(place).cloned()
    }

    /// All that there are, in their order.
    pub fn places(&self) -> Vec<(Place, MemoryPlace)> {
        self.lock().iter().map(|(place, tables)| (place.clone(), tables.clone())).collect()
    }

    /// A place's tables, which are made empty if they are not there.
    pub fn make(&self, place: &Place) -> MemoryPlace {
        self.lock().entry(place.clone()).or_default().clone()
    }

    /// All that there was is gone: the machine was switched off.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, MemoryPlace>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places for MemoryPlaces {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        let MemoryPlace { crypto, link, vxlan, firewall, lb, routes } = self.make(place);
        Ok(PlaceTables {
            crypto: Box::new(crypto),
            link: Box::new(link),
            vxlan: Box::new(vxlan),
            firewall: Box::new(firewall),
            lb: Box::new(lb),
            routes: Box::new(routes),
        })
    }

    fn protects(&self) -> Result<(), String> {
        Ok(())
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.lock().remove(place);
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        Ok(self.lock().keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::reconcile;

    use super::*;

    #[test]
    fn tables_of_a_place_that_is_opened_twice_hold_one_state() {
        let mut places = MemoryPlaces::default();
        let mut first = places.open(&Place::Host).unwrap();
        let guarded = overlay_firewall::State { strangers: overlay_firewall::Strangers::Drop, ..Default::default() };
        reconcile(&mut first.firewall, &guarded).unwrap();
        let mut second = places.open(&Place::Host).unwrap();
        assert!(second.firewall.plan(&guarded).unwrap().is_empty());
        assert!(places.place(&Place::Host).unwrap().firewall.state() == guarded);
    }

    #[test]
    fn a_place_that_was_closed_is_empty_when_it_is_opened_again() {
        let mut places = MemoryPlaces::default();
        let place = Place::Container("web".parse().unwrap());
        let mut tables = places.open(&place).unwrap();
        let guarded = overlay_firewall::State { strangers: overlay_firewall::Strangers::Drop, ..Default::default() };
        reconcile(&mut tables.firewall, &guarded).unwrap();
        places.close(&place).unwrap();
        assert_eq!(places.list().unwrap(), []);
        assert!(places.make(&place).firewall.state() == overlay_firewall::State::default());
    }
}
