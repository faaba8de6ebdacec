//! Chains.

use std::collections::BTreeSet;

use overlay_core::IfName;

use super::{At, HEAD, head, is, message, read_comment, write_comment};
use crate::netlink::{Attribute, Body, Flags, Malformed, Message, Requests};
use crate::nft::{Base, ChainKind, Family, Hook, Policy};

/// A chain as it was found.
#[derive(Debug, Clone)]
pub(in crate::nft) struct Found {
    pub(in crate::nft) family: Family,
    pub(in crate::nft) table: String,
    pub(in crate::nft) name: String,
    /// Nothing for a base that we do not make.
    pub(in crate::nft) base: Option<Option<Base>>,
    /// Whether its rules are somebody else's.
    pub(in crate::nft) open: bool,
}

pub(in crate::nft) fn add(requests: &mut Requests, at: At<'_>, name: &str, base: Option<&Base>) {
    requests.add(message(NEW), Flags::CREATE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(NAME, name);
        if let Some(base) = base {
            body.nest(HOOK, |hook| write_hook(hook, base))
                .be32(POLICY, policy_number(base.policy))
                .text(KIND, base.kind.text());
        }
    });
}

/// A chain whose rules are somebody else's: its comment says so, to us and to whom `nft` shows it.
pub(in crate::nft) fn add_open(requests: &mut Requests, at: At<'_>, name: &str) {
    requests.add(message(NEW), Flags::CREATE, |body| {
        let body = head(body, at.family.number()).text(TABLE, at.table).text(NAME, name);
        write_comment(body, USER_DATA, OPEN);
    });
}

fn write_hook(hook: &mut Body<'_>, base: &Base) {
    hook.be32(HOOK_NUMBER, base.hook.number()).be32(HOOK_PRIORITY, base.priority.cast_unsigned());
    if base.devices.len() == 1 {
        for device in &base.devices {
            hook.text(HOOK_DEVICE, device.as_str());
        }
    } else if !base.devices.is_empty() {
        hook.nest(HOOK_DEVICES, |list| {
            for device in &base.devices {
                list.text(DEVICE_NAME, device.as_str());
            }
        });
    }
}

pub(in crate::nft) fn set_policy(requests: &mut Requests, at: At<'_>, name: &str, policy: Policy) {
    requests.add(message(NEW), Flags::NONE, |body| {
        let body = head(body, at.family.number()).text(TABLE, at.table).text(NAME, name);
        body.be32(POLICY, policy_number(policy));
    });
}

pub(in crate::nft) fn remove(requests: &mut Requests, at: At<'_>, name: &str) {
    requests.add(message(DELETE), Flags::NONE, |body| {
        head(body, at.family.number()).text(TABLE, at.table).text(NAME, name);
    });
}

/// Asks for all chains of a family, whosever: the kernel does not choose by table.
pub(in crate::nft) fn dump(family: Family) -> Requests {
    Requests::one(message(GET), Flags::NONE, |body| {
        head(body, family.number());
    })
}

/// Reads a chain; nothing for families that are not ours and names that are no text.
pub(in crate::nft) fn parse(message: &Message<'_>) -> Result<Option<Found>, Malformed> {
    let [family, ..] = message.head::<HEAD>()?;
    let Some(family) = Family::by_number(family).filter(|_| is(message.kind, NEW)) else { return Ok(None) };
    let (mut table, mut name, mut kind, mut hook, mut policy) = (None, None, None, None, Some(Policy::Accept));
    let mut open = false;
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            TABLE => table = attribute.text().ok(),
            NAME => name = attribute.text().ok(),
            KIND => kind = attribute.text().ok(),
            HOOK => hook = Some(attribute),
            USER_DATA => open = read_comment(attribute.value) == Some(OPEN),
            POLICY => {
                policy = [Policy::Accept, Policy::Drop].into_iter().find(|p| Ok(policy_number(*p)) == attribute.be32());
            }
            _ => {}
        }
    }
    let (Some(table), Some(name)) = (table, name) else { return Ok(None) };
    let base = match hook {
        None => Some(None),
        Some(hook) => read_hook(family, &hook)?.and_then(|(hook, priority, devices)| {
            let kind = ChainKind::ALL.into_iter().find(|known| Some(known.text()) == kind)?;
            Some(Some(Base { kind, hook, priority, policy: policy?, devices }))
        }),
    };
    let open = open && hook.is_none();
    Ok(Some(Found { family, table: table.to_owned(), name: name.to_owned(), base, open }))
}

type Place = (Hook, i32, BTreeSet<IfName>);

fn read_hook(family: Family, hook: &Attribute<'_>) -> Result<Option<Place>, Malformed> {
    let (mut number, mut priority, mut devices) = (u32::MAX, 0, Some(BTreeSet::new()));
    let mut device = |attribute: &Attribute<'_>| {
        let name = attribute.text().ok().and_then(|name| name.parse().ok());
        devices = name.and_then(|name| {
            let mut devices = devices.take()?;
            devices.insert(name);
            Some(devices)
        });
    };
    for attribute in hook.nested() {
        let attribute = attribute?;
        match attribute.kind {
            HOOK_NUMBER => number = attribute.be32()?,
            HOOK_PRIORITY => priority = attribute.be32()?.cast_signed(),
            HOOK_DEVICE => device(&attribute),
            HOOK_DEVICES => attribute.nested().try_for_each(|one| one.map(|one| device(&one)))?,
            _ => {}
        }
    }
    let of_a_device = family == Family::Netdev;
    let hook = Hook::ALL.into_iter().find(|hook| hook.number() == number && hook.is_of_a_device() == of_a_device);
    Ok(hook.and_then(|hook| Some((hook, priority, devices?))))
}

const fn policy_number(policy: Policy) -> u32 {
    match policy {
        Policy::Drop => 0,
        Policy::Accept => 1,
    }
}

const NEW: u16 = 3;
const GET: u16 = 4;
const DELETE: u16 = 5;
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const KIND: u16 = 7;
const USER_DATA: u16 = 12;
/// The comment of chains whose rules are somebody else's.
pub(in crate::nft) const OPEN: &str = "the rules here are the administrator's";
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_DEVICES: u16 = 4;
const DEVICE_NAME: u16 = 1;
