//! The names that one client sees.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;

use super::Zone;
use super::entry::Found;
use crate::name::are_whole;
use crate::{Asked, Data, DnsName, Lookup, Question, RecordSource};

/// The networks that a container is on, in the order in which their names are looked up.
///
/// A name is looked up as it is, and then as `name.network`, in each network in turn. The first network that has it has
/// all of it: answers of two are never merged, and a name without IPv6 in the first is not given IPv6 by the
/// second. Put first what the container was attached to first, or give `name.network` to say which is meant.
///
/// Under a [suffix](Self::suffixes) every name is ours: what stands before it is looked up, and NXDOMAIN if nobody has it. A bare network
/// name is not taken for a suffix: a network called `dev` or `com` hides nothing of the world's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Whose names are seen, the first first.
    pub networks: Vec<Zone>,
    /// Domains under which all names are found as well, such as `swarm.internal`: `web.swarm.internal` is `web`. Of several that a name has,
    /// `internal` and that say, it is looked up below each in turn.
    pub suffixes: Vec<DnsName>,
}

/// A view of one network.
impl From<Zone> for View {
    fn from(zone: Zone) -> Self {
        Self { networks: vec![zone], suffixes: Vec::new() }
    }
}

impl View {
    /// All addresses of a name, in no order; `None` if it is not ours. For embedders: no bytes, no socket.
    pub fn addresses(&self, name: &DnsName) -> Option<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for record_type in [RecordType::A, RecordType::AAAA] {
            match self.lookup(&Asked::new(name, record_type).question()) {
                Lookup::NotOurs | Lookup::NoName { .. } => return None,
                Lookup::NoData { .. } => {}
                Lookup::Records(records) => match records.data {
                    Data::A(all) => addresses.extend(all.iter().copied().map(IpAddr::from)),
                    Data::Aaaa(all) => addresses.extend(all.iter().copied().map(IpAddr::from)),
                    _ => {}
                },
            }
        }
        Some(addresses)
    }

    /// What is known of a name that has no suffix of ours any more; `last` is where its last label begins.
    #[inline]
    fn find(&self, name: &[u8], last: usize) -> Option<Found<'_>> {
        let (front, label) = name.split_at_checked(last)?;
        let of = |zone: &Zone| zone.label() == label;
        for zone in &self.networks {
            let found = if of(zone) && last > 0 { zone.ambiguous_entry(name) } else { zone.entry(name) };
            if found.is_some() {
                return found;
            }
        }
        if front.is_empty() {
            return None;
        }
        self.networks.iter().filter(|zone| of(zone)).find_map(|zone| zone.entry(front))
    }

    /// What stands before each suffix of ours that it has, and how many labels that suffix has.
    fn below_suffixes<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = (&'n [u8], usize)> {
        self.suffixes.iter().filter_map(move |suffix| {
            let (front, end) = name.split_at_checked(name.len().checked_sub(suffix.as_wire().len())?)?;
            let is_below = end.eq_ignore_ascii_case(suffix.as_wire()) && are_whole(front);
            is_below.then(|| (front, suffix.labels().count()))
        })
    }

    /// What is known of a name under a suffix of ours: by the first that leads to something; `None` if it has none.
    #[inline]
    fn find_below(&self, question: &Question<'_>) -> Option<Result<(usize, Found<'_>), Lookup<'_>>> {
        let mut nothing = None;
        for (front, apex) in self.below_suffixes(question.folded) {
            if let Some(found) = self.find(front, Question::new(front, question.record_type).last) {
                return Some(Ok((apex, found)));
            }
            match nothing {
                None | Some(Lookup::NoName { .. }) if self.has_below(front) => nothing = Some(Lookup::NoData { apex }),
                None => nothing = Some(Lookup::NoName { apex }),
                Some(_) => {}
            }
        }
        nothing.map(Err)
    }

    /// Whether this has no records, and names below it: who hears that it is not there need not ask for them (RFC 8020).
    fn has_below(&self, front: &[u8]) -> bool {
        front.is_empty() || self.networks.iter().any(|zone| zone.label() == front)
    }

    /// Whether somebody's subnet has the address that is looked up backwards.
    fn is_in_subnet(&self, question: &Question<'_>) -> bool {
        let of = |address| self.networks.iter().flat_map(|zone| &zone.policy().subnets).any(|it| it.contains(&address));
        question.address().is_some_and(of)
    }
}

impl RecordSource for View {
    #[inline]
    fn lookup(&self, question: &Question<'_>) -> Lookup<'_> {
        let (apex, found) = match self.find_below(question) {
            Some(Ok(found)) => found,
            Some(Err(nothing)) => return nothing,
            None => match self.find(question.folded, question.last) {
                Some(found) => (1, found),
                None if self.is_in_subnet(question) => return Lookup::NoName { apex: 2 },
                None => return Lookup::NotOurs,
            },
        };
        found.into_records(question.record_type).map_or(Lookup::NoData { apex }, Lookup::Records)
    }

    fn forwards(&self) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|zone| !zone.policy().internal)
    }
}
