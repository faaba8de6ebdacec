//! Tables.

use super::{At, HEAD, head, is, message, write_comment};
use crate::netlink::{Flags, Malformed, Message, Requests};
use crate::nft::Family;

/// A table as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::nft) struct Found {
    pub(in crate::nft) family: Family,
    pub(in crate::nft) name: String,
    pub(in crate::nft) flags: u32,
}

pub(in crate::nft) fn add(requests: &mut Requests, at: At<'_>, comment: &str) {
    requests.add(message(NEW), Flags::CREATE, |body| {
        head(body, at.family.number()).text(NAME, at.table).be32(FLAGS, 0);
        write_comment(body, USER_DATA, comment);
    });
}

/// Changes nothing of a table that is there.
pub(in crate::nft) fn touch(requests: &mut Requests, at: At<'_>) {
    requests.add(message(NEW), Flags::CREATE, |body| {
        head(body, at.family.number()).text(NAME, at.table);
    });
}

pub(in crate::nft) fn remove(requests: &mut Requests, at: At<'_>) {
    requests.add(message(DELETE), Flags::NONE, |body| {
        head(body, at.family.number()).text(NAME, at.table);
    });
}

pub(in crate::nft) fn dump() -> Requests {
    Requests::one(message(GET), Flags::NONE, |body| {
        head(body, 0);
    })
}

/// Reads a table; nothing for families that are not ours and names that are no text.
pub(in crate::nft) fn parse(message: &Message<'_>) -> Result<Option<Found>, Malformed> {
    let [family, ..] = message.head::<HEAD>()?;
    let Some(family) = Family::by_number(family).filter(|_| is(message.kind, NEW)) else { return Ok(None) };
    let (mut name, mut flags) = (None, 0);
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            NAME => name = attribute.text().ok(),
            FLAGS => flags = attribute.be32()?,
            _ => {}
        }
    }
    Ok(name.map(|name| Found { family, name: name.to_owned(), flags }))
}

const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NAME: u16 = 1;
const FLAGS: u16 = 2;
const USER_DATA: u16 = 6;
