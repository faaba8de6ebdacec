//! What a name stands for, ready to be answered.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::RecordType;
use overlay_core::EndpointId;
use smallvec::SmallVec;

use super::Key;
use crate::{Data, DnsName, RecordTtl, Records, Srv, Txt};

/// One name: who gives it, and what that comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) sets: Sets,
    pub(super) sources: SmallVec<[Source; 1]>, // sorted
}

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

/// The records of one name. A name of one or two addresses, as most are, is one piece of memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sets {
    pub(super) address_ttl: RecordTtl,
    pub(super) a: SmallVec<[Ipv4Addr; 2]>,
    pub(super) aaaa: SmallVec<[Ipv6Addr; 1]>,
    pub(super) others: Option<Box<Others>>,
}

/// The records that few names have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Others {
    pub(super) ttl: RecordTtl,
    pub(super) ptr: Vec<DnsName>,
    pub(super) srv: Vec<Srv>,
    pub(super) txt: Vec<Txt>,
}

impl Sets {
    /// The records of a type, if there are any.
    #[inline]
    pub(crate) fn records(&self, record_type: RecordType) -> Option<Records<'_>> {
        let records = match record_type {
            RecordType::A => Records { ttl: self.address_ttl, data: Data::A(Cow::Borrowed(&self.a)) },
            RecordType::AAAA => Records { ttl: self.address_ttl, data: Data::Aaaa(Cow::Borrowed(&self.aaaa)) },
            _ => self.others.as_ref()?.records(record_type)?,
        };
        (!records.data.is_empty()).then_some(records)
    }
}

impl Others {
    fn records(&self, record_type: RecordType) -> Option<Records<'_>> {
        let data = match record_type {
            RecordType::PTR => Data::Ptr(Cow::Borrowed(&self.ptr)),
            RecordType::SRV => Data::Srv(Cow::Borrowed(&self.srv)),
            RecordType::TXT => Data::Txt(Cow::Borrowed(&self.txt)),
            _ => return None,
        };
        Some(Records { ttl: self.ttl, data })
    }
}
