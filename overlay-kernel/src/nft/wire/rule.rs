//! Rules.

use super::{At, HEAD, LIST_ELEMENT, expr, expr_read, head, is, message, read_comment, write_comment};
use crate::netlink::{Attributes, Flags, Malformed, Message, Requests};
use crate::nft::Reading;
use crate::nft::expr::Expr;
use crate::nft::rule::{Rule, Uses};

/// A rule as it was found.
#[derive(Debug, Clone)]
pub(in crate::nft) struct Found {
    pub(in crate::nft) chain: String,
    pub(in crate::nft) handle: u64,
    pub(in crate::nft) rule: Rule,
    /// What its counters say.
    pub(in crate::nft) counters: Vec<Reading>,
}

/// Appends a rule to a chain.
pub(in crate::nft) fn add(requests: &mut Requests, at: At<'_>, chain: &str, rule: &Rule) {
    requests.add(message(NEW), Flags::CREATE | Flags::APPEND, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(CHAIN, chain);
        body.nest(EXPRESSIONS, |list| rule.exprs.iter().for_each(|one| expr::write(list, LIST_ELEMENT, one)));
        write_comment(body, USER_DATA, rule.id());
    });
}

/// Puts a rule before all others of a chain.
pub(in crate::nft) fn insert(requests: &mut Requests, at: At<'_>, chain: &str, (rule, comment): (&Rule, &str)) {
    requests.add(message(NEW), Flags::CREATE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(CHAIN, chain);
        body.nest(EXPRESSIONS, |list| rule.exprs.iter().for_each(|one| expr::write(list, LIST_ELEMENT, one)));
        write_comment(body, USER_DATA, comment);
    });
}

/// Removes one rule of a chain.
pub(in crate::nft) fn remove(requests: &mut Requests, at: At<'_>, chain: &str, handle: u64) {
    requests.add(message(DELETE), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(CHAIN, chain).be64(HANDLE, handle);
    });
}

/// Removes all rules of a chain.
pub(in crate::nft) fn flush(requests: &mut Requests, at: At<'_>, chain: &str) {
    requests.add(message(DELETE), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(CHAIN, chain);
    });
}

pub(in crate::nft) fn dump(at: At<'_>) -> Requests {
    Requests::one(message(GET), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table);
    })
}

/// Reads a rule of this table; nothing for those of chains whose names are no text.
pub(in crate::nft) fn parse(message: &Message<'_>, table: &str) -> Result<Option<Found>, Malformed> {
    if !is(message.kind, NEW) {
        return Ok(None);
    }
    let (mut chain, mut ours, mut id, mut handle) = (None, false, None, 0);
    let (mut exprs, mut counters) = (Vec::new(), Vec::new());
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            TABLE => ours = attribute.text() == Ok(table),
            CHAIN => chain = attribute.text().ok(),
            HANDLE => handle = attribute.be64()?,
            EXPRESSIONS => exprs = read_all(attribute.nested(), &mut counters)?,
            USER_DATA => id = read_comment(attribute.value),
            _ => {}
        }
    }
    let rule = Rule { id: id.unwrap_or_default().into(), exprs, uses: Uses::default() };
    Ok(chain.filter(|_| ours).map(|chain| Found { chain: chain.to_owned(), handle, rule, counters }))
}

fn read_all(list: Attributes<'_>, counters: &mut Vec<Reading>) -> Result<Vec<Expr>, Malformed> {
    let mut exprs = Vec::new();
    for one in list {
        exprs.push(expr_read::read(one?.nested(), counters)?);
    }
    Ok(exprs)
}

const NEW: u16 = 6;
const GET: u16 = 7;
const DELETE: u16 = 8;
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const HANDLE: u16 = 3;
const EXPRESSIONS: u16 = 4;
const USER_DATA: u16 = 7;
