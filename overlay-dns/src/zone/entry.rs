//! What a name stands for, ready to be answered.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::slice::from_ref;
use std::sync::Arc;

use hickory_proto::rr::RecordType;
use overlay_core::EndpointId;

use crate::{Data, DnsName, RecordTtl, Records, Srv, Txt};

/// Why a name is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A service's name or alias; the key is the service's.
    Service(Arc<[u8]>),
    /// `tasks.` before one.
    Tasks(Arc<[u8]>),
    /// A named port of a service.
    Port(Arc<[u8]>),
    /// A service's VIP, looked up backwards.
    Vip(Arc<[u8]>),
    /// An endpoint's own name.
    Endpoint(EndpointId),
    /// Records given as they are.
    Records,
}

/// What is known of one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    pub(super) sets: Sets,
    pub(super) by: By,
}

/// Who gives a name: hardly ever several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    One(Source),
    /// In order, each once.
    Several(Arc<[Source]>),
}

impl By {
    /// All of these, each once.
    pub(super) fn all(first: Source, others: impl Iterator<Item = Source>) -> Self {
        let mut all: Vec<_> = others.collect();
        if all.is_empty() {
            return Self::One(first);
        }
        all.push(first);
        all.sort();
        all.dedup();
        match &all[..] {
            [one] => Self::One(one.clone()),
            _ => Self::Several(all.into()),
        }
    }

    pub(super) fn as_slice(&self) -> &[Source] {
        match self {
            Self::One(source) => from_ref(source),
            Self::Several(sources) => sources,
        }
    }
}

/// What is known of a name that was looked up.
#[derive(Debug)]
pub(crate) enum Found<'z> {
    Kept(&'z Sets),
    /// Made for this look-up.
    Made(Sets),
}

impl<'z> Found<'z> {
    /// The records of a type, if there are any.
    #[inline]
    pub(crate) fn into_records(self, record_type: RecordType) -> Option<Records<'z>> {
        match self {
            Self::Kept(sets) => sets.records(record_type),
            Self::Made(sets) => sets.records(record_type).map(Records::into_owned),
        }
    }
}

/// The records of one name. Look-ups cost what memory costs, so what most names have lies in one piece of it, beside the
/// name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sets {
    /// Few IPv4 addresses, or none at all.
    V4(RecordTtl, Few),
    /// One address of each family.
    Both(RecordTtl, Ipv4Addr, Ipv6Addr),
    Ptr(RecordTtl, DnsName),
    Srv(RecordTtl, Srv),
    /// Anything else.
    Several(Arc<Several>),
}

/// Addresses that are in place, and copied as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Few {
    len: u8,
    all: [Ipv4Addr; FEW],
}

const FEW: usize = 8;

/// Any records of one name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Several {
    pub(super) address_ttl: RecordTtl,
    pub(super) a: Vec<Ipv4Addr>,
    pub(super) aaaa: Vec<Ipv6Addr>,
    pub(super) ttl: RecordTtl, // of all but addresses
    pub(super) ptr: Vec<DnsName>,
    pub(super) srv: Vec<Srv>,
    pub(super) txt: Vec<Txt>,
}

impl Sets {
    /// The records of a type, if there are any.
    #[inline]
    pub(crate) fn records(&self, record_type: RecordType) -> Option<Records<'_>> {
        let (ttl, data) = match (self, record_type) {
            (Self::V4(ttl, all), RecordType::A) => (ttl, Data::A(Cow::Borrowed(all.as_slice()))),
            (Self::Both(ttl, one, _), RecordType::A) => (ttl, Data::A(Cow::Borrowed(from_ref(one)))),
            (Self::Both(ttl, _, one), RecordType::AAAA) => (ttl, Data::Aaaa(Cow::Borrowed(from_ref(one)))),
            (Self::Ptr(ttl, one), RecordType::PTR) => (ttl, Data::Ptr(Cow::Borrowed(from_ref(one)))),
            (Self::Srv(ttl, one), RecordType::SRV) => (ttl, Data::Srv(Cow::Borrowed(from_ref(one)))),
            (Self::Several(several), _) => several.records(record_type)?,
            _ => return None,
        };
        (!data.is_empty()).then_some(Records { ttl: *ttl, data })
    }
}

impl Sets {
    /// Addresses of each family, and nothing else.
    pub(super) fn of_addresses(ttl: RecordTtl, a: &[Ipv4Addr], aaaa: &[Ipv6Addr]) -> Self {
        Self::few(ttl, a, aaaa).unwrap_or_else(|| {
            let (a, aaaa) = (a.to_vec(), aaaa.to_vec());
            Self::Several(Arc::new(Several { address_ttl: ttl, a, aaaa, ..Several::default() }))
        })
    }

    /// Addresses that have room in place.
    fn few(ttl: RecordTtl, a: &[Ipv4Addr], aaaa: &[Ipv6Addr]) -> Option<Self> {
        match (a, aaaa) {
            (few, []) if few.len() <= FEW => Some(Self::V4(ttl, Few::of(few))),
            ([v4], [v6]) => Some(Self::Both(ttl, *v4, *v6)),
            _ => None,
        }
    }
}

impl Few {
    fn of(addresses: &[Ipv4Addr]) -> Self {
        let mut few = Self { len: 0, all: [Ipv4Addr::UNSPECIFIED; FEW] };
        for (place, address) in few.all.iter_mut().zip(addresses) {
            *place = *address;
            few.len += 1;
        }
        few
    }

    #[inline]
    fn as_slice(&self) -> &[Ipv4Addr] {
        &self.all[..usize::from(self.len)]
    }
}

impl From<Several> for Sets {
    fn from(several: Several) -> Self {
        let Several { address_ttl, a, aaaa, ttl, ptr, srv, txt } = &several;
        match (&a[..], &aaaa[..], &ptr[..], &srv[..], &txt[..]) {
            (a, aaaa, [], [], []) => Self::few(*address_ttl, a, aaaa)
                .unwrap_or_else(|| Self::Several(Arc::new(Several { ttl: RecordTtl::default(), ..several }))),
            ([], [], [ptr], [], []) => Self::Ptr(*ttl, ptr.clone()),
            ([], [], [], [srv], []) => Self::Srv(*ttl, srv.clone()),
            _ => Self::Several(Arc::new(several)),
        }
    }
}

impl Several {
    fn records(&self, record_type: RecordType) -> Option<(&RecordTtl, Data<'_>)> {
        Some(match record_type {
            RecordType::A => (&self.address_ttl, Data::A(Cow::Borrowed(&self.a))),
            RecordType::AAAA => (&self.address_ttl, Data::Aaaa(Cow::Borrowed(&self.aaaa))),
            RecordType::PTR => (&self.ttl, Data::Ptr(Cow::Borrowed(&self.ptr))),
            RecordType::SRV => (&self.ttl, Data::Srv(Cow::Borrowed(&self.srv))),
            RecordType::TXT => (&self.ttl, Data::Txt(Cow::Borrowed(&self.txt))),
            _ => return None,
        })
    }
}
