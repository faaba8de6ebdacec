//! Why packets go no further, and how many did.

use std::fmt;

use overlay_core::EndpointId;
use serde::ser::{SerializeMap as _, SerializeStruct as _};
use serde::{Serialize, Serializer};

use crate::Fate;

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A length in it does not fit.
    Malformed,
    /// It has a VLAN tag, which no network of ours carries (RFC 7348 §6.1).
    Tagged,
    /// No endpoint of that id is here.
    NoPort,
    /// Its endpoint pretends to be somebody else.
    Spoofed,
    /// The network's policy forbids it.
    Policy,
    /// It is a fragment, and a policy or a service would have to know what it is of.
    Fragment,
    /// Its service's balancer drops it.
    Service,
    /// It needs no answer, and is nobody's: an endpoint that tells of itself, or solicits a router.
    Settled,
    /// No endpoint has that Ethernet address.
    NoStation,
    /// No endpoint has that IP address.
    NoRoute,
    /// It is for all or many, and the network does not flood.
    Unflooded,
    /// It is for all or many, and too many were.
    FloodRate,
    /// It is longer than the network's MTU, and cannot be answered.
    TooBig,
    /// It has passed enough routers, and cannot be answered.
    Expired,
    /// It is not for an address of this node's tunnels, or no tunnel's.
    NotOurs,
    /// Its network is not on this node, or not by this port.
    NoSegment,
    /// It is not from a node.
    Stranger,
    /// It is of an encrypted network, and in the clear.
    Clear,
    /// No tunnel leads there, or is this association's.
    NoTunnel,
    /// Its tunnel has no association to send by, or one that has sent all it may.
    NoAssociation,
    /// Nobody has the association that it came by.
    ForeignSpi,
    /// It is not authentic, or came before.
    Unopened,
    /// It met congestion that it could not tell its receiver of (RFC 6040 §4.2).
    Congested,
    /// More flows are followed than can be.
    Full,
    /// Its buffer has too little room for the headers.
    Room,
}

impl Reason {
    /// All there are.
    pub const ALL: [Self; 25] = {
        use Reason::*;
        [
            Malformed,
            Tagged,
            NoPort,
            Spoofed,
            Policy,
            Fragment,
            Service,
            Settled,
            NoStation,
            NoRoute,
            Unflooded,
            FloodRate,
            TooBig,
            Expired,
            NotOurs,
            NoSegment,
            Stranger,
            Clear,
            NoTunnel,
            NoAssociation,
            ForeignSpi,
            Unopened,
            Congested,
            Full,
            Room,
        ]
    };

    /// What it is called where programs read it; it stays so within a major version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Tagged => "tagged",
            Self::NoPort => "no_port",
            Self::Spoofed => "spoofed",
            Self::Policy => "policy",
            Self::Fragment => "fragment",
            Self::Service => "service",
            Self::Settled => "settled",
            Self::NoStation => "no_station",
            Self::NoRoute => "no_route",
            Self::Unflooded => "unflooded",
            Self::FloodRate => "flood_rate",
            Self::TooBig => "too_big",
            Self::Expired => "expired",
            Self::NotOurs => "not_ours",
            Self::NoSegment => "no_segment",
            Self::Stranger => "stranger",
            Self::Clear => "clear",
            Self::NoTunnel => "no_tunnel",
            Self::NoAssociation => "no_association",
            Self::ForeignSpi => "foreign_spi",
            Self::Unopened => "unopened",
            Self::Congested => "congested",
            Self::Full => "full",
            Self::Room => "room",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Malformed => "malformed",
            Self::Tagged => "VLAN tag",
            Self::NoPort => "no such endpoint here",
            Self::Spoofed => "pretends to be somebody else",
            Self::Policy => "forbidden by policy",
            Self::Fragment => "fragment of nobody knows what",
            Self::Service => "dropped by its service's balancer",
            Self::Settled => "needs no answer",
            Self::NoStation => "no endpoint has the Ethernet address",
            Self::NoRoute => "no endpoint has the IP address",
            Self::Unflooded => "the network does not flood",
            Self::FloodRate => "floods too often",
            Self::TooBig => "longer than the MTU",
            Self::Expired => "passed too many routers",
            Self::NotOurs => "not for a tunnel of this node",
            Self::NoSegment => "its network is not here",
            Self::Stranger => "not from a node",
            Self::Clear => "in the clear on an encrypted network",
            Self::NoTunnel => "no tunnel leads there",
            Self::NoAssociation => "its tunnel has nothing to send by",
            Self::ForeignSpi => "no association of its SPI is here",
            Self::Unopened => "not authentic, or seen before",
            Self::Congested => "met congestion and cannot say so",
            Self::Full => "too many flows",
            Self::Room => "too little room for headers",
        })
    }
}

/// What a [`Datapath`](crate::Datapath) has done since it began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Packets to the underlay, copies of floods included.
    pub underlay: u64,
    /// Of those, sealed ones.
    pub sealed: u64,
    /// Frames to ports, answers to their own included.
    pub ports: u64,
    /// Of those, answers.
    pub answers: u64,
    /// Frames that were copied to several.
    pub copied: u64,
    /// Flows that gave way to others, as no more could be followed for policies: see [`Config::flows`](crate::Config::flows).
    pub displaced: u64,
    dropped: [u64; Reason::ALL.len()],
}

/// As its public fields, and `dropped`: the reasons for which any were, [by name](Reason::name).
impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Dropped<'c>(&'c Counts);
        impl Serialize for Dropped<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut map = to.serialize_map(None)?;
                self.0.drops().try_for_each(|(reason, count)| map.serialize_entry(reason.name(), &count))?;
                map.end()
            }
        }
        let mut counts = to.serialize_struct("Counts", 7)?;
        counts.serialize_field("underlay", &self.underlay)?;
        counts.serialize_field("sealed", &self.sealed)?;
        counts.serialize_field("ports", &self.ports)?;
        counts.serialize_field("answers", &self.answers)?;
        counts.serialize_field("copied", &self.copied)?;
        counts.serialize_field("displaced", &self.displaced)?;
        counts.serialize_field("dropped", &Dropped(self))?;
        counts.end()
    }
}

impl Counts {
    /// How many were dropped for that reason.
    pub const fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    /// The reasons for which any were dropped, and how many.
    pub fn drops(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.dropped).filter(|(_, count)| *count > 0)
    }

    /// Counts what becomes of a packet that came from that endpoint, or from elsewhere.
    pub(crate) fn note(&mut self, fate: &Fate, from: Option<EndpointId>) {
        match *fate {
            Fate::Waiting => {}
            Fate::Underlay { .. } => self.underlay += 1,
            Fate::Port(to) => {
                self.ports += 1;
                self.answers += u64::from(from == Some(to));
            }
            Fate::Copied => self.copied += 1,
            Fate::Drop(reason) => self.dropped[reason as usize] += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_and_a_text_of_its_own() {
        let mut counts = Counts::default();
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            counts.note(&Fate::Drop(reason), None);
            assert_eq!(counts.dropped(reason), 1);
        }
        let texts: std::collections::BTreeSet<_> = Reason::ALL.iter().map(ToString::to_string).collect();
        let names: std::collections::BTreeSet<_> = Reason::ALL.into_iter().map(Reason::name).collect();
        assert!(
            names.len() == texts.len()
                && names.iter().all(|name| name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'))
        );
        assert_eq!((texts.len(), counts.drops().count()), (Reason::ALL.len(), Reason::ALL.len()));
    }
}
