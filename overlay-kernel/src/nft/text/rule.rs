//! Rules as text: what is in each register is followed from expression to expression.

use std::collections::BTreeMap;

use super::value::{number, one};
use crate::nft::expr::{Compare, Expr, Found, Register};
use crate::nft::field::Base;
use crate::nft::rule::CT_ZONE;
use crate::nft::rule::{Rule, words};
use crate::nft::set::SetKind;
use crate::nft::value::{Type, length};
use crate::nft::{CtDirection, Family, Limit, Log, LogTo, NatFlags, Per, Reject, Table, Unreachable};

/// A rule as `nft` writes it, for a table of this family with these sets.
pub(super) fn text(family: Family, table: &Table, rule: &Rule) -> String {
    let mut writer =
        Writer { family, table, network: Network::of(family), registers: BTreeMap::new(), said: Vec::new() };
    let mut exprs = rule.exprs.iter().peekable();
    while let Some(expr) = exprs.next() {
        let next = exprs.peek().copied();
        if writer.write(expr, next) {
            exprs.next();
        }
    }
    if !rule.id.is_empty() {
        writer.said.push(format!("comment \"{}\"", rule.id));
    }
    writer.said.join(" ")
}

/// The network header that the rule has checked for, or that the table's family implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Ip,
    Ip6,
    Arp,
    Unknown,
}

impl Network {
    const fn of(family: Family) -> Self {
        match family {
            Family::Ip => Self::Ip,
            Family::Ip6 => Self::Ip6,
            Family::Inet | Family::Bridge | Family::Netdev => Self::Unknown,
        }
    }
}

/// What a register has in it.
#[derive(Debug, Clone)]
struct Content {
    text: String,
    kind: Option<Type>,
    size: usize,
    /// Of a constant, its bytes.
    bytes: Option<Vec<u8>>,
    /// What it was masked with.
    mask: Option<Vec<u8>>,
    /// Whether it was turned into the network's byte order.
    turned: bool,
}

struct Writer<'a> {
    family: Family,
    table: &'a Table,
    network: Network,
    registers: BTreeMap<Register, Content>,
    said: Vec<String>,
}

impl Writer<'_> {
    /// Writes an expression, together with the next one if it says so.
    fn write(&mut self, expr: &Expr, next: Option<&Expr>) -> bool {
        match expr {
            Expr::Compare { from, how: Compare::GreaterOrEqual, bytes } => {
                let Some(Expr::Compare { how: Compare::LessOrEqual, bytes: high, .. }) = next else {
                    self.compare(*from, Compare::GreaterOrEqual, bytes);
                    return false;
                };
                let content = self.content(*from);
                let (low, high) = (content.value(bytes), content.value(high));
                self.said.push(format!("{} {low}-{high}", content.text));
                return true;
            }
            Expr::Compare { from, how, bytes } => self.compare(*from, *how, bytes),
            Expr::Range { from, outside, low, high } => {
                let content = self.content(*from);
                let (not, low, high) = (if *outside { "!= " } else { "" }, content.value(low), content.value(high));
                self.said.push(format!("{} {not}{low}-{high}", content.text));
            }
            Expr::Bits { at, mask, .. } => {
                let mut content = self.content(*at);
                content.mask = Some(mask.to_vec());
                self.registers.insert(*at, content);
            }
            Expr::ToNetworkOrder { at, .. } => {
                let mut content = self.content(*at);
                content.turned = true;
                self.registers.insert(*at, content);
            }
            Expr::Lookup { set, from, to, negated } => self.lookup(set.as_str(), *from, *to, *negated),
            _ => {
                if let Some((to, content)) = self.load(expr) {
                    self.registers.insert(to, content);
                } else {
                    let statement = self.statement(expr);
                    self.said.push(statement);
                }
            }
        }
        false
    }

    fn content(&self, register: Register) -> Content {
        self.registers.get(&register).cloned().unwrap_or_else(|| Content::new(format!("reg {register}"), None, 4))
    }

    fn compare(&mut self, from: Register, how: Compare, bytes: &[u8]) {
        let content = self.content(from);
        if how == Compare::Equal && content.mask.is_none() {
            self.learn(&content, bytes);
        }
        let sign = match how {
            Compare::Equal => "",
            Compare::NotEqual => "!= ",
            Compare::Less => "< ",
            Compare::LessOrEqual => "<= ",
            Compare::Greater => "> ",
            Compare::GreaterOrEqual => ">= ",
        };
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        let is_bits = matches!(content.kind, Some(Type::CtState | Type::CtStatus));
        let said = match &content.mask {
            None => format!("{} {sign}{}", content.text, content.value(bytes)),
            Some(mask) if is_bits && is_zero && how == Compare::NotEqual => {
                format!("{} {}", content.text, one(content.kind, mask))
            }
            Some(mask) if is_bits && is_zero && how == Compare::Equal => {
                format!("{} ! {}", content.text, one(content.kind, mask))
            }
            Some(mask) if matches!(content.kind, Some(Type::Ipv4 | Type::Ipv6)) => {
                let len: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                format!("{} {sign}{}/{len}", content.text, one(content.kind, bytes))
            }
            Some(mask) => {
                let sign = if how == Compare::Equal { "== " } else { sign };
                format!("{} & {} {sign}{}", content.text, content.value(mask), content.value(bytes))
            }
        };
        self.said.push(said);
    }

    /// What follows from a comparison for the headers that are there.
    fn learn(&mut self, content: &Content, bytes: &[u8]) {
        self.network = match (content.text.as_str(), bytes) {
            ("meta nfproto", [2]) | ("meta protocol" | "ether type", [0x08, 0x00]) => Network::Ip,
            ("meta nfproto", [10]) | ("meta protocol" | "ether type", [0x86, 0xdd]) => Network::Ip6,
            ("meta protocol" | "ether type", [0x08, 0x06]) => Network::Arp,
            _ => self.network,
        };
    }

    fn lookup(&mut self, name: &str, from: Register, to: Option<Found>, negated: bool) {
        let set = self.table.sets.get(name);
        let size = set.map_or(4, |set| length(&set.head.key));
        let key = self.joined(from, size);
        match to {
            None if negated => self.said.push(format!("{key} != @{name}")),
            None => self.said.push(format!("{key} @{name}")),
            Some(Found::Verdict) => self.said.push(format!("{key} vmap @{name}")),
            Some(Found::In(to)) => {
                let kind = match set.map(|set| &set.head.kind) {
                    Some(SetKind::Map(types)) => types.first().copied(),
                    _ => None,
                };
                self.registers.insert(to, Content::new(format!("{key} map @{name}"), kind, 4));
            }
        }
    }

    /// What is in registers from one on, as a concatenation of so many bytes.
    fn joined(&self, from: Register, size: usize) -> String {
        let (mut at, mut parts) = (from, Vec::new());
        while at < from + words(size) {
            let content = self.content(at);
            at += words(content.size).max(1);
            parts.push(content.masked_text());
        }
        parts.join(" . ")
    }

    /// What an expression puts into which register, if it does.
    fn load(&self, expr: &Expr) -> Option<(Register, Content)> {
        Some(match expr {
            Expr::Payload { to, base, offset, size } => (*to, self.payload(*base, *offset as usize, *size as usize)),
            Expr::Meta { to, key } => {
                let (name, kind) =
                    META.iter().find(|row| row.0 == *key).map_or(("?", None), |row| (row.1, Some(row.2)));
                (
                    *to,
                    Content::new(
                        format!("{}{name}", if *key == 6 || *key == 7 { "" } else { "meta " }),
                        kind,
                        kind.map_or(4, Type::size),
                    ),
                )
            }
            Expr::Ct { to, key, direction } => (*to, ct(*key, *direction)),
            Expr::Fib { to, flags } => {
                let what = if *flags == 1 { "saddr" } else { "daddr" };
                (*to, Content::new(format!("fib {what} type"), Some(Type::AddressType), 4))
            }
            Expr::Route { to, .. } => (*to, Content::new("rt ipsec".to_owned(), Some(Type::Bool), 1)),
            Expr::Numgen { to, random, modulus } => {
                let how = if *random { "random" } else { "inc" };
                (*to, Content::new(format!("numgen {how} mod {modulus}"), None, 4).of_host())
            }
            Expr::Jhash { to, from, size, modulus, seed } => {
                let of = self.joined(*from, *size as usize);
                (*to, Content::new(format!("jhash {of} mod {modulus} seed {seed:#x}"), None, 4).of_host())
            }
            Expr::Symhash { to, modulus } => (*to, Content::new(format!("symhash mod {modulus}"), None, 4).of_host()),
            Expr::Value { to, bytes } => {
                (*to, Content { bytes: Some(bytes.to_vec()), ..Content::new(number(bytes), None, bytes.len()) })
            }
            _ => return None,
        })
    }

    /// A field by its name where the rule has said which header it is in; else by its place.
    fn payload(&self, base: Base, offset: usize, size: usize) -> Content {
        let link = matches!(self.family, Family::Bridge | Family::Netdev);
        let fields: &[(usize, &str, Type)] = match (base, self.network) {
            (Base::Link, _) if link => &LINK,
            (Base::Network, Network::Ip) => &IP,
            (Base::Network, Network::Ip6) => &IP6,
            (Base::Network, Network::Arp) => &ARP,
            (Base::Transport, _) => &TRANSPORT,
            _ => &[],
        };
        let named = fields.iter().find(|row| row.0 == offset && row.2.size() == size);
        let network_prefix =
            || fields.iter().find(|row| row.0 == offset && row.2.size() > size && self.network != Network::Arp);
        if let Some((_, name, kind)) = named.or_else(network_prefix) {
            return Content::new((*name).to_owned(), Some(*kind), size);
        }
        let from = ["ll", "nh", "th"][base as usize];
        Content::new(format!("@{from},{},{}", offset * 8, size * 8), None, size)
    }

    fn statement(&self, expr: &Expr) -> String {
        match expr {
            Expr::SetMeta { from, .. } => format!("meta mark set {}", self.content(*from).as_value(Type::Mark)),
            Expr::SetCt { from, key: CT_ZONE, .. } => {
                format!("ct original zone set {}", self.content(*from).as_value(Type::Mark))
            }
            Expr::SetCt { from, .. } => format!("ct mark set {}", self.content(*from).as_value(Type::Mark)),
            Expr::Update { set, key, value, seconds } => self.update(set.as_str(), (*key, *value), *seconds),
            Expr::Verdict(verdict) => verdict.to_string(),
            Expr::Nat { destination, ipv6, address, port, flags } => {
                let what = if *destination { "dnat" } else { "snat" };
                let place = self.place(*ipv6, *address, *port);
                format!("{what}{}{place}{}", self.of_family(*ipv6), flags_text(*flags))
            }
            Expr::Masquerade(flags) => format!("masquerade{}", flags_text(*flags)),
            Expr::Redirect { port, flags } => {
                let to =
                    port.map_or_else(String::new, |port| format!(" to :{}", self.content(port).as_value(Type::Port)));
                format!("redirect{to}{}", flags_text(*flags))
            }
            Expr::TransparentProxy { ipv6, address, port } => {
                let family = ipv6.map_or("", |ipv6| self.of_family(ipv6));
                format!("tproxy{family}{}", self.place(ipv6.unwrap_or(false), *address, *port))
            }
            Expr::Reject(reject) => reject_text(self.family, *reject),
            Expr::Counter => "counter".to_owned(),
            Expr::Limit(limit) => limit_text(limit),
            Expr::Log(log) => log_text(log),
            Expr::Untracked => "notrack".to_owned(),
            other => format!("<{other:?}>"),
        }
    }

    fn update(&self, name: &str, (key, value): (Register, Register), seconds: u32) -> String {
        let set = self.table.sets.get(name);
        let keys = set.map_or(4, |set| length(&set.head.key));
        let values = match set.map(|set| &set.head.kind) {
            Some(SetKind::Map(types)) => length(types),
            _ => 4,
        };
        let (key, value) = (self.joined(key, keys), self.joined(value, values));
        format!("update @{name} {{ {key} timeout {seconds}s : {value} }}")
    }

    /// `ip` or `ip6` where the table does not say it.
    const fn of_family(&self, ipv6: bool) -> &'static str {
        match (self.family, ipv6) {
            (Family::Ip | Family::Ip6, _) => "",
            (_, true) => " ip6",
            (_, false) => " ip",
        }
    }

    /// Where a translation leads: ` to 10.0.0.1:80`, ` addr . port to KEY map @NAME`.
    fn place(&self, ipv6: bool, address: Option<Register>, port: Option<Register>) -> String {
        let kind = if ipv6 { Type::Ipv6 } else { Type::Ipv4 };
        let content = address.map(|address| self.content(address));
        if let Some(mapped) = content.as_ref().filter(|content| content.bytes.is_none()) {
            let both = if port.is_some() { " addr . port" } else { "" };
            let family = if both.is_empty() || self.family == Family::Inet {
                ""
            } else if ipv6 {
                " ip6"
            } else {
                " ip"
            };
            return format!("{family}{both} to {}", mapped.text);
        }
        let address = content.map_or_else(String::new, |content| content.as_value(kind));
        match port.map(|port| self.content(port).as_value(Type::Port)) {
            Some(port) if ipv6 && !address.is_empty() => format!(" to [{address}]:{port}"),
            Some(port) => format!(" to {address}:{port}"),
            None => format!(" to {address}"),
        }
    }
}

impl Content {
    const fn new(text: String, kind: Option<Type>, size: usize) -> Self {
        Self { text, kind, size, bytes: None, mask: None, turned: false }
    }

    /// A number in this machine's order.
    fn of_host(self) -> Self {
        Self { kind: Some(Type::Mark), ..self }
    }

    /// A value that it is compared with; one of fewer bytes is a prefix.
    fn value(&self, bytes: &[u8]) -> String {
        if self.turned && cfg!(target_endian = "little") {
            return one(self.kind, &bytes.iter().rev().copied().collect::<Vec<_>>());
        }
        match self.kind {
            Some(Type::IfName) if bytes.len() < 16 => format!("\"{}*\"", String::from_utf8_lossy(bytes)),
            Some(kind) if bytes.len() < kind.size() => {
                let mut whole = bytes.to_vec();
                whole.resize(kind.size(), 0);
                format!("{}/{}", one(self.kind, &whole), bytes.len() * 8)
            }
            _ => one(self.kind, bytes),
        }
    }

    /// Itself where it is used as a value of this type.
    fn as_value(&self, kind: Type) -> String {
        self.bytes.as_ref().map_or_else(|| self.masked_text(), |bytes| one(Some(kind), bytes))
    }

    fn masked_text(&self) -> String {
        match &self.mask {
            Some(mask) => format!("{} & {}", self.text, self.value(mask)),
            None => self.text.clone(),
        }
    }
}

fn ct(key: u32, direction: Option<CtDirection>) -> Content {
    let (name, kind) = CT.iter().find(|row| row.0 == key).map_or(("?", Type::Mark), |row| (row.1, row.2));
    let which = match direction {
        None => "",
        Some(CtDirection::Original) => "original ",
        Some(CtDirection::Reply) => "reply ",
    };
    Content::new(format!("ct {which}{name}"), Some(kind), kind.size())
}

fn flags_text(flags: NatFlags) -> String {
    let names = [(flags.random, "random"), (flags.fully_random, "fully-random"), (flags.persistent, "persistent")];
    let names: Vec<_> = names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
    if names.is_empty() { String::new() } else { format!(" {}", names.join(",")) }
}

fn reject_text(family: Family, reject: Reject) -> String {
    let why = |names: &[(u8, &'static str)], code: u8| {
        names.iter().find(|row| row.0 == code).map_or_else(|| code.to_string(), |row| row.1.to_owned())
    };
    match reject {
        Reject::TcpReset => "reject with tcp reset".to_owned(),
        Reject::Unreachable(Unreachable::NoRoute) => "reject with icmpx no-route".to_owned(),
        Reject::Unreachable(Unreachable::Port) => "reject with icmpx port-unreachable".to_owned(),
        Reject::Unreachable(Unreachable::Host) => "reject with icmpx host-unreachable".to_owned(),
        Reject::Unreachable(Unreachable::Prohibited) => "reject with icmpx admin-prohibited".to_owned(),
        Reject::Icmp(code) if family == Family::Ip6 => format!("reject with icmpv6 {}", why(&ICMP6, code)),
        Reject::Icmp(code) => format!("reject with icmp {}", why(&ICMP, code)),
    }
}

fn limit_text(limit: &Limit) -> String {
    let per = Per::ALL.iter().find(|row| row.0 == limit.per).map_or("second", |row| row.2);
    let over = if limit.over { "over " } else { "" };
    match (limit.bytes, limit.burst) {
        (true, 0) => format!("limit rate {over}{} bytes/{per}", limit.rate),
        (true, burst) => format!("limit rate {over}{} bytes/{per} burst {burst} bytes", limit.rate),
        (false, burst) => format!("limit rate {over}{}/{per} burst {burst} packets", limit.rate),
    }
}

fn log_text(log: &Log) -> String {
    let prefix = if log.prefix.is_empty() { String::new() } else { format!(" prefix \"{}\"", log.prefix) };
    match log.to {
        LogTo::Kernel(level) => {
            let level = LEVELS.get(usize::from(level)).copied().unwrap_or("?");
            format!("log{prefix} level {level}")
        }
        LogTo::Group { group, bytes: 0 } => format!("log{prefix} group {group}"),
        LogTo::Group { group, bytes } => format!("log{prefix} group {group} snaplen {bytes}"),
    }
}

const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
const ICMP: [(u8, &str); 7] = [
    (0, "net-unreachable"),
    (1, "host-unreachable"),
    (2, "prot-unreachable"),
    (3, "port-unreachable"),
    (9, "net-prohibited"),
    (10, "host-prohibited"),
    (13, "admin-prohibited"),
];
const ICMP6: [(u8, &str); 6] = [
    (0, "no-route"),
    (1, "admin-prohibited"),
    (3, "addr-unreachable"),
    (4, "port-unreachable"),
    (5, "policy-fail"),
    (6, "reject-route"),
];
const META: [(u32, &str, Type); 10] = [
    (1, "protocol", Type::EtherType),
    (3, "mark", Type::Mark),
    (4, "iif", Type::IfIndex),
    (5, "oif", Type::IfIndex),
    (6, "iifname", Type::IfName),
    (7, "oifname", Type::IfName),
    (15, "nfproto", Type::NfProto),
    (16, "l4proto", Type::IpProtocol),
    (19, "pkttype", Type::PacketType),
    (25, "ipsec", Type::Bool),
];
const CT: [(u32, &str, Type); 11] = [
    (0, "state", Type::CtState),
    (1, "direction", Type::CtDirection),
    (2, "status", Type::CtStatus),
    (3, "mark", Type::Mark),
    (10, "protocol", Type::IpProtocol),
    (11, "proto-src", Type::Port),
    (12, "proto-dst", Type::Port),
    (19, "ip saddr", Type::Ipv4),
    (20, "ip daddr", Type::Ipv4),
    (21, "ip6 saddr", Type::Ipv6),
    (22, "ip6 daddr", Type::Ipv6),
];
const LINK: [(usize, &str, Type); 3] =
    [(0, "ether daddr", Type::Mac), (6, "ether saddr", Type::Mac), (12, "ether type", Type::EtherType)];
const IP: [(usize, &str, Type); 3] =
    [(9, "ip protocol", Type::IpProtocol), (12, "ip saddr", Type::Ipv4), (16, "ip daddr", Type::Ipv4)];
const IP6: [(usize, &str, Type); 3] =
    [(6, "ip6 nexthdr", Type::IpProtocol), (8, "ip6 saddr", Type::Ipv6), (24, "ip6 daddr", Type::Ipv6)];
const ARP: [(usize, &str, Type); 5] = [
    (6, "arp operation", Type::ArpOp),
    (8, "arp saddr ether", Type::Mac),
    (14, "arp saddr ip", Type::Ipv4),
    (18, "arp daddr ether", Type::Mac),
    (24, "arp daddr ip", Type::Ipv4),
];
const TRANSPORT: [(usize, &str, Type); 2] = [(0, "th sport", Type::Port), (2, "th dport", Type::Port)];
