//! Sets, without their elements.

use super::{At, HEAD, LIST_ELEMENT, head, is, message};
use crate::netlink::{Body, Flags, Malformed, Message, Requests};
use crate::nft::SetHead;
use crate::nft::set::SetKind;
use crate::nft::value::{Type, length};

/// A set as it was found.
#[derive(Debug, Clone)]
pub(in crate::nft) struct Found {
    pub(in crate::nft) name: String,
    pub(in crate::nft) head: SetHead,
}

/// `id` is a number that the set has in its transaction.
pub(in crate::nft) fn add(requests: &mut Requests, at: At<'_>, name: &str, set: &SetHead, id: u32) {
    let mut flags = if set.intervals { INTERVAL } else { 0 };
    if set.key.len() > 1 {
        flags |= CONCATENATION;
    }
    if !matches!(set.kind, SetKind::Plain) {
        flags |= MAP;
    }
    if set.filled {
        flags |= BY_RULES;
    }
    requests.add(message(NEW), Flags::CREATE, |body| {
        head(body, at.family.number())
            .text(TABLE, at.table)
            .text(NAME, name)
            .be32(FLAGS, flags)
            .be32(KEY_TYPE, fold(&set.key))
            .be32(KEY_LENGTH, length(&set.key) as u32);
        match &set.kind {
            SetKind::Verdicts => drop(body.be32(DATA_TYPE, VERDICT).be32(DATA_LENGTH, 0)),
            SetKind::Map(types) => {
                body.be32(DATA_TYPE, fold(types)).be32(DATA_LENGTH, length(types) as u32);
            }
            SetKind::Plain | SetKind::Strange(_) => {}
        }
        body.be32(ID, id);
        write_orders(body, set);
        if set.key.len() > 1 || set.filled {
            body.nest(DESCRIPTION, |about| describe(about, set));
        }
    });
}

fn describe(about: &mut Body<'_>, set: &SetHead) {
    if set.filled {
        about.be32(DESCRIPTION_SIZE, FILLED);
    }
    if set.key.len() > 1 {
        about.nest(DESCRIPTION_CONCATENATION, |list| {
            for part in &set.key {
                list.nest(LIST_ELEMENT, |field| {
                    field.be32(FIELD_LENGTH, part.size() as u32);
                });
            }
        });
    }
}

/// Says to `nft` in which byte order keys and values are; the kernel does not look at it.
fn write_orders(body: &mut Body<'_>, set: &SetHead) {
    let order = |types: &[Type]| match types {
        [one] if one.is_host_order() || *one == Type::IfName => HOST_ORDER,
        [_] => NETWORK_ORDER,
        _ => 0,
    };
    let mut orders = Vec::new();
    let mut say = |kind: u8, order: u32| {
        orders.extend([kind, 4]);
        orders.extend(order.to_ne_bytes());
    };
    say(KEY_ORDER, order(&set.key));
    if let SetKind::Map(types) = &set.kind {
        say(DATA_ORDER, order(types));
    }
    body.attribute(USER_DATA, &orders);
}

pub(in crate::nft) fn remove(requests: &mut Requests, at: At<'_>, name: &str) {
    requests.add(message(DELETE), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(NAME, name);
    });
}

pub(in crate::nft) fn dump(at: At<'_>) -> Requests {
    Requests::one(message(GET), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table);
    })
}

/// Reads a set; nothing for names that are no text.
pub(in crate::nft) fn parse(message: &Message<'_>) -> Result<Option<Found>, Malformed> {
    if !is(message.kind, NEW) {
        return Ok(None);
    }
    let mut name = None;
    let (mut flags, mut key, mut key_length, mut data, mut data_length) = (0, 0, 0, 0, 0);
    let mut size = 0;
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            NAME => name = attribute.text().ok(),
            FLAGS => flags = attribute.be32()?,
            KEY_TYPE => key = attribute.be32()?,
            KEY_LENGTH => key_length = attribute.be32()?,
            DATA_TYPE => data = attribute.be32()?,
            DATA_LENGTH => data_length = attribute.be32()?,
            DESCRIPTION => {
                for about in attribute.nested() {
                    let about = about?;
                    if about.kind == DESCRIPTION_SIZE {
                        size = about.be32()?;
                    }
                }
            }
            _ => {}
        }
    }
    let Some(name) = name else { return Ok(None) };
    let strange = |what: String| SetKind::Strange(what.into());
    let types = |folded, size: u32| unfold(folded).filter(|types| length(types) == size as usize);
    let filled = flags & BY_RULES == BY_RULES && flags & MAP != 0;
    let kind = match types(data, data_length) {
        _ if filled && (size != FILLED || flags & INTERVAL != 0) => strange(format!("flags {flags:#x}, size {size}")),
        _ if flags & !(INTERVAL | MAP | CONCATENATION | if filled { BY_RULES } else { 0 }) != 0 => {
            strange(format!("flags {flags:#x}"))
        }
        _ if flags & MAP == 0 => SetKind::Plain,
        _ if data == VERDICT => SetKind::Verdicts,
        Some(types) => SetKind::Map(types),
        None => strange(format!("data type {data} of {data_length} bytes")),
    };
    let (key, kind) = match types(key, key_length) {
        Some(types) => (types, kind),
        None => (Vec::new(), strange(format!("key type {key} of {key_length} bytes"))),
    };
    Ok(Some(Found { name: name.to_owned(), head: SetHead { key, intervals: flags & INTERVAL != 0, kind, filled } }))
}

/// A concatenation's number: six bits for each of its types.
fn fold(types: &[Type]) -> u32 {
    types.iter().fold(0, |folded, part| folded << 6 | part.id())
}

fn unfold(folded: u32) -> Option<Vec<Type>> {
    let ids = (0..5).rev().map(|place| folded >> (6 * place) & 0x3f).skip_while(|id| *id == 0);
    let types: Option<Vec<_>> = ids.map(Type::by_id).collect();
    types.filter(|types| !types.is_empty() && folded >> 30 == 0)
}

const NEW: u16 = 9;
const GET: u16 = 10;
const DELETE: u16 = 11;
const TABLE: u16 = 1;
const NAME: u16 = 2;
const FLAGS: u16 = 3;
const KEY_TYPE: u16 = 4;
const KEY_LENGTH: u16 = 5;
const DATA_TYPE: u16 = 6;
const DATA_LENGTH: u16 = 7;
const DESCRIPTION: u16 = 9;
const ID: u16 = 10;
const USER_DATA: u16 = 13;
const DESCRIPTION_SIZE: u16 = 1;
const DESCRIPTION_CONCATENATION: u16 = 2;
const FIELD_LENGTH: u16 = 1;
const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const CONCATENATION: u32 = 0x80;
const BY_RULES: u32 = 0x10 | 0x20; // NFT_SET_TIMEOUT, NFT_SET_EVAL
/// The most elements of a set that rules fill: what the kernel has where nobody says.
pub(in crate::nft) const FILLED: u32 = 65_535;
const VERDICT: u32 = 0xffff_ff00; // NFT_DATA_VERDICT
const KEY_ORDER: u8 = 0; // NFTNL_UDATA_SET_KEYBYTEORDER
const DATA_ORDER: u8 = 1;
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;
