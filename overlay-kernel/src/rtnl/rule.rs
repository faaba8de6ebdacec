//! Rules (`struct fib_rule_hdr`, `linux/fib_rules.h`).

use ipnet::IpNet;
use overlay_core::{IfName, IpFamily};

use crate::link::{Rule, Site};
use crate::netlink::{Body, Flags, Malformed, Message, Requests};

use super::{AF_INET, AF_INET6, PROTOCOL, af};

/// Asks for all rules of a family.
pub(crate) fn dump(family: IpFamily) -> Requests {
    Requests::one(RTM_GETRULE, Flags::NONE, |body| {
        body.raw(&[af(family), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    })
}

/// Reads a rule of the links' owner; nothing for others.
pub(crate) fn parse(message: &Message<'_>, site: &Site) -> Result<Option<Rule>, Malformed> {
    Ok(parse_marked(message, site, PROTOCOL)?.filter(|found| !found.but_default).map(|found| found.rule))
}

/// A rule, and what links' owners have no use for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) rule: Rule,
    /// Whether default routes of the table are passed over.
    pub(crate) but_default: bool,
}

/// Reads a rule with the mark `ours`; nothing for others.
pub(crate) fn parse_marked(message: &Message<'_>, site: &Site, ours: u8) -> Result<Option<Found>, Malformed> {
    if message.kind != RTM_NEWRULE {
        return Ok(None);
    }
    let [family, to_len, from_len, _, table, _, _, action, ..] = message.head::<HEAD>()?;
    let family = match family {
        AF_INET => IpFamily::V4,
        AF_INET6 => IpFamily::V6,
        _ => return Ok(None),
    };
    let (from, to, mark, incoming, table) = (None, None, None, None, table.into());
    let mut rule = Rule { site: site.clone(), family, priority: 0, from, to, mark, incoming, table };
    let (mut is_ours, mut but_default, mut mask) = (false, false, u32::MAX);
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            FRA_DST => rule.to = IpNet::new(attribute.ip()?, to_len).ok(),
            FRA_SRC => rule.from = IpNet::new(attribute.ip()?, from_len).ok(),
            FRA_IIFNAME => rule.incoming = attribute.text().ok().and_then(|name| IfName::new(name).ok()),
            FRA_PRIORITY => rule.priority = attribute.u32()?,
            FRA_FWMARK => rule.mark = Some((attribute.u32()?, mask)),
            FRA_FWMASK => mask = attribute.u32()?,
            FRA_TABLE => rule.table = attribute.u32()?,
            FRA_SUPPRESS_PREFIXLEN => but_default = attribute.u32()? == 0,
            FRA_PROTOCOL => is_ours = attribute.u8()? == ours,
            _ => {}
        }
    }
    rule.mark = rule.mark.map(|(mark, _)| (mark, mask));
    Ok((is_ours && action == FR_ACT_TO_TBL).then_some(Found { rule, but_default }))
}

/// Adds a rule.
pub(crate) fn add(requests: &mut Requests, rule: &Rule) {
    add_marked(requests, rule, false, PROTOCOL);
}

/// Adds a rule with the mark `protocol`, which may pass over default routes of its table.
pub(crate) fn add_marked(requests: &mut Requests, rule: &Rule, but_default: bool, protocol: u8) {
    let flags = Flags::CREATE | Flags::EXCLUSIVE;
    requests.add(RTM_NEWRULE, flags, |body| write(body, rule, but_default, protocol));
}

/// Removes a rule.
pub(crate) fn remove(requests: &mut Requests, rule: &Rule) {
    remove_marked(requests, rule, false, PROTOCOL);
}

/// Removes a rule with the mark `protocol`.
pub(crate) fn remove_marked(requests: &mut Requests, rule: &Rule, but_default: bool, protocol: u8) {
    requests.add(RTM_DELRULE, Flags::NONE, |body| write(body, rule, but_default, protocol));
}

fn write(body: &mut Body<'_>, rule: &Rule, but_default: bool, protocol: u8) {
    let len = |net: Option<IpNet>| net.map_or(0, |net| net.prefix_len());
    body.raw(&[af(rule.family), len(rule.to), len(rule.from), 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0])
        .u32(FRA_PRIORITY, rule.priority)
        .u32(FRA_TABLE, rule.table)
        .u8(FRA_PROTOCOL, protocol);
    if but_default {
        body.u32(FRA_SUPPRESS_PREFIXLEN, 0);
    }
    if let Some(to) = rule.to {
        body.ip(FRA_DST, to.addr());
    }
    if let Some(from) = rule.from {
        body.ip(FRA_SRC, from.addr());
    }
    if let Some((mark, mask)) = rule.mark {
        body.u32(FRA_FWMARK, mark).u32(FRA_FWMASK, mask);
    }
    if let Some(device) = rule.incoming {
        body.text(FRA_IIFNAME, device.as_str());
    }
}

const HEAD: usize = 12;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
