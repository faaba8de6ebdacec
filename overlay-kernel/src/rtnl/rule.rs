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

/// Reads a rule that we made; nothing for others.
pub(crate) fn parse(message: &Message<'_>, site: &Site) -> Result<Option<Rule>, Malformed> {
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
    let (mut ours, mut mask) = (false, u32::MAX);
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
            FRA_PROTOCOL => ours = attribute.u8()? == PROTOCOL,
            _ => {}
        }
    }
    rule.mark = rule.mark.map(|(mark, _)| (mark, mask));
    Ok((ours && action == FR_ACT_TO_TBL).then_some(rule))
}

/// Adds a rule.
pub(crate) fn add(requests: &mut Requests, rule: &Rule) {
    requests.add(RTM_NEWRULE, Flags::CREATE | Flags::EXCLUSIVE, |body| write(body, rule));
}

/// Removes a rule.
pub(crate) fn remove(requests: &mut Requests, rule: &Rule) {
    requests.add(RTM_DELRULE, Flags::NONE, |body| write(body, rule));
}

fn write(body: &mut Body<'_>, rule: &Rule) {
    let len = |net: Option<IpNet>| net.map_or(0, |net| net.prefix_len());
    body.raw(&[af(rule.family), len(rule.to), len(rule.from), 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0])
        .u32(FRA_PRIORITY, rule.priority)
        .u32(FRA_TABLE, rule.table)
        .u8(FRA_PROTOCOL, PROTOCOL);
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
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
