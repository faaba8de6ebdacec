//! What a driver stands on.

mod balancing;
mod beside;
mod flows;
mod kernel;
mod led;
mod macvlans;
mod memory;
mod met;
mod nothing;
mod plane;
mod published;
mod reaching;
mod seldom;
mod services;
mod tunnels;
mod userspace;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay_core::{BackendError, IfName, Meter, Name, NsKey};
use overlay_crypto::{SaId, Usage};
use overlay_dns::Listen;
use overlay_kernel::Namespace;
use overlay_kernel::netlink::Notices;
use overlay_node::{Break, Flows, Place, PlaceState, Places};

pub use kernel::KernelPlaces;
pub(crate) use led::{Direct, Led};
pub use memory::MemoryGround;
pub use published::Hindrances;
pub use userspace::UserspacePlaces;

use crate::Source;
use crate::packets::CarrierCounts;

/// Reads the flows that come to an endpoint.
pub type FlowMeter = Box<dyn Meter<Reading = Flows> + Send>;

/// Places, and what a driver needs besides to serve the containers in them: the one switch between memory and kernel.
///
/// A clone is the same ground. Calls may block; a driver makes them on its pool.
pub trait Ground: Places + Clone + Send + Sync + 'static {
    /// The namespace that plays the host, in which the node's own sockets are; the process's own if `None`.
    fn host(&self) -> Option<Arc<Namespace>>;

    /// A container is there: finds its namespace, and keeps hold of it until it is [left](Self::leave). `None` for a
    /// [`Tap`](Source::Tap).
    ///
    /// # Errors
    /// If nothing is there, or it may not be entered.
    fn enter(&mut self, container: &Name, source: &Source) -> Result<Option<NsKey>, BackendError>;

    /// Nothing of a container is plugged in any more, and its place is closed. Does not block.
    fn leave(&mut self, container: &Name);

    /// Whether it is still there.
    fn is_there(&self, source: &Source, key: &NsKey) -> bool;

    /// The names that interfaces have where a container is.
    ///
    /// # Errors
    /// If it cannot be looked at.
    fn interfaces(&mut self, container: &Name) -> Result<BTreeSet<IfName>, BackendError>;

    /// What balances the services of a place, and why not what would come before it, in words. `None` where nothing does, or it is not open yet.
    fn balancer(&self, _place: &Place) -> Option<String> {
        None
    }

    /// Whether an association of the host's was found lost, whose key is spent, since this was asked last: then all get others.
    fn needs_keys(&self) -> bool {
        false
    }

    /// What a carrier has done since it began, where this process carries the packets.
    fn carried(&self) -> Option<CarrierCounts> {
        None
    }

    /// What was sealed or opened so far by each of the host's associations. Nothing, where there are none.
    ///
    /// # Errors
    /// If they cannot be read.
    fn usage(&mut self) -> Result<BTreeMap<SaId, Usage>, BackendError> {
        Ok(BTreeMap::new())
    }

    /// What reads the flows that come to these addresses of a container; `None` if that cannot be seen, as of what is not in a namespace.
    ///
    /// # Errors
    /// If it cannot be looked at.
    fn flows(&mut self, _container: &Name, _at: BTreeSet<IpAddr>) -> Result<Option<FlowMeter>, BackendError> {
        Ok(None)
    }

    /// Sockets for the resolver of a place, at these addresses there.
    ///
    /// # Errors
    /// If somebody else has one of them there, or the place is not there.
    fn listen(&mut self, place: &Place, at: &[SocketAddr]) -> Result<Listen, BackendError>;

    /// What of the host is in the way of what `state` has it forward or receive, its other programs' rules and its switches, and what would
    /// mend it. Nothing, where nobody else is.
    ///
    /// # Errors
    /// If it cannot be looked at.
    fn obstacles(&mut self, _state: &PlaceState) -> Result<Vec<Break>, BackendError> {
        Ok(Vec::new())
    }

    /// What else of the host is at the ports that `state` publishes, or keeps clients from them. Nothing, where nobody else is.
    ///
    /// # Errors
    /// If it cannot be looked at.
    fn hindrances(&mut self, _state: &PlaceState) -> Result<Hindrances, BackendError> {
        Ok(Hindrances::default())
    }

    /// Sockets that become readable when something at the place was changed, whoever did it. None if there is nobody who could.
    ///
    /// # Errors
    /// If they cannot be had.
    fn hints(&mut self, place: &Place) -> Result<Vec<Notices>, BackendError>;
}
