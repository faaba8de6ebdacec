//! Objects as the store keeps them: JSON that an operator can read.

use std::fmt;

use bytes::Bytes;
use ipnet::IpNet;
use overlay_core::{EndpointId, Entry, Key, NetworkId, NodeId, ServiceId};
use overlay_ipam::{Lease, LeaseOwner, Use};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use crate::{Condition, Encryption, Endpoint, Kind, Network, Node, Service};

/// An object of the catalogue with what only its keepers need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held<T> {
    pub(crate) object: T,
    /// Tells this object from every other that had or will have its id: the commit that wrote it first. Whatever is leased for it
    /// is leased to an owner with this number in its name, so that a claim that comes late is nobody's, not a later object's.
    pub(crate) claim: u64,
    /// Its addresses' leases, once it is allocated.
    pub(crate) leases: Vec<Kept>,
}

/// A lease of an address, less its owner, who is the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    network: NetworkId,
    address: IpNet,
    purpose: Use,
    generation: u64,
}

impl From<Lease> for Kept {
    fn from(lease: Lease) -> Self {
        let Lease { network, owner: _, address, purpose, generation } = lease;
        Self { network, address, purpose, generation }
    }
}

impl Kept {
    pub(crate) fn lease(&self, owner: LeaseOwner) -> Lease {
        let Self { network, address, purpose, generation } = *self;
        Lease { network, owner, address, purpose, generation }
    }
}

/// What the catalogue keeps.
pub(crate) trait Object: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync {
    /// As keys and messages have it.
    const WHAT: &'static str;
    type Id: Copy + Ord + fmt::Display + Send + Sync;
    fn id(&self) -> Self::Id;
    fn key(&self, keys: &Keys) -> Key;
    fn condition(&self) -> &Condition;
    fn set_condition(&mut self, condition: Condition);
    /// Whether it has all it needs of the cluster.
    fn is_allocated(&self) -> bool;
}

macro_rules! object {
    ($object:ident, $id:ident, $what:literal, $key:expr, $allocated:expr) => {
        impl Object for $object {
            const WHAT: &'static str = $what;
            type Id = $id;

            fn id(&self) -> $id {
                self.id
            }

            fn key(&self, keys: &Keys) -> Key {
                let key: fn(&Self, &Keys) -> Key = $key;
                key(self, keys)
            }

            fn condition(&self) -> &Condition {
                &self.condition
            }

            fn set_condition(&mut self, condition: Condition) {
                self.condition = condition;
            }

            fn is_allocated(&self) -> bool {
                let allocated: fn(&Self) -> bool = $allocated;
                allocated(self)
            }
        }
    };
}

object!(Network, NetworkId, "network", |network, keys| keys.network(network.id), |network| match network.spec.kind {
    Kind::Overlay => network.vni.is_some() && (network.port.is_some() || network.spec.encryption != Encryption::Own),
    Kind::Bridge | Kind::Macvlan { .. } => !network.subnets.is_empty(),
    Kind::Host | Kind::None => matches!(network.condition, Condition::Allocated | Condition::Ready),
});
object!(Service, ServiceId, "service", |service, keys| keys.service(service.id), |service| {
    !matches!(service.condition, Condition::Accepted | Condition::Failed { .. })
});
object!(
    Endpoint,
    EndpointId,
    "endpoint",
    |endpoint, keys| keys.endpoint(endpoint.spec.network, endpoint.id),
    |endpoint| !endpoint.addresses.is_empty()
);
object!(Node, NodeId, "node", |node, keys| keys.node(node.id), |_| true);

/// What is written. A reader refuses formats it does not know; a later one may add fields that an earlier may ignore.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<u64>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    leases: Vec<Kept>,
    object: T,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

const FORMAT: u32 = 1;

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) key: Key,
    pub(crate) flaw: String,
}

/// An object that is written for the first time: the commit that does it becomes its [`claim`](Held::claim).
pub(crate) fn encode_new<T: Object>(object: &T) -> Bytes {
    encode(&Envelope { format: FORMAT, claim: None, leases: Vec::new(), object })
}

impl<T: Object> Held<T> {
    pub(crate) fn encode(&self) -> Bytes {
        let Self { object, claim, leases } = self;
        encode(&Envelope { format: FORMAT, claim: Some(*claim), leases: leases.clone(), object })
    }

    pub(crate) fn decode(keys: &Keys, key: &Key, entry: &Entry) -> Result<Self, Flaw> {
        let flaw = |flaw: String| Flaw { key: key.clone(), flaw };
        let held = Self::parse(entry).map_err(flaw)?;
        match held.object.key(keys) == *key {
            true => Ok(held),
            false => Err(flaw(format!("it is the {} {}, whose place is elsewhere", T::WHAT, held.object.id()))),
        }
    }

    fn parse(entry: &Entry) -> Result<Self, String> {
        match serde_json::from_slice::<Envelope<T>>(&entry.value) {
            Ok(Envelope { format: FORMAT, claim, leases, object }) => {
                Ok(Self { object, claim: claim.unwrap_or(entry.revision.0), leases })
            }
            other => Err(flaw(&entry.value, other.err())),
        }
    }

    /// Who leases are for: the object, this time.
    pub(crate) fn owner(&self) -> LeaseOwner {
        owner(format!("{}/{}/{}", T::WHAT, self.object.id(), self.claim))
    }

    /// Whether something has still to be claimed for it.
    pub(crate) fn is_pending(&self) -> bool {
        !self.object.is_allocated() && *self.object.condition() != Condition::Removing
    }

    pub(crate) fn is_removing(&self) -> bool {
        *self.object.condition() == Condition::Removing
    }

    /// The same, as far as that.
    pub(crate) fn with(mut self, condition: Condition) -> Self {
        self.object.set_condition(condition);
        self
    }
}

/// Why bytes are no record that is known: of what another format has, nothing is said but that.
fn flaw(value: &[u8], error: Option<serde_json::Error>) -> String {
    match (serde_json::from_slice(value), error) {
        (Ok(Format { format: FORMAT }), Some(error)) | (Err(error), _) => error.to_string(),
        (Ok(Format { format }), _) => format!("it is of format {format}; this release knows {FORMAT}"),
    }
}

pub(crate) fn owner(text: String) -> LeaseOwner {
    LeaseOwner::new(text).unwrap_or_else(|_| unreachable!("words, an id and numbers make an owner"))
}

/// Keys are texts, numbers or ids, and no number is infinite: such values are always JSON.
pub(crate) fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("the records have a JSON form")).into()
}

/// Reads any bytes as every record there is, and writes what they mean again: for fuzzing (feature `testing`).
///
/// # Panics
/// If what was read is not read again from what is written.
#[cfg(feature = "testing")]
pub fn reread_records(bytes: &[u8]) {
    fn reread<T: Object + fmt::Debug>(bytes: &[u8]) {
        let entry = |value: Bytes| Entry { value, revision: overlay_core::Revision(7) };
        if let Ok(held) = Held::<T>::parse(&entry(Bytes::copy_from_slice(bytes))) {
            let again = Held::parse(&entry(held.encode()));
            assert_eq!(again.as_ref(), Ok(&held));
        }
    }
    reread::<Network>(bytes);
    reread::<Service>(bytes);
    reread::<Endpoint>(bytes);
    reread::<Node>(bytes);
}
