//! Elements of sets.

use std::collections::BTreeMap;

use super::{At, Data, HEAD, LIST_ELEMENT, head, is, message, read_data, write_value, write_verdict};
use crate::netlink::{Attributes, Body, Flags, Malformed, Message, Requests};
use crate::nft::set::{Datum, Form};
use crate::nft::value::Bytes;
use crate::nft::{Elements, SetHead};

/// What the kernel has for a range that starts, or ends before, a key.
#[derive(Debug, Clone)]
pub(in crate::nft) struct Found {
    key: Bytes,
    key_end: Option<Bytes>,
    datum: Datum,
    ends: bool,
}

pub(in crate::nft) fn put(requests: &mut Requests, at: At<'_>, name: &str, elements: &Elements) {
    let each = |list: &mut Body<'_>, (key, datum): &(Bytes, Datum)| one(list, elements.form, key, Some(datum));
    write(requests, (NEW, Flags::CREATE), (at, name), &elements.all, each);
}

pub(in crate::nft) fn take(requests: &mut Requests, at: At<'_>, name: &str, elements: &Elements) {
    let each = |list: &mut Body<'_>, (key, _): &(Bytes, Datum)| one(list, elements.form, key, None);
    write(requests, (DELETE, Flags::NONE), (at, name), &elements.all, each);
}

/// Takes all elements of a set.
pub(in crate::nft) fn take_all(requests: &mut Requests, at: At<'_>, name: &str) {
    requests.add(message(DELETE), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(SET, name);
    });
}

/// Writes elements into as many messages as it takes: an attribute of attributes has 64 KiB at most.
fn write(
    requests: &mut Requests,
    (kind, flags): (u16, Flags),
    (at, name): (At<'_>, &str),
    mut rest: &[(Bytes, Datum)],
    each: impl Fn(&mut Body<'_>, &(Bytes, Datum)),
) {
    while !rest.is_empty() {
        let mut room = LIST;
        let fits = |element: &&(Bytes, Datum)| {
            room = room.saturating_sub(2 * element.0.len() + WORST);
            room > 0
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        requests.add(message(kind), flags, |body| {
            head(body, at.family.number()).text(TABLE, at.table).text(SET, name).nest(ELEMENTS, |list| {
                now.iter().for_each(|element| each(list, element));
            });
        });
        rest = later;
    }
}

fn one(list: &mut Body<'_>, form: Form, key: &Bytes, datum: Option<&Datum>) {
    let (low, high) = match form {
        Form::Single => (&key[..], None),
        Form::Ends | Form::Span => {
            let (low, high) = key.split_at(key.len() / 2);
            (low, Some(high))
        }
    };
    list.nest(LIST_ELEMENT, |element| {
        write_value(element, KEY, low);
        if let (Form::Span, Some(high)) = (form, high) {
            write_value(element, KEY_END, high);
        }
        match datum {
            Some(Datum::Value(value)) => drop(write_value(element, DATA, value)),
            Some(Datum::Verdict(verdict)) => drop(write_verdict(element, DATA, verdict)),
            Some(Datum::Nothing) | None => {}
        }
    });
    if let (Form::Ends, Some(end)) = (form, high.and_then(successor)) {
        list.nest(LIST_ELEMENT, |element| {
            write_value(element, KEY, &end);
            element.be32(FLAGS, INTERVAL_END);
        });
    }
}

/// The number after this one; none after the last.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

fn predecessor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut before = bytes.to_vec();
    for byte in before.iter_mut().rev() {
        let (difference, borrow) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrow {
            return Some(before);
        }
    }
    None
}

pub(in crate::nft) fn dump(at: At<'_>, name: &str) -> Requests {
    Requests::one(message(GET), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(SET, name);
    })
}

/// Reads the elements of a message into `found`. Says whether they are such as we make.
pub(in crate::nft) fn parse(message: &Message<'_>, found: &mut Vec<Found>) -> Result<bool, Malformed> {
    let mut known = true;
    if !is(message.kind, NEW) {
        return Ok(known);
    }
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        if attribute.kind == ELEMENTS {
            for element in attribute.nested() {
                match read(element?.nested())? {
                    Some(element) => found.push(element),
                    None => known = false,
                }
            }
        }
    }
    Ok(known)
}

/// A key and a value.
pub(in crate::nft) type Pair = (Bytes, Box<[u8]>);

/// Reads keys and values alone, whatever else the elements have.
pub(in crate::nft) fn pairs(message: &Message<'_>, found: &mut Vec<Pair>) -> Result<(), Malformed> {
    for attribute in message.attributes(HEAD)?.filter(|_| is(message.kind, NEW)) {
        let attribute = attribute?;
        for element in attribute.nested().filter(|_| attribute.kind == ELEMENTS) {
            let (mut key, mut value) = (Bytes::default(), Box::default());
            for part in element?.nested() {
                let part = part?;
                if !matches!(part.kind, KEY | DATA) {
                    continue;
                }
                match read_data(part.nested())? {
                    Data::Value(bytes) if part.kind == KEY => key = Bytes::new(bytes),
                    Data::Value(bytes) => value = bytes.into(),
                    _ => {}
                }
            }
            found.push((key, value));
        }
    }
    Ok(())
}

fn read(attributes: Attributes<'_>) -> Result<Option<Found>, Malformed> {
    let mut found = Found { key: Bytes::default(), key_end: None, datum: Datum::Nothing, ends: false };
    let mut known = true;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            KEY | KEY_END | DATA => match (attribute.kind, read_data(attribute.nested())?) {
                (KEY, Data::Value(key)) => found.key = Bytes::new(key),
                (KEY_END, Data::Value(key)) => found.key_end = Some(Bytes::new(key)),
                (DATA, Data::Value(value)) => found.datum = Datum::Value(value.into()),
                (DATA, Data::Verdict(verdict)) => found.datum = Datum::Verdict(verdict),
                _ => known = false,
            },
            FLAGS => {
                let flags = attribute.be32()?;
                found.ends = flags & INTERVAL_END != 0;
                known &= flags & !INTERVAL_END == 0;
            }
            TIMEOUT | EXPIRATION | EXPRESSION | EXPRESSIONS | OBJECT => known = false,
            _ => {}
        }
    }
    Ok((known && !found.key.is_empty()).then_some(found))
}

/// The elements as a state has them.
pub(in crate::nft) fn assemble(set: &SetHead, mut found: Vec<Found>) -> BTreeMap<Bytes, Datum> {
    match set.form() {
        Form::Single => found.into_iter().map(|element| (element.key, element.datum)).collect(),
        Form::Span => {
            let span = |element: Found| {
                let mut key = element.key.clone();
                key.push(element.key_end.as_ref().unwrap_or(&element.key));
                (key, element.datum)
            };
            found.into_iter().map(span).collect()
        }
        Form::Ends => {
            // A range that ends where another starts: the end comes first.
            found.sort_by(|a, b| (&a.key, !a.ends).cmp(&(&b.key, !b.ends)));
            let last = |key: &Bytes| Bytes::new(&vec![0xff; key.len()]);
            let mut ranges = BTreeMap::new();
            for (at, start) in found.iter().enumerate().filter(|(_, element)| !element.ends) {
                let end = found[at + 1..].first().and_then(|next| predecessor(&next.key));
                let mut key = start.key.clone();
                key.push(&end.map_or_else(|| last(&start.key), |end| Bytes::new(&end)));
                ranges.insert(key, start.datum.clone());
            }
            ranges
        }
    }
}

const NEW: u16 = 12;
const GET: u16 = 13;
const DELETE: u16 = 14;
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const TIMEOUT: u16 = 4;
const EXPIRATION: u16 = 5;
const EXPRESSION: u16 = 7;
const OBJECT: u16 = 9;
const KEY_END: u16 = 10;
const EXPRESSIONS: u16 = 11;
const INTERVAL_END: u32 = 1;
const LIST: usize = 60_000;
const WORST: usize = 168; // headers, a verdict with the longest name, or a value of 64 bytes
