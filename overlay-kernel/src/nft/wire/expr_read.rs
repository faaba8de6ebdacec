//! Expressions as they are read. Whatever is not exactly one that we write is strange, so that a state with one of them
//! equals none that is wanted.

use std::collections::BTreeMap;

use super::expr::*;
use super::{Data, read_data};
use crate::netlink::{Attribute, Attributes, Malformed};
use crate::nft::expr::{Compare, Expr, Found, Register};
use crate::nft::field::Base;
use crate::nft::value::Bytes;
use crate::nft::{CtDirection, Limit, Log, LogTo, NatFlags, Per, Reading, Reject, Unreachable, Verdict};

/// Reads one expression; a counter's value goes to `counters`.
pub(super) fn read(attributes: Attributes<'_>, counters: &mut Vec<Reading>) -> Result<Expr, Malformed> {
    let (mut name, mut data) = ("", Attributes::new(&[]));
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NAME => name = attribute.text()?,
            DATA => data = attribute.nested(),
            _ => {}
        }
    }
    let mut fields = Fields::default();
    for attribute in data {
        let attribute = attribute?;
        fields.0.insert(attribute.kind, attribute);
    }
    if name == "counter" {
        let word = |kind: u16| fields.0.get(&kind).and_then(|value| value.be64().ok()).unwrap_or(0);
        counters.push(Reading { packets: word(COUNTER_PACKETS), bytes: word(COUNTER_BYTES) });
    }
    let strange = || Expr::Strange(format!("{name} {fields:?}").into());
    Ok(known(name, &fields).unwrap_or_else(strange))
}

/// An expression's attributes by kind.
#[derive(Default)]
struct Fields<'a>(BTreeMap<u16, Attribute<'a>>);

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(kind, attribute)| (kind, attribute.value))).finish()
    }
}

impl Fields<'_> {
    fn word(&self, kind: u16) -> Option<u32> {
        self.0.get(&kind)?.be32().ok()
    }

    fn wide(&self, kind: u16) -> Option<u64> {
        self.0.get(&kind)?.be64().ok()
    }

    /// The number if it is there; 0 if it is not.
    fn word_or_none(&self, kind: u16) -> u32 {
        self.word(kind).unwrap_or(0)
    }

    /// A register: those of sixteen bytes have the numbers 1 to 4, those of four bytes 8 to 23.
    fn register(&self, kind: u16) -> Option<Register> {
        match self.word(kind)? {
            wide @ 1..=4 => Register::try_from((wide - 1) * 4).ok(),
            word @ 8..=23 => Register::try_from(word - 8).ok(),
            _ => None,
        }
    }

    /// A register that may be missing.
    fn maybe(&self, kind: u16) -> Option<Option<Register>> {
        if self.has(kind) { self.register(kind).map(Some) } else { Some(None) }
    }

    fn has(&self, kind: u16) -> bool {
        self.0.contains_key(&kind)
    }

    fn value(&self, kind: u16) -> Option<Bytes> {
        match read_data(self.0.get(&kind)?.nested()) {
            Ok(Data::Value(value)) => Some(Bytes::new(value)),
            _ => None,
        }
    }

    fn verdict(&self, kind: u16) -> Option<Verdict> {
        match read_data(self.0.get(&kind)?.nested()) {
            Ok(Data::Verdict(verdict)) => Some(verdict),
            _ => None,
        }
    }
}

fn known(name: &str, fields: &Fields<'_>) -> Option<Expr> {
    match name {
        "payload" => payload(fields),
        "meta" if fields.has(META_FROM) => {
            Some(Expr::SetMeta { from: fields.register(META_FROM)?, key: fields.word(META_KEY)? })
        }
        "meta" => Some(Expr::Meta { to: fields.register(META_TO)?, key: fields.word(META_KEY)? }),
        "ct" => ct(fields),
        "fib" if fields.word(FIB_RESULT)? == FIB_ADDRESS_TYPE => {
            Some(Expr::Fib { to: fields.register(FIB_TO)?, flags: fields.word(FIB_FLAGS)? })
        }
        "rt" => Some(Expr::Route { to: fields.register(ROUTE_TO)?, key: fields.word(ROUTE_KEY)? }),
        "numgen" => numgen(fields),
        "hash" => hash(fields),
        "immediate" if fields.word(VALUE_TO)? == VERDICT_REGISTER => fields.verdict(VALUE_DATA).map(Expr::Verdict),
        "immediate" => Some(Expr::Value { to: fields.register(VALUE_TO)?, bytes: fields.value(VALUE_DATA)? }),
        "cmp" => compare(fields),
        "range" => range(fields),
        "bitwise" => bits(fields),
        "byteorder" => order(fields),
        "lookup" => lookup(fields),
        "dynset" => update(fields),
        "nat" | "masq" | "redir" => translation(name, fields),
        "tproxy" => tproxy(fields),
        "reject" => reject(fields),
        "counter" => Some(Expr::Counter),
        "limit" => limit(fields),
        "log" => log(fields),
        "notrack" => Some(Expr::Untracked),
        _ => None,
    }
}

fn payload(fields: &Fields<'_>) -> Option<Expr> {
    let base = match fields.word(PAYLOAD_BASE)? {
        0 => Base::Link,
        1 => Base::Network,
        2 => Base::Transport,
        _ => return None,
    };
    let (offset, size) = (fields.word(PAYLOAD_OFFSET)?, fields.word(PAYLOAD_LENGTH)?);
    Some(Expr::Payload { to: fields.register(PAYLOAD_TO)?, base, offset, size })
}

fn ct(fields: &Fields<'_>) -> Option<Expr> {
    let key = fields.word(CT_KEY)?;
    let direction = match fields.0.get(&CT_DIRECTION).map(Attribute::u8) {
        None => None,
        Some(Ok(0)) => Some(CtDirection::Original),
        Some(Ok(1)) => Some(CtDirection::Reply),
        Some(_) => return None,
    };
    match fields.register(CT_FROM) {
        Some(from) => Some(Expr::SetCt { from, key, direction }),
        None => Some(Expr::Ct { to: fields.register(CT_TO)?, key, direction }),
    }
}

fn numgen(fields: &Fields<'_>) -> Option<Expr> {
    let random = match fields.word(NUMGEN_KIND)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let plain = fields.word_or_none(NUMGEN_OFFSET) == 0;
    let (to, modulus) = (fields.register(NUMGEN_TO)?, fields.word(NUMGEN_MODULUS)?);
    plain.then_some(Expr::Numgen { to, random, modulus })
}

fn hash(fields: &Fields<'_>) -> Option<Expr> {
    let (to, modulus) = (fields.register(HASH_TO)?, fields.word(HASH_MODULUS)?);
    let plain = fields.word_or_none(HASH_OFFSET) == 0;
    if fields.word_or_none(HASH_KIND) == HASH_SYMMETRIC {
        return plain.then_some(Expr::Symhash { to, modulus });
    }
    let (from, size, seed) = (fields.register(HASH_FROM)?, fields.word(HASH_LENGTH)?, fields.word(HASH_SEED)?);
    plain.then_some(Expr::Jhash { to, from, size, modulus, seed })
}

fn compare(fields: &Fields<'_>) -> Option<Expr> {
    let how = match fields.word(COMPARE_HOW)? {
        0 => Compare::Equal,
        1 => Compare::NotEqual,
        2 => Compare::Less,
        3 => Compare::LessOrEqual,
        4 => Compare::Greater,
        5 => Compare::GreaterOrEqual,
        _ => return None,
    };
    Some(Expr::Compare { from: fields.register(COMPARE_FROM)?, how, bytes: fields.value(COMPARE_DATA)? })
}

fn range(fields: &Fields<'_>) -> Option<Expr> {
    let outside = match fields.word(RANGE_HOW)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (low, high) = (fields.value(RANGE_LOW)?, fields.value(RANGE_HIGH)?);
    Some(Expr::Range { from: fields.register(RANGE_FROM)?, outside, low, high })
}

fn bits(fields: &Fields<'_>) -> Option<Expr> {
    let at = fields.register(BITS_FROM)?;
    let plain = fields.register(BITS_TO)? == at && fields.word_or_none(BITS_OPERATION) == 0;
    let (mask, xor) = (fields.value(BITS_MASK)?, fields.value(BITS_XOR)?);
    plain.then_some(Expr::Bits { at, mask, xor })
}

fn order(fields: &Fields<'_>) -> Option<Expr> {
    let (at, size) = (fields.register(ORDER_FROM)?, fields.word(ORDER_SIZE)?);
    let plain = fields.register(ORDER_TO)? == at
        && fields.word(ORDER_HOW)? == ORDER_TO_NETWORK
        && fields.word(ORDER_LENGTH)? == size;
    plain.then_some(Expr::ToNetworkOrder { at, size })
}

fn lookup(fields: &Fields<'_>) -> Option<Expr> {
    let set = fields.0.get(&LOOKUP_SET)?.text().ok()?.parse().ok()?;
    let negated = match fields.word_or_none(LOOKUP_FLAGS) {
        0 => false,
        LOOKUP_NEGATED => true,
        _ => return None,
    };
    let to = match fields.word(LOOKUP_TO) {
        None => None,
        Some(VERDICT_REGISTER) => Some(Found::Verdict),
        Some(_) => Some(Found::In(fields.register(LOOKUP_TO)?)),
    };
    Some(Expr::Lookup { set, from: fields.register(LOOKUP_FROM)?, to, negated })
}

fn update(fields: &Fields<'_>) -> Option<Expr> {
    let set = fields.0.get(&UPDATE_SET)?.text().ok()?.parse().ok()?;
    let plain = fields.word(UPDATE_HOW)? == UPDATE_KEPT
        && fields.word_or_none(UPDATE_FLAGS) == 0
        && !fields.has(UPDATE_EXPRESSION)
        && !fields.has(UPDATE_EXPRESSIONS);
    let time = fields.wide(UPDATE_TIME)?;
    let seconds = u32::try_from(time / 1000).ok().filter(|_| time.is_multiple_of(1000))?;
    let (key, value) = (fields.register(UPDATE_KEY)?, fields.register(UPDATE_VALUE)?);
    plain.then_some(Expr::Update { set, key, value, seconds })
}

fn translation(name: &str, fields: &Fields<'_>) -> Option<Expr> {
    match name {
        "nat" => {
            let destination = match fields.word(NAT_KIND)? {
                0 => false,
                1 => true,
                _ => return None,
            };
            let (address, port) = (fields.maybe(NAT_ADDRESS)?, fields.maybe(NAT_PORT)?);
            // The kernel tells the last of a range also where there is none.
            let single = fields.maybe(NAT_ADDRESS_LAST)?.is_none_or(|last| Some(last) == address)
                && fields.maybe(NAT_PORT_LAST)?.is_none_or(|last| Some(last) == port);
            let ipv6 = read_family(fields.word(NAT_FAMILY)?)?;
            let flags = flags(fields, NAT_FLAGS)?;
            single.then_some(Expr::Nat { destination, ipv6, address, port, flags })
        }
        "masq" if fields.has(2) || fields.has(3) => None, // with ports
        "masq" => flags(fields, MASQUERADE_FLAGS).map(Expr::Masquerade),
        _ => {
            let port = fields.maybe(REDIRECT_PORT)?;
            let single = fields.maybe(REDIRECT_PORT_LAST)?.is_none_or(|last| Some(last) == port);
            let flags = flags(fields, REDIRECT_FLAGS)?;
            single.then_some(Expr::Redirect { port, flags })
        }
    }
}

fn flags(fields: &Fields<'_>, kind: u16) -> Option<NatFlags> {
    let bits = fields.word_or_none(kind) & !NAT_IMPLIED;
    let flags = NatFlags {
        random: bits & NAT_RANDOM != 0,
        persistent: bits & NAT_PERSISTENT != 0,
        fully_random: bits & NAT_FULLY_RANDOM != 0,
    };
    (bits & !(NAT_RANDOM | NAT_PERSISTENT | NAT_FULLY_RANDOM) == 0).then_some(flags)
}

const fn read_family(number: u32) -> Option<bool> {
    match number {
        2 => Some(false),
        10 => Some(true),
        _ => None,
    }
}

fn tproxy(fields: &Fields<'_>) -> Option<Expr> {
    let ipv6 = match fields.word(TPROXY_FAMILY)? {
        0 => None,
        number => Some(read_family(number)?),
    };
    let (address, port) = (fields.maybe(TPROXY_ADDRESS)?, fields.maybe(TPROXY_PORT)?);
    Some(Expr::TransparentProxy { ipv6, address, port })
}

fn reject(fields: &Fields<'_>) -> Option<Expr> {
    let code = fields.0.get(&REJECT_CODE).and_then(|code| code.u8().ok()).unwrap_or(0);
    let reject = match (fields.word(REJECT_KIND)?, code) {
        (0, code) => Reject::Icmp(code),
        (1, _) => Reject::TcpReset,
        (2, 0) => Reject::Unreachable(Unreachable::NoRoute),
        (2, 1) => Reject::Unreachable(Unreachable::Port),
        (2, 2) => Reject::Unreachable(Unreachable::Host),
        (2, 3) => Reject::Unreachable(Unreachable::Prohibited),
        _ => return None,
    };
    Some(Expr::Reject(reject))
}

fn limit(fields: &Fields<'_>) -> Option<Expr> {
    let seconds = fields.wide(LIMIT_UNIT)?;
    let per = Per::ALL.iter().find(|row| row.1 == seconds)?.0;
    let (bytes, over) = (fields.word_or_none(LIMIT_KIND), fields.word_or_none(LIMIT_FLAGS));
    let limit = Limit {
        rate: fields.wide(LIMIT_RATE)?,
        per,
        burst: fields.word_or_none(LIMIT_BURST),
        bytes: bytes == 1,
        over: over == 1,
    };
    (bytes <= 1 && over <= 1).then_some(Expr::Limit(limit))
}

fn log(fields: &Fields<'_>) -> Option<Expr> {
    let prefix = match fields.0.get(&LOG_PREFIX) {
        Some(prefix) => prefix.text().ok()?.into(),
        None => Box::default(),
    };
    let to = match fields.0.get(&LOG_GROUP) {
        Some(group) if fields.word_or_none(LOG_QUEUE) == 0 => {
            LogTo::Group { group: group.be16().ok()?, bytes: fields.word_or_none(LOG_BYTES) }
        }
        Some(_) => return None,
        None => LogTo::Kernel(fields.word(LOG_LEVEL)?.try_into().ok()?),
    };
    (fields.word_or_none(LOG_FLAGS) == 0).then_some(Expr::Log(Log { prefix, to }))
}
