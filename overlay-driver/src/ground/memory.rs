//! Places in this process's memory.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay_core::{BackendError, IfName, Meter, Name, NsId, NsKey};
use overlay_dns::Listen;
use overlay_kernel::Namespace;
use overlay_kernel::netlink::Notices;
use overlay_node::{Flows, MemoryPlaces, Place, PlaceTables, Places};

use super::{FlowMeter, Ground};
use crate::Source;

/// Places in memory, for tests and for embedders that carry frames themselves. Namespaces are taken to be where it is said
/// they are, and are not looked at; resolvers have no sockets.
#[derive(Debug, Clone, Default)]
pub struct MemoryGround(pub MemoryPlaces);

impl Places for MemoryGround {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        self.0.open(place)
    }

    fn protects(&self) -> Result<(), String> {
        self.0.protects()
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.0.close(place)
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        self.0.list()
    }
}

impl Ground for MemoryGround {
    fn host(&self) -> Option<Arc<Namespace>> {
        None
    }

    fn enter(&mut self, container: &Name, source: &Source) -> Result<Option<NsKey>, BackendError> {
        let inode = |source: &Source| {
            let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
            source.hash(&mut hash);
            hash.finish()
        };
        let key = |source| NsKey { name: container.clone(), id: NsId { device: 0, inode: inode(source) } };
        Ok((*source != Source::Tap).then(|| key(source)))
    }

    fn leave(&mut self, _: &Name) {}

    fn is_there(&self, _: &Source, _: &NsKey) -> bool {
        true
    }

    fn interfaces(&mut self, _: &Name) -> Result<BTreeSet<IfName>, BackendError> {
        Ok(BTreeSet::new())
    }

    /// Nobody has any.
    fn flows(&mut self, _: &Name, _: BTreeSet<IpAddr>) -> Result<Option<FlowMeter>, BackendError> {
        Ok(Some(Box::new(Nobody)))
    }

    fn listen(&mut self, _: &Place, _: &[SocketAddr]) -> Result<Listen, BackendError> {
        Ok(Listen::default())
    }

    fn hints(&mut self, _: &Place) -> Result<Vec<Notices>, BackendError> {
        Ok(Vec::new())
    }
}

/// Has no flows.
struct Nobody;

impl Meter for Nobody {
    type Reading = Flows;

    fn read(&mut self) -> Result<Flows, BackendError> {
        Ok(Flows::default())
    }
}

/// FNV-1a: the same in every process.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
