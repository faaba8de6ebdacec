//! Where state lives.

use std::fmt;

use overlay_core::{BackendError, Name, NetworkId, Table};
use overlay_link::Routes;

mod acting;
mod memory;
mod plan;
mod round;
mod schedule;
mod upkeep;

pub use acting::Acting;
pub use memory::{MemoryPlace, MemoryPlaces};
pub use plan::PlacePlan;
pub use round::{Ran, RoundRun};
pub use schedule::{Job, Progress, Schedule, Work};
pub use upkeep::{Round, Upkeep, UpkeepConfig};

/// Where state lives on a node. What is smaller is around what is greater: the host around the sandboxes, those around
/// containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The node itself.
    Host,
    /// This network's sandbox: made for the first endpoint on the node, gone after the last.
    Network(NetworkId),
    /// This container, with all its endpoints.
    Container(Name),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Network(network) => write!(f, "network {}", network.short()),
            Self::Container(container) => write!(f, "container {container}"),
        }
    }
}

/// Opens places: the one switch between memory, kernel and user space.
pub trait Places {
    /// The tables of `place`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made or entered.
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError>;

    /// Whether the host's place can protect tunnels by ESP: then its table of them holds what is desired. If not, encrypted networks carry
    /// nothing on the node.
    ///
    /// # Errors
    /// What is missing, in words.
    fn protects(&self) -> Result<(), String> {
        Err("its places protect no tunnels".to_owned())
    }

    /// A place that should hold nothing any more, and does: it may go.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn close(&mut self, place: &Place) -> Result<(), BackendError>;

    /// The places there are, of ours: what an earlier life of this node left is among them.
    ///
    /// # Errors
    /// If it cannot be found out.
    fn list(&mut self) -> Result<Vec<Place>, BackendError>;
}

/// What holds a place's state: a table for each value of [`PlaceState`](crate::PlaceState).
pub struct PlaceTables {
    /// Which tunnels are protected.
    pub crypto: Box<dyn Table<overlay_crypto::State>>,
    /// Local networks.
    pub link: Box<dyn Table<overlay_link::State>>,
    /// Segments.
    pub vxlan: Box<dyn Table<overlay_vxlan::State>>,
    /// What is allowed and forbidden.
    pub firewall: Box<dyn Table<overlay_firewall::State>>,
    /// Virtual services.
    pub lb: Box<dyn Table<overlay_lb::State>>,
    /// Ways to other networks.
    pub routes: Box<dyn Table<Routes>>,
}

impl fmt::Debug for PlaceTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaceTables").finish_non_exhaustive()
    }
}
