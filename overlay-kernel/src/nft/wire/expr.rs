//! Expressions as they are written, and the numbers that both ways share.

use super::{write_value, write_verdict};
use crate::netlink::Body;
use crate::nft::expr::{Expr, Found, Register};
use crate::nft::{Limit, Log, LogTo, NatFlags, Per, Reject};

/// Writes one expression as an element of a list.
pub(super) fn write(list: &mut Body<'_>, element: u16, expr: &Expr) {
    list.nest(element, |body| {
        body.text(NAME, name(expr));
        body.nest(DATA, |data| body_of(data, expr));
    });
}

fn name(expr: &Expr) -> &str {
    match expr {
        Expr::Payload { .. } => "payload",
        Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
        Expr::Ct { .. } | Expr::SetCt { .. } => "ct",
        Expr::Fib { .. } => "fib",
        Expr::Route { .. } => "rt",
        Expr::Numgen { .. } => "numgen",
        Expr::Jhash { .. } | Expr::Symhash { .. } => "hash",
        Expr::Value { .. } | Expr::Verdict(_) => "immediate",
        Expr::Compare { .. } => "cmp",
        Expr::Range { .. } => "range",
        Expr::Bits { .. } => "bitwise",
        Expr::ToNetworkOrder { .. } => "byteorder",
        Expr::Lookup { .. } => "lookup",
        Expr::Update { .. } => "dynset",
        Expr::Nat { .. } => "nat",
        Expr::Masquerade(_) => "masq",
        Expr::Redirect { .. } => "redir",
        Expr::TransparentProxy { .. } => "tproxy",
        Expr::Reject(_) => "reject",
        Expr::Counter => "counter",
        Expr::Limit(_) => "limit",
        Expr::Log(_) => "log",
        Expr::Untracked => "notrack",
        Expr::Strange(name) => name,
    }
}

fn body_of(data: &mut Body<'_>, expr: &Expr) {
    match expr {
        Expr::Payload { .. } | Expr::Meta { .. } | Expr::Ct { .. } | Expr::Fib { .. } | Expr::Route { .. } => {
            load(data, expr);
        }
        Expr::Numgen { .. } | Expr::Jhash { .. } | Expr::Symhash { .. } | Expr::Value { .. } => load(data, expr),
        Expr::Compare { .. } | Expr::Range { .. } | Expr::Bits { .. } | Expr::ToNetworkOrder { .. } => {
            judge(data, expr);
        }
        Expr::Nat { .. } | Expr::Masquerade(_) | Expr::Redirect { .. } => translate(data, expr),
        Expr::SetMeta { from, key } => drop(data.be32(META_KEY, *key).be32(META_FROM, number(*from))),
        Expr::SetCt { from, key, direction } => {
            data.be32(CT_KEY, *key).be32(CT_FROM, number(*from));
            if let Some(direction) = direction {
                data.u8(CT_DIRECTION, *direction as u8);
            }
        }
        Expr::Verdict(verdict) => {
            data.be32(VALUE_TO, VERDICT_REGISTER);
            write_verdict(data, VALUE_DATA, verdict);
        }
        Expr::Lookup { set, from, to, negated } => {
            data.text(LOOKUP_SET, set.as_str()).be32(LOOKUP_FROM, number(*from));
            match to {
                Some(Found::Verdict) => drop(data.be32(LOOKUP_TO, VERDICT_REGISTER)),
                Some(Found::In(to)) => drop(data.be32(LOOKUP_TO, number(*to))),
                None if *negated => drop(data.be32(LOOKUP_FLAGS, LOOKUP_NEGATED)),
                None => {}
            }
        }
        Expr::Update { set, key, value, seconds } => {
            data.text(UPDATE_SET, set.as_str()).be32(UPDATE_HOW, UPDATE_KEPT);
            data.be32(UPDATE_KEY, number(*key)).be32(UPDATE_VALUE, number(*value));
            data.be64(UPDATE_TIME, u64::from(*seconds) * 1000);
        }
        Expr::TransparentProxy { ipv6, address, port } => {
            data.be32(TPROXY_FAMILY, ipv6.map_or(0, family));
            if let Some(register) = address {
                data.be32(TPROXY_ADDRESS, number(*register));
            }
            if let Some(register) = port {
                data.be32(TPROXY_PORT, number(*register));
            }
        }
        Expr::Reject(reject) => {
            let (kind, code) = match reject {
                Reject::Icmp(code) => (0, *code),
                Reject::TcpReset => (1, 0),
                Reject::Unreachable(why) => (2, *why as u8),
            };
            data.be32(REJECT_KIND, kind).u8(REJECT_CODE, code);
        }
        Expr::Limit(limit) => write_limit(data, limit),
        Expr::Log(log) => write_log(data, log),
        Expr::Counter => drop(data.be64(COUNTER_BYTES, 0).be64(COUNTER_PACKETS, 0)),
        Expr::Untracked | Expr::Strange(_) => {}
    }
}

/// What puts something into a register.
fn load(data: &mut Body<'_>, expr: &Expr) {
    match expr {
        Expr::Payload { to, base, offset, size } => {
            data.be32(PAYLOAD_TO, number(*to)).be32(PAYLOAD_BASE, *base as u32);
            data.be32(PAYLOAD_OFFSET, *offset).be32(PAYLOAD_LENGTH, *size);
        }
        Expr::Meta { to, key } => drop(data.be32(META_KEY, *key).be32(META_TO, number(*to))),
        Expr::Ct { to, key, direction } => {
            data.be32(CT_KEY, *key).be32(CT_TO, number(*to));
            if let Some(direction) = direction {
                data.u8(CT_DIRECTION, *direction as u8);
            }
        }
        Expr::Fib { to, flags } => {
            data.be32(FIB_TO, number(*to)).be32(FIB_RESULT, FIB_ADDRESS_TYPE).be32(FIB_FLAGS, *flags);
        }
        Expr::Route { to, key } => drop(data.be32(ROUTE_TO, number(*to)).be32(ROUTE_KEY, *key)),
        Expr::Numgen { to, random, modulus } => {
            data.be32(NUMGEN_TO, number(*to)).be32(NUMGEN_MODULUS, *modulus);
            data.be32(NUMGEN_KIND, u32::from(*random)).be32(NUMGEN_OFFSET, 0);
        }
        Expr::Jhash { to, from, size, modulus, seed } => {
            data.be32(HASH_FROM, number(*from)).be32(HASH_TO, number(*to)).be32(HASH_LENGTH, *size);
            data.be32(HASH_MODULUS, *modulus).be32(HASH_SEED, *seed).be32(HASH_KIND, 0);
        }
        Expr::Symhash { to, modulus } => {
            data.be32(HASH_TO, number(*to)).be32(HASH_MODULUS, *modulus).be32(HASH_KIND, HASH_SYMMETRIC);
        }
        Expr::Value { to, bytes } => {
            data.be32(VALUE_TO, number(*to));
            write_value(data, VALUE_DATA, bytes);
        }
        _ => {}
    }
}

/// What works on a register.
fn judge(data: &mut Body<'_>, expr: &Expr) {
    match expr {
        Expr::Compare { from, how, bytes } => {
            data.be32(COMPARE_FROM, number(*from)).be32(COMPARE_HOW, *how as u32);
            write_value(data, COMPARE_DATA, bytes);
        }
        Expr::Range { from, outside, low, high } => {
            data.be32(RANGE_FROM, number(*from)).be32(RANGE_HOW, u32::from(*outside));
            write_value(data, RANGE_LOW, low);
            write_value(data, RANGE_HIGH, high);
        }
        Expr::Bits { at, mask, xor } => {
            data.be32(BITS_FROM, number(*at)).be32(BITS_TO, number(*at)).be32(BITS_LENGTH, mask.len() as u32);
            write_value(data, BITS_MASK, mask);
            write_value(data, BITS_XOR, xor);
        }
        Expr::ToNetworkOrder { at, size } => {
            data.be32(ORDER_FROM, number(*at)).be32(ORDER_TO, number(*at)).be32(ORDER_HOW, ORDER_TO_NETWORK);
            data.be32(ORDER_LENGTH, *size).be32(ORDER_SIZE, *size);
        }
        _ => {}
    }
}

fn translate(data: &mut Body<'_>, expr: &Expr) {
    match expr {
        Expr::Nat { destination, ipv6, address, port, flags } => {
            data.be32(NAT_KIND, u32::from(*destination)).be32(NAT_FAMILY, family(*ipv6));
            if let Some(register) = address {
                data.be32(NAT_ADDRESS, number(*register));
            }
            if let Some(register) = port {
                data.be32(NAT_PORT, number(*register));
            }
            write_flags(data, NAT_FLAGS, *flags);
        }
        Expr::Masquerade(flags) => write_flags(data, MASQUERADE_FLAGS, *flags),
        Expr::Redirect { port, flags } => {
            if let Some(register) = port {
                data.be32(REDIRECT_PORT, number(*register));
            }
            write_flags(data, REDIRECT_FLAGS, *flags);
        }
        _ => {}
    }
}

fn write_flags(data: &mut Body<'_>, kind: u16, flags: NatFlags) {
    let bits = [(flags.random, NAT_RANDOM), (flags.persistent, NAT_PERSISTENT), (flags.fully_random, NAT_FULLY_RANDOM)];
    let bits = bits.into_iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit);
    if bits != 0 {
        data.be32(kind, bits);
    }
}

fn write_limit(data: &mut Body<'_>, limit: &Limit) {
    let seconds = Per::ALL.iter().find(|row| row.0 == limit.per).map_or(1, |row| row.1);
    data.be64(LIMIT_RATE, limit.rate).be64(LIMIT_UNIT, seconds).be32(LIMIT_BURST, limit.burst);
    data.be32(LIMIT_KIND, u32::from(limit.bytes)).be32(LIMIT_FLAGS, u32::from(limit.over));
}

fn write_log(data: &mut Body<'_>, log: &Log) {
    if !log.prefix.is_empty() {
        data.text(LOG_PREFIX, &log.prefix);
    }
    match log.to {
        LogTo::Kernel(level) => drop(data.be32(LOG_LEVEL, level.into())),
        LogTo::Group { group, bytes } => drop(data.be16(LOG_GROUP, group).be32(LOG_BYTES, bytes)),
    }
}

/// Registers of four bytes have numbers from 8 on.
fn number(register: Register) -> u32 {
    8 + u32::from(register)
}

const fn family(ipv6: bool) -> u32 {
    if ipv6 { 10 } else { 2 }
}

pub(super) const NAME: u16 = 1;
pub(super) const DATA: u16 = 2;
pub(super) const VERDICT_REGISTER: u32 = 0;
pub(super) const PAYLOAD_TO: u16 = 1;
pub(super) const PAYLOAD_BASE: u16 = 2;
pub(super) const PAYLOAD_OFFSET: u16 = 3;
pub(super) const PAYLOAD_LENGTH: u16 = 4;
pub(super) const META_TO: u16 = 1;
pub(super) const META_KEY: u16 = 2;
pub(super) const META_FROM: u16 = 3;
pub(super) const CT_TO: u16 = 1;
pub(super) const CT_KEY: u16 = 2;
pub(super) const CT_DIRECTION: u16 = 3;
pub(super) const CT_FROM: u16 = 4;
pub(super) const FIB_TO: u16 = 1;
pub(super) const FIB_RESULT: u16 = 2;
pub(super) const FIB_FLAGS: u16 = 3;
pub(super) const FIB_ADDRESS_TYPE: u32 = 3;
pub(super) const ROUTE_TO: u16 = 1;
pub(super) const ROUTE_KEY: u16 = 2;
pub(super) const NUMGEN_TO: u16 = 1;
pub(super) const NUMGEN_MODULUS: u16 = 2;
pub(super) const NUMGEN_KIND: u16 = 3;
pub(super) const NUMGEN_OFFSET: u16 = 4;
pub(super) const HASH_FROM: u16 = 1;
pub(super) const HASH_TO: u16 = 2;
pub(super) const HASH_LENGTH: u16 = 3;
pub(super) const HASH_MODULUS: u16 = 4;
pub(super) const HASH_SEED: u16 = 5;
pub(super) const HASH_OFFSET: u16 = 6;
pub(super) const HASH_KIND: u16 = 7;
pub(super) const HASH_SYMMETRIC: u32 = 1;
pub(super) const VALUE_TO: u16 = 1;
pub(super) const VALUE_DATA: u16 = 2;
pub(super) const COMPARE_FROM: u16 = 1;
pub(super) const COMPARE_HOW: u16 = 2;
pub(super) const COMPARE_DATA: u16 = 3;
pub(super) const RANGE_FROM: u16 = 1;
pub(super) const RANGE_HOW: u16 = 2;
pub(super) const RANGE_LOW: u16 = 3;
pub(super) const RANGE_HIGH: u16 = 4;
pub(super) const BITS_FROM: u16 = 1;
pub(super) const BITS_TO: u16 = 2;
pub(super) const BITS_LENGTH: u16 = 3;
pub(super) const BITS_MASK: u16 = 4;
pub(super) const BITS_XOR: u16 = 5;
pub(super) const BITS_OPERATION: u16 = 6;
pub(super) const ORDER_FROM: u16 = 1;
pub(super) const ORDER_TO: u16 = 2;
pub(super) const ORDER_HOW: u16 = 3;
pub(super) const ORDER_LENGTH: u16 = 4;
pub(super) const ORDER_SIZE: u16 = 5;
pub(super) const ORDER_TO_NETWORK: u32 = 1;
pub(super) const LOOKUP_SET: u16 = 1;
pub(super) const LOOKUP_FROM: u16 = 2;
pub(super) const LOOKUP_TO: u16 = 3;
pub(super) const LOOKUP_FLAGS: u16 = 5;
pub(super) const LOOKUP_NEGATED: u32 = 1;
pub(super) const UPDATE_SET: u16 = 1;
pub(super) const UPDATE_HOW: u16 = 3;
pub(super) const UPDATE_KEY: u16 = 4;
pub(super) const UPDATE_VALUE: u16 = 5;
pub(super) const UPDATE_TIME: u16 = 6;
pub(super) const UPDATE_EXPRESSION: u16 = 7;
pub(super) const UPDATE_FLAGS: u16 = 9;
pub(super) const UPDATE_EXPRESSIONS: u16 = 10;
pub(super) const UPDATE_KEPT: u32 = 1; // NFT_DYNSET_OP_UPDATE
pub(super) const NAT_KIND: u16 = 1;
pub(super) const NAT_FAMILY: u16 = 2;
pub(super) const NAT_ADDRESS: u16 = 3;
pub(super) const NAT_ADDRESS_LAST: u16 = 4;
pub(super) const NAT_PORT: u16 = 5;
pub(super) const NAT_PORT_LAST: u16 = 6;
pub(super) const NAT_FLAGS: u16 = 7;
pub(super) const NAT_IMPLIED: u32 = 1 | 2; // the kernel's own: addresses, ports are given
pub(super) const NAT_RANDOM: u32 = 4;
pub(super) const NAT_PERSISTENT: u32 = 8;
pub(super) const NAT_FULLY_RANDOM: u32 = 16;
pub(super) const MASQUERADE_FLAGS: u16 = 1;
pub(super) const REDIRECT_PORT: u16 = 1;
pub(super) const REDIRECT_PORT_LAST: u16 = 2;
pub(super) const REDIRECT_FLAGS: u16 = 3;
pub(super) const TPROXY_FAMILY: u16 = 1;
pub(super) const TPROXY_ADDRESS: u16 = 2;
pub(super) const TPROXY_PORT: u16 = 3;
pub(super) const REJECT_KIND: u16 = 1;
pub(super) const REJECT_CODE: u16 = 2;
pub(super) const COUNTER_BYTES: u16 = 1;
pub(super) const COUNTER_PACKETS: u16 = 2;
pub(super) const LIMIT_RATE: u16 = 1;
pub(super) const LIMIT_UNIT: u16 = 2;
pub(super) const LIMIT_BURST: u16 = 3;
pub(super) const LIMIT_KIND: u16 = 4;
pub(super) const LIMIT_FLAGS: u16 = 5;
pub(super) const LOG_GROUP: u16 = 1;
pub(super) const LOG_PREFIX: u16 = 2;
pub(super) const LOG_BYTES: u16 = 3;
pub(super) const LOG_QUEUE: u16 = 4;
pub(super) const LOG_LEVEL: u16 = 5;
pub(super) const LOG_FLAGS: u16 = 6;
