//! What a name stands for, ready to be answered.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::RecordType;
use overlay_core::EndpointId;
use smallvec::SmallVec;

use super::Key;
use crate::{Data, DnsName, RecordTtl, Records, Srv, Txt};

/// Why a name is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A service's name or alias; the key is the service's.
    Service(Key),
    /// `tasks.` before one.
    Tasks(Key),
    /// A named port of a service.
    Port(Key),
    /// A service's VIP, looked up backwards.
    Vip(Key),
    /// An endpoint's own name.
    Endpoint(EndpointId),
    /// An endpoint's address, looked up backwards.
    Address(EndpointId),
    /// Records given as they are.
    Records,
}

/// The records of one name. Look-ups cost what memory costs, so a name with one or two IPv4 addresses, as most are, is one
/// piece of it, and one with anything else is two.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sets {
    pub(super) address_ttl: RecordTtl,
    pub(super) a: SmallVec<[Ipv4Addr; 2]>,
    pub(super) others: Option<Box<Others>>,
}

/// The records that fewer names have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Others {
    pub(super) ttl: RecordTtl, // of all but addresses
    pub(super) aaaa: SmallVec<[Ipv6Addr; 1]>,
    pub(super) ptr: SmallVec<[DnsName; 1]>,
    pub(super) srv: Vec<Srv>, // few names have any, so it is small without
    pub(super) txt: Vec<Txt>,
}

impl Sets {
    /// The records of a type, if there are any.
    #[inline]
    pub(crate) fn records(&self, record_type: RecordType) -> Option<Records<'_>> {
        let of_addresses = |data| Records { ttl: self.address_ttl, data };
        if record_type == RecordType::A {
            return (!self.a.is_empty()).then(|| of_addresses(Data::A(Cow::Borrowed(&self.a))));
        }
        let others = self.others.as_ref()?;
        let of_others = |data| Records { ttl: others.ttl, data };
        let records = match record_type {
            RecordType::AAAA => of_addresses(Data::Aaaa(Cow::Borrowed(&others.aaaa))),
            RecordType::PTR => of_others(Data::Ptr(Cow::Borrowed(&others.ptr))),
            RecordType::SRV => of_others(Data::Srv(Cow::Borrowed(&others.srv))),
            RecordType::TXT => of_others(Data::Txt(Cow::Borrowed(&others.txt))),
            _ => return None,
        };
        (!records.data.is_empty()).then_some(records)
    }
}

impl Others {
    pub(super) fn is_empty(&self) -> bool {
        self.aaaa.is_empty() && self.ptr.is_empty() && self.srv.is_empty() && self.txt.is_empty()
    }
}
