//! Where local answers come from.

use std::sync::Arc;

use hickory_proto::rr::RecordType;

use crate::name::{labels, reversed};
use crate::{DnsName, Records};

/// What is asked: a name and a type. The class is always IN.
///
/// The name is in small letters here, so that sources compare bytes.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    pub(crate) folded: &'q [u8], // on the wire, without the closing zero
    pub(crate) last: usize,      // where the last label's length is; 0 for the root
    pub(crate) labels: usize,
    /// The type asked for.
    pub record_type: RecordType,
}

impl<'q> Question<'q> {
    /// Asks for `name`, given in small letters on the wire: see [`Asked`].
    pub(crate) fn new(folded: &'q [u8], record_type: RecordType) -> Self {
        let (mut last, mut count, mut at) = (0, 0, 0);
        for label in labels(folded) {
            last = at;
            at += 1 + label.len();
            count += 1;
        }
        Self { folded, last, labels: count, record_type }
    }

    /// The name.
    pub fn name(&self) -> DnsName {
        DnsName::from_checked_wire(self.folded)
    }

    /// The name as it goes on the wire, in small letters, but for the zero byte that closes it.
    pub fn as_wire(&self) -> &'q [u8] {
        self.folded
    }

    /// How many labels the name has: 0 for the root, 1 for `web`.
    pub fn label_count(&self) -> usize {
        self.labels
    }

    /// The address that is looked up backwards, if the name is such a one.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        reversed(self.folded)
    }
}

/// A question that owns its name, for those who ask a [`RecordSource`] themselves.
///
/// ```
/// use overlay_dns::{Asked, RecordType};
///
/// let asked = Asked::new(&"Web".parse()?, RecordType::A);
/// assert_eq!(asked.question().as_wire(), b"\x03web");
/// # Ok::<(), overlay_dns::DnsNameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Asked {
    folded: smallvec::SmallVec<[u8; 40]>,
    record_type: RecordType,
}

impl Asked {
    /// Asks for records of a type that `name` has.
    pub fn new(name: &DnsName, record_type: RecordType) -> Self {
        Self { folded: name.fold(), record_type }
    }

    /// What a source is asked with.
    pub fn question(&self) -> Question<'_> {
        Question::new(&self.folded, self.record_type)
    }
}

/// Knows names: a [`View`](crate::View) of zones, or a stranger's own store.
///
/// It is asked for each query, so it looks up in memory and never waits. What it says is final: a name of ours
/// never goes to an upstream server, whatever type is asked for.
///
/// ```
/// use std::borrow::Cow;
/// use overlay_dns::{Data, Lookup, Question, RecordSource, RecordTtl, RecordType, Records};
///
/// /// Says that every name of one label is this machine.
/// struct Here;
///
/// impl RecordSource for Here {
///     fn lookup(&self, question: &Question<'_>) -> Lookup<'_> {
///         match (question.label_count(), question.record_type) {
///             (1, RecordType::A) => Lookup::Records(Records {
///                 ttl: RecordTtl::from_secs(5),
///                 data: Data::A(Cow::Owned(vec![[127, 0, 0, 1].into()])),
///             }),
///             (1, _) => Lookup::NoData { apex: 1 },
///             _ => Lookup::NotOurs,
///         }
///     }
/// }
/// ```
pub trait RecordSource {
    /// What is known of a name.
    fn lookup(&self, question: &Question<'_>) -> Lookup<'_>;

    /// Whether names that are not ours may be asked elsewhere. A container whose networks are all internal forwards
    /// nothing.
    fn forwards(&self) -> bool {
        true
    }
}

impl<S: RecordSource + ?Sized> RecordSource for Arc<S> {
    fn lookup(&self, question: &Question<'_>) -> Lookup<'_> {
        (**self).lookup(question)
    }

    fn forwards(&self) -> bool {
        (**self).forwards()
    }
}

/// What a source knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<'z> {
    /// Nothing, and others may: the question goes to an upstream server, as far as the resolver's rules let it.
    NotOurs,
    /// The name is ours to give and nobody has it: NXDOMAIN.
    NoName {
        /// How many labels at the name's end are those of our zone: the SOA record that goes with it is theirs.
        apex: usize,
    },
    /// The name has no records of this type, and may have others: NOERROR without answers.
    NoData {
        /// As above.
        apex: usize,
    },
    /// These.
    Records(Records<'z>),
}
