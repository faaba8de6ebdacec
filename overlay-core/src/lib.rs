#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod address_set;
mod backend;
mod diff;
mod encapsulation;
mod flaky;
mod host_address;
mod id;
mod ip_family;
mod lower;
mod mac;
mod malformed;
mod memory;
mod mtu;
mod name;
mod ns_key;
mod outer_header;
mod owner;
mod port;
mod port_range;
mod shadow;
mod shared_map;
mod state;
mod store;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod time;
mod told;
mod traced;
mod vni;

pub use address_set::{AddressIter, AddressSet};
pub use backend::{Applied, Backend, BackendError, ErrorKind, Meter, StepError, StepOf};
pub use diff::{Change, KeyedDiff, keyed_diff};
pub use encapsulation::{Encapsulation, Esp, Icv};
pub use flaky::{Call, Fault, Flaky};
pub use host_address::{is_host_address, is_of_all_hosts};
pub use id::{ClusterId, EndpointId, IdError, IdPrefix, NetworkId, NodeId, ServiceId};
pub use ip_family::IpFamily;
pub use lower::{Amended, Lower, Memo, Refusal};
pub use mac::{Mac, MacError};
pub use malformed::Malformed;
pub use memory::Memory;
pub use mtu::{Mtu, MtuError};
pub use name::{IfName, IfNameError, Name, NameError};
pub use ns_key::{NsId, NsKey};
pub use outer_header::{DontFragment, Ttl};
pub use owner::Owner;
pub use port::{Port, PortError, Protocol, ProtocolError};
pub use port_range::{PortRange, PortRangeError};
pub use shadow::{Shadow, Witness};
pub use shared_map::{SharedDiff, SharedIter, SharedMap};
pub use state::{Phase, State, in_phases};
pub use store::{
    Commit, CommitError, Compare, Done, Entry, Key, KeyChange, KeyError, Limit, Limits, Listing, MemoryStore, Prefix,
    Reading, Revision, Seat, Snapshot, Store, StoreError, Term, TermRefusal, Transaction, TransactionError, Undecided,
    Unread, Watch, WatchEvent,
};
pub use table::{Plan, ReconcileError, Table, reconcile};
pub use time::{Instant, UnixTime};
pub use told::told;
pub use traced::{Trace, Traced, Traces};
pub use vni::{Vni, VniError};
