//! What one node says about one member.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use overlay_core::NodeId;

use crate::member::plain;
use crate::tables::SIGNATURE_LIMIT;
use crate::wire::{Reader, put_bytes, put_varint, varint_len};
use crate::{Malformed, Member, Metadata, Role, Standing};

/// Which word about a member is newer: the start it is about, then how often it has objected or changed since.
/// Only the member itself makes a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    pub(crate) incarnation: u64,
    pub(crate) revision: u32,
}

/// A member, and how it is believed to be. What the member says of itself is signed by it, whoever tells it and whatever is believed; metadata of who left
/// does not travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) member: Member,
    pub(crate) revision: u32,
    pub(crate) standing: Standing,
    /// For how long it has been suspended or left, to the second, so that it is forgotten everywhere at the same time.
    pub(crate) age: Duration,
    /// Who accuses a suspected member; at most [`Update::ACCUSERS`].
    pub(crate) accusers: Vec<NodeId>,
    /// The member's own: of its goodbye if it left, else of what it says of itself under this number. Nothing without signatures.
    pub(crate) signature: Box<[u8]>,
}

impl Update {
    /// The most accusers that are named: the first, and seven confirmations.
    pub(crate) const ACCUSERS: usize = 8;

    /// A member that is there, in its first revision.
    #[cfg(test)]
    pub(crate) fn alive(member: Member) -> Self {
        let (accusers, signature) = (Vec::new(), Box::default());
        Self { member, revision: 0, standing: Standing::Alive, age: Duration::ZERO, accusers, signature }
    }

    pub(crate) const fn number(&self) -> Number {
        Number { incarnation: self.member.incarnation, revision: self.revision }
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = reader.node_id("member")?;
        let flags = reader.u8("flags")?;
        if flags & !(STANDING | MANAGER | V6 | SIGNED) != 0 || flags & (SIGNED | STANDING) == (SIGNED | LEFT) {
            return Err(Malformed::Range { field: "flags", found: flags.into(), least: 0, most: 31 });
        }
        let incarnation = reader.varint("incarnation")?;
        let revision = narrow(reader.varint("revision")?, "revision", u32::MAX)?;
        let address = parse_address(reader, flags & V6 != 0)?;
        let metadata = reader.bytes("metadata")?;
        let standing = match flags & STANDING {
            0 => Standing::Alive,
            1 => Standing::Suspected,
            2 => Standing::Suspended,
            _ => Standing::Left,
        };
        let (mut age, mut accusers) = (Duration::ZERO, Vec::new());
        match standing {
            Standing::Alive => {}
            Standing::Suspected => accusers = parse_accusers(reader)?,
            Standing::Suspended | Standing::Left => {
                age = Duration::from_secs(narrow(reader.varint("age")?, "age", u32::MAX)?.into());
            }
        }
        let signature = match (standing, flags & SIGNED) {
            (Standing::Left, _) => parse_signature(reader, 0)?,
            (_, 0) => Box::default(),
            _ => parse_signature(reader, 1)?,
        };
        let most = if standing == Standing::Left { 0 } else { Metadata::MAX_LEN };
        let too_long =
            Malformed::Range { field: "metadata length", found: metadata.len() as u64, least: 0, most: most as u64 };
        if metadata.len() > most {
            return Err(too_long);
        }
        let metadata = Metadata::new(Bytes::copy_from_slice(metadata)).map_err(|_| too_long)?;
        let role = if flags & MANAGER == 0 { Role::Worker } else { Role::Manager };
        let member = Member { id, incarnation, address, role, metadata };
        Ok(Self { member, revision, standing, age, accusers, signature })
    }

    /// Reads updates as long as there are bytes.
    pub(crate) fn parse_all(mut reader: Reader<'_>) -> Result<Vec<Self>, Malformed> {
        let mut updates = Vec::new();
        while !reader.is_empty() {
            updates.push(Self::parse(&mut reader)?);
        }
        Ok(updates)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Member { id, incarnation, address, role, .. } = &self.member;
        let standing = match self.standing {
            Standing::Alive => 0,
            Standing::Suspected => 1,
            Standing::Suspended => 2,
            Standing::Left => LEFT,
        };
        let signed = if self.has_flag() { SIGNED } else { 0 };
        let role = if *role == Role::Manager { MANAGER } else { 0 };
        let family = if address.is_ipv6() { V6 } else { 0 };
        out.extend_from_slice(&id.to_bytes());
        out.push(standing | role | family | signed);
        put_varint(*incarnation, out);
        put_varint(self.revision.into(), out);
        put_address(*address, out);
        put_bytes(self.metadata(), out);
        match self.standing {
            Standing::Alive => {}
            Standing::Suspected => {
                out.push(self.accusers.len().min(Self::ACCUSERS) as u8);
                self.accusers.iter().take(Self::ACCUSERS).for_each(|id| out.extend_from_slice(&id.to_bytes()));
            }
            Standing::Suspended | Standing::Left => put_varint(self.age_seconds(), out),
        }
        if self.standing == Standing::Left || self.has_flag() {
            put_bytes(&self.signature, out);
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let Member { incarnation, address, .. } = &self.member;
        let metadata = self.metadata().len();
        let rest = match self.standing {
            Standing::Alive => 0,
            Standing::Suspected => 1 + 16 * self.accusers.len().min(Self::ACCUSERS),
            Standing::Suspended | Standing::Left => varint_len(self.age_seconds()),
        };
        let signature = match self.signature.len() {
            0 if self.standing != Standing::Left => 0,
            len => varint_len(len as u64) + len,
        };
        let numbers = varint_len(*incarnation) + varint_len(self.revision.into());
        17 + numbers + address_len(address.is_ipv6()) + varint_len(metadata as u64) + metadata + rest + signature
    }

    /// Whether there is a signature that earlier readers do not look for: that of a goodbye was always there.
    pub(crate) fn has_flag(&self) -> bool {
        self.standing != Standing::Left && !self.signature.is_empty()
    }

    fn metadata(&self) -> &[u8] {
        if self.standing == Standing::Left { &[] } else { self.member.metadata.as_bytes() }
    }

    fn age_seconds(&self) -> u64 {
        self.age.as_secs().min(u32::MAX.into())
    }
}

const STANDING: u8 = 0b0011;
const MANAGER: u8 = 0b0100;
const V6: u8 = 0b1000;
const SIGNED: u8 = 0b1_0000;
const LEFT: u8 = 3;

fn narrow(value: u64, field: &'static str, most: u32) -> Result<u32, Malformed> {
    u32::try_from(value).map_err(|_| Malformed::Range { field, found: value, least: 0, most: most.into() })
}

fn parse_signature(reader: &mut Reader<'_>, least: usize) -> Result<Box<[u8]>, Malformed> {
    match reader.bytes("signature")? {
        bytes if (least..=SIGNATURE_LIMIT).contains(&bytes.len()) => Ok(bytes.into()),
        bytes => {
            let (found, most) = (bytes.len() as u64, SIGNATURE_LIMIT as u64);
            Err(Malformed::Range { field: "signature length", found, least: least as u64, most })
        }
    }
}

fn parse_accusers(reader: &mut Reader<'_>) -> Result<Vec<NodeId>, Malformed> {
    match reader.u8("accusers")? {
        count if usize::from(count) <= Update::ACCUSERS => (0..count).map(|_| reader.node_id("accuser")).collect(),
        found => Err(Malformed::Range { field: "accusers", found: found.into(), least: 0, most: 8 }),
    }
}

pub(crate) const fn address_len(v6: bool) -> usize {
    if v6 { 18 } else { 6 }
}

pub(crate) fn parse_address(reader: &mut Reader<'_>, v6: bool) -> Result<SocketAddr, Malformed> {
    let ip = if v6 {
        IpAddr::V6(Ipv6Addr::from(reader.array("address")?))
    } else {
        IpAddr::V4(Ipv4Addr::from(reader.array::<4>("address")?))
    };
    Ok(plain(SocketAddr::new(ip, reader.u16("port")?)))
}

pub(crate) fn put_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
pub(crate) mod tests {
    use overlay_core::testing::any::node_id;
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn address() -> impl Strategy<Value = SocketAddr> {
        any::<SocketAddr>().prop_map(plain)
    }

    pub(crate) fn update() -> impl Strategy<Value = Update> {
        let member =
            (node_id(), any::<u64>(), address(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..=256))
                .prop_map(|(id, incarnation, address, manager, metadata)| Member {
                    role: if manager { Role::Manager } else { Role::Worker },
                    metadata: Metadata::new(metadata).unwrap(),
                    ..Member::new(id, incarnation, address)
                });
        let accusers = proptest::collection::vec(node_id(), 0..=8);
        let signature = proptest::collection::vec(any::<u8>(), 0..=255);
        (member, any::<u32>(), 0..4_u8, any::<u32>(), accusers, signature).prop_map(
            |(member, revision, standing, age, accusers, signature)| {
                let update = Update { revision, signature: signature.into(), ..Update::alive(member) };
                let age = Duration::from_secs(age.into());
                match standing {
                    0 => update,
                    1 => Update { standing: Standing::Suspected, accusers, ..update },
                    2 => Update { standing: Standing::Suspended, age, ..update },
                    _ => {
                        let member = Member { metadata: Metadata::default(), ..update.member };
                        Update { member, standing: Standing::Left, age, ..update }
                    }
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back_and_is_as_long_as_foretold(update in update()) {
            let mut out = Vec::new();
            update.encode(&mut out);
            prop_assert_eq!(out.len(), update.encoded_len());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(Update::parse(&mut reader), Ok(update));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn a_cut_update_is_refused(update in update(), cut in any::<prop::sample::Index>()) {
            let mut out = Vec::new();
            update.encode(&mut out);
            prop_assert!(Update::parse(&mut Reader::new(&out[..cut.index(out.len())])).is_err());
        }
    }
}
