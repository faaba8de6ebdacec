//! What a native state must be for the kernel to hold exactly it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use overlay_core::{Name, Refusal};

use super::expr::{Expr, Found};
use super::rule::Gives;
use super::set::{Datum, Form, SetKind};
use super::value::{Bytes, Type, length};
use super::{
    Base, Chain, ChainKind, Family, Hook, Limit, Log, LogTo, Policy, Reject, Rule, Set, State, Table, TableKey, Verdict,
};

/// Refuses what no kernel could hold as it stands, by name.
pub(super) fn state(state: &State) -> Result<(), Refusal> {
    state.tables.iter().try_for_each(|(key, table)| self::table(key, table))
}

fn table(key: &TableKey, table: &Table) -> Result<(), Refusal> {
    let object = format!("table {key}");
    named(&object, &key.name)?;
    if let Some(what) = table.strange.first() {
        return Err(refuse(&object, what, &"what is strange is only observed"));
    }
    for (name, set) in &table.sets {
        self::set(&format!("set {key} {name}"), (name, set), table)?;
    }
    for (name, chain) in &table.chains {
        let object = format!("chain {key} {name}");
        named(&object, name)?;
        if chain.open && *chain != Chain::open() {
            return Err(refuse(&object, &"rules or a hook", &"what is in an open chain is somebody else's"));
        }
        if let Some(base) = &chain.base {
            self::base(&object, key.family, base)?;
        }
        for rule in &chain.rules {
            rule_stands(key.family, chain.base.as_ref(), rule)
                .and_then(|()| leads_somewhere(table, rule))
                .map_err(|(wanted, reason)| refuse(&format!("rule {:?} of {object}", rule.id), &wanted, &reason))?;
        }
    }
    let ahead = ahead(table);
    jumps(&object, table, &ahead)?;
    table.chains.iter().try_for_each(|(name, chain)| match &chain.base {
        Some(base) => reached(key, table, (name, base), &ahead),
        None => Ok(()),
    })
}

/// What a regular chain does must be possible at every base chain that leads to it.
fn reached(key: &TableKey, table: &Table, (from, base): (&Name, &Base), ahead: &Ahead<'_>) -> Result<(), Refusal> {
    let (mut seen, mut next) = (BTreeSet::from([from]), vec![from]);
    while let Some(name) = next.pop() {
        next.extend(ahead.get(name).into_iter().flatten().filter(|name| seen.insert(name)));
        let rules = table.chains.get(name).into_iter().flat_map(|chain| &chain.rules).filter(|_| name != from);
        for rule in rules {
            rule_stands(key.family, Some(base), rule).map_err(|(wanted, reason)| {
                refuse(&format!("rule {:?} of chain {key} {name}, reached from {from}", rule.id), &wanted, &reason)
            })?;
        }
    }
    Ok(())
}

/// A name that `nft` can read back: it takes no digit for a first letter.
fn named(object: &str, name: &Name) -> Result<(), Refusal> {
    match name.as_str().chars().next() {
        Some(first) if first.is_ascii_alphabetic() => Ok(()),
        _ => Err(refuse(&object, &name, &"names in nf_tables begin with a letter")),
    }
}

/// What is wrong, and why.
type Wrong = (String, &'static str);

fn wrong(wanted: impl Display, reason: &'static str) -> Result<(), Wrong> {
    Err((wanted.to_string(), reason))
}

fn base(object: &str, family: Family, base: &Base) -> Result<(), Refusal> {
    let of_a_device = base.hook.is_of_a_device();
    let hook = base.hook.text();
    if of_a_device != (family == Family::Netdev) {
        return Err(refuse(&object, &hook, &"netdev has the hooks ingress and egress, the others have not"));
    }
    if of_a_device && base.devices.is_empty() {
        return Err(refuse(&object, &hook, &"it needs a device"));
    }
    if base.devices.len() > DEVICES {
        return Err(refuse(&object, &format!("{} devices", base.devices.len()), &"a chain has 256 at most"));
    }
    if !of_a_device && !base.devices.is_empty() {
        return Err(refuse(&object, &"devices", &"only netdev's chains have some"));
    }
    let routed = matches!(family, Family::Ip | Family::Ip6 | Family::Inet);
    match base.kind {
        ChainKind::Filter => Ok(()),
        ChainKind::Nat | ChainKind::Route if !routed => {
            Err(refuse(&object, &base.kind.text(), &"only ip, ip6 and inet translate and route"))
        }
        ChainKind::Nat if base.hook == Hook::Forward => Err(refuse(
            &object,
            &"nat at forward",
            &"sources are translated at postrouting, destinations at prerouting",
        )),
        ChainKind::Nat if base.priority <= -200 => {
            Err(refuse(&object, &format!("priority {}", base.priority), &"a flow is known after -200 only"))
        }
        ChainKind::Nat if base.policy == Policy::Drop => {
            Err(refuse(&object, &"policy drop", &"a translation that drops is no filter: it sees first packets only"))
        }
        ChainKind::Route if base.hook != Hook::Output => {
            Err(refuse(&object, &format!("route at {hook}"), &"only output is routed anew"))
        }
        ChainKind::Nat | ChainKind::Route => Ok(()),
    }
}

pub(super) fn id(id: &str) -> Result<(), Refusal> {
    let is_plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    match id.len() {
        1..=Rule::MAX_ID if id.chars().all(is_plain) => Ok(()),
        _ => {
            Err(refuse(&"rule", &format!("id {id:?}"), &"an id has 1 to 120 printable ASCII characters, not \" or \\"))
        }
    }
}

fn rule_stands(family: Family, base: Option<&Base>, rule: &Rule) -> Result<(), Wrong> {
    if id(&rule.id).is_err() {
        return wrong("its id", "it was observed, not built");
    }
    let last = rule.exprs.len().saturating_sub(1);
    for (at, expr) in rule.exprs.iter().enumerate() {
        expr_stands(family, base, expr)?;
        if at < last && is_final(expr) {
            return wrong("more after its end", "a verdict, a rejection or a translation is the last");
        }
    }
    Ok(())
}

const fn is_final(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Verdict(_)
            | Expr::Reject(_)
            | Expr::Nat { .. }
            | Expr::Masquerade(_)
            | Expr::Redirect { .. }
            | Expr::Lookup { to: Some(Found::Verdict), .. }
    )
}

fn expr_stands(family: Family, base: Option<&Base>, expr: &Expr) -> Result<(), Wrong> {
    let routed = matches!(family, Family::Ip | Family::Ip6 | Family::Inet);
    let hook = base.map(|base| base.hook);
    match expr {
        Expr::Strange(what) => wrong(what, "what is strange is only observed"),
        Expr::Limit(Limit { rate: 0, .. }) => wrong("a rate of 0", "then nothing passes: drop"),
        Expr::Limit(Limit { burst: 0, bytes: false, .. }) => wrong("a burst of 0", "the kernel takes it for 5"),
        Expr::Log(log) => log_stands(log),
        Expr::Numgen { modulus: 0, .. } | Expr::Jhash { modulus: 0, .. } | Expr::Symhash { modulus: 0, .. } => {
            wrong("modulus 0", "there is no number below it")
        }
        Expr::Jhash { from, size, .. } if usize::from(*from) * 4 + *size as usize > 64 => {
            wrong("a hash of so much", "what is hashed and what it stands among have 64 bytes together")
        }
        Expr::Nat { .. } | Expr::Masquerade(_) | Expr::Redirect { .. } => translation(family, base, expr),
        Expr::Reject(reject) => rejection(family, hook, *reject),
        Expr::Update { seconds: 0, .. } => wrong("a time of 0 s", "then nothing is remembered: say how long"),
        Expr::Update { seconds, .. } if *seconds > MOST_SECONDS => {
            wrong(format!("a time of {seconds} s"), "the kernel counts up to 49 days in milliseconds")
        }
        Expr::Fib { .. } if !routed => wrong("fib", "only ip, ip6 and inet ask the routing tables"),
        Expr::Untracked | Expr::SetCt { .. } if family == Family::Netdev => wrong("flows", "netdev knows of none"),
        Expr::Ct { .. } if family == Family::Netdev => wrong("flows", "netdev knows of none"),
        Expr::TransparentProxy { .. } if !routed || hook.is_some_and(|hook| hook != Hook::Prerouting) => {
            wrong("a transparent proxy", "it stands at prerouting of ip, ip6 and inet")
        }
        Expr::TransparentProxy { ipv6: Some(ipv6), .. } => same_family(family, *ipv6),
        _ => Ok(()),
    }
}

fn log_stands(log: &Log) -> Result<(), Wrong> {
    let is_plain = |c: char| matches!(c, ' '..='~') && c != '"';
    if log.prefix.len() > 127 || !log.prefix.chars().all(is_plain) {
        return wrong(format!("log prefix {:?}", log.prefix), "it has up to 127 printable ASCII characters, not \"");
    }
    match log.to {
        LogTo::Kernel(8..) => wrong("log level", "levels are 0 to 7"),
        _ => Ok(()),
    }
}

fn translation(family: Family, base: Option<&Base>, expr: &Expr) -> Result<(), Wrong> {
    if !matches!(family, Family::Ip | Family::Ip6 | Family::Inet) {
        return wrong("a translation", "only ip, ip6 and inet translate");
    }
    if base.is_some_and(|base| base.kind != ChainKind::Nat) {
        return wrong("a translation", "it stands in chains of kind nat");
    }
    let hook = base.map(|base| base.hook);
    let source = match expr {
        Expr::Nat { destination, .. } => !destination,
        Expr::Masquerade(_) => true,
        _ => false,
    };
    let at_source = matches!(hook, Some(Hook::Postrouting | Hook::Input));
    let masquerades = matches!(expr, Expr::Masquerade(_));
    if hook.is_some() && (source != at_source || (masquerades && hook == Some(Hook::Input))) {
        return wrong("a translation", "sources are translated at postrouting, destinations at prerouting and output");
    }
    match expr {
        Expr::Nat { ipv6, .. } => same_family(family, *ipv6),
        _ => Ok(()),
    }
}

fn same_family(family: Family, ipv6: bool) -> Result<(), Wrong> {
    match (family, ipv6) {
        (Family::Ip, true) | (Family::Ip6, false) => wrong("an address of the other family", "the table has one only"),
        _ => Ok(()),
    }
}

fn rejection(family: Family, hook: Option<Hook>, reject: Reject) -> Result<(), Wrong> {
    let single = matches!(family, Family::Ip | Family::Ip6);
    match reject {
        Reject::Unreachable(_) if single => wrong("an ICMP of either family", "in ip and ip6 say Reject::Icmp"),
        Reject::Icmp(_) if !single => wrong("an ICMP of one family", "in the others say Reject::Unreachable"),
        Reject::Icmp(code) if family == Family::Ip && !matches!(code, 0..=3 | 9 | 10 | 13) => {
            wrong(format!("code {code}"), "ICMP has 0 to 3, 9, 10 and 13 for this")
        }
        Reject::Icmp(code) if family == Family::Ip6 && !matches!(code, 0 | 1 | 3..=6) => {
            wrong(format!("code {code}"), "ICMPv6 has 0, 1 and 3 to 6 for this")
        }
        _ if matches!((family, hook), (Family::Bridge, Some(Hook::Forward | Hook::Output | Hook::Postrouting))) => {
            wrong("a rejection", "a bridge rejects at prerouting and input")
        }
        _ if family == Family::Netdev && hook == Some(Hook::Egress) => wrong("a rejection", "not of what is sent"),
        _ if matches!(hook, Some(Hook::Postrouting)) => wrong("a rejection", "not at postrouting"),
        _ => Ok(()),
    }
}

/// The sets and chains that a rule leads to are there, and are what it takes them for.
fn leads_somewhere(table: &Table, rule: &Rule) -> Result<(), Wrong> {
    for used in &rule.uses.0 {
        if let Gives::Room(types) = used.gives
            && length(used.key).max(SINGLE) + length(types) > REGISTERS
        {
            return wrong(
                format!("set {}: a key of so much", used.set),
                "with what it leads to it has 64 bytes at most",
            );
        }
        match table.sets.get(&used.set) {
            None => return wrong(format!("set {}", used.set), "there is none of this name in the table"),
            Some(set) if !set.head.serves(used) => {
                let keys_alone = used.gives == Gives::Nothing && set.head.kind != SetKind::Plain;
                let reason = match keys_alone {
                    true => "older kernels ask no map for its keys alone: have a set of them beside it",
                    false => "the rule takes it for one of other types",
                };
                return wrong(format!("set {}: {}", used.set, set.head), reason);
            }
            Some(_) => {}
        }
    }
    for expr in &rule.exprs {
        if let Expr::Verdict(verdict) = expr {
            verdict_leads(table, verdict)?;
        }
    }
    Ok(())
}

fn verdict_leads(table: &Table, verdict: &Verdict) -> Result<(), Wrong> {
    let Some(name) = verdict.chain() else { return Ok(()) };
    match table.chains.get(name) {
        None => wrong(format!("chain {name}"), "there is none of this name in the table"),
        Some(chain) if chain.base.is_some() => wrong(format!("chain {name}"), "a base chain is not jumped to"),
        Some(_) => Ok(()),
    }
}

fn set(object: &str, (name, set): (&Name, &Set), table: &Table) -> Result<(), Refusal> {
    named(object, name)?;
    if let SetKind::Strange(what) = &set.head.kind {
        return Err(refuse(&object, what, &"what is strange is only observed"));
    }
    if set.head.filled && !set.is_empty() {
        return Err(refuse(&object, &"elements", &"rules fill it: it has none of its own"));
    }
    if length(&set.head.key) > 64 {
        return Err(refuse(&object, &set.head, &"a key has 64 bytes at most"));
    }
    if set.head.intervals
        && let Some(part) = set.head.key.iter().find(|part| part.is_host_order() || is_name_range(set, **part))
    {
        return Err(refuse(&object, part, &"there are no ranges of names, or of numbers in this machine's order"));
    }
    let mut verdicts = BTreeSet::new();
    for datum in set.elements.values() {
        if let Datum::Verdict(verdict) = datum
            && let Some(chain) = verdict.chain()
            && verdicts.insert(chain)
        {
            verdict_leads(table, verdict).map_err(|(wanted, reason)| refuse(&object, &wanted, &reason))?;
        }
    }
    match set.head.form() {
        Form::Single => Ok(()),
        Form::Ends => ranges(object, &set.elements),
        Form::Span => spans(object, set),
    }
}

/// A name alone has no order that anybody could read; with other parts in a tuple it may stand for itself.
fn is_name_range(set: &Set, part: Type) -> bool {
    let mut start = 0;
    let at = set.head.key.iter().map(|part| {
        let at = start..start + part.size();
        start += part.size().next_multiple_of(4);
        (*part, at)
    });
    let names: Vec<_> = at.filter(|(part, _)| *part == Type::IfName).map(|(_, at)| at).collect();
    let differs = |key: &Bytes| {
        let (low, high) = key.split_at(key.len() / 2);
        names.iter().any(|at| low.get(at.clone()) != high.get(at.clone()))
    };
    part == Type::IfName && (set.head.key.len() == 1 || set.elements.keys().any(differs))
}

/// Ranges go forward and do not overlap.
fn ranges(object: &str, elements: &BTreeMap<Bytes, Datum>) -> Result<(), Refusal> {
    let mut before: Option<&[u8]> = None;
    for key in elements.keys() {
        let (low, high) = key.split_at(key.len() / 2);
        if low > high {
            return Err(refuse(&object, key, &"a range that ends before it begins"));
        }
        if before.is_some_and(|before| low <= before) {
            return Err(refuse(&object, key, &"it overlaps with the range before it"));
        }
        before = Some(high);
    }
    Ok(())
}

/// The same of tuples of ranges: of up to 1,000 of them, as each may have to be held against all others. The kernel
/// refuses what overlaps too, but with fewer words.
fn spans(object: &str, set: &Set) -> Result<(), Refusal> {
    let mut open: Vec<&Bytes> = Vec::new();
    for key in set.elements.keys() {
        let (low, high) = key.split_at(key.len() / 2);
        let mut start = 0;
        for part in &set.head.key {
            let end = start + part.size();
            if low.get(start..end) > high.get(start..end) {
                return Err(refuse(&object, key, &"a range that ends before it begins"));
            }
            start += part.size().next_multiple_of(4);
        }
        if set.len() > SPANS {
            continue;
        }
        let first = set.head.key.first().map_or(0, |part| part.size());
        open.retain(|other| other.get(other.len() / 2..other.len() / 2 + first) >= low.get(..first));
        if open.iter().any(|other| overlaps(set, other, key)) {
            return Err(refuse(&object, key, &"it overlaps with another range"));
        }
        open.push(key);
    }
    Ok(())
}

fn overlaps(set: &Set, a: &Bytes, b: &Bytes) -> bool {
    let half = a.len() / 2;
    let mut start = 0;
    for part in &set.head.key {
        let (low, high) = (start..start + part.size(), half + start..half + start + part.size());
        if a.get(high.clone()) < b.get(low.clone()) || b.get(high) < a.get(low) {
            return false;
        }
        start += part.size().next_multiple_of(4);
    }
    true
}

/// For each chain, those that it leads to.
type Ahead<'a> = BTreeMap<&'a Name, BTreeSet<&'a Name>>;

fn ahead(table: &Table) -> Ahead<'_> {
    let mut ahead = Ahead::new();
    for (name, chain) in &table.chains {
        let next = ahead.entry(name).or_default();
        for expr in chain.rules.iter().flat_map(|rule| &rule.exprs) {
            match expr {
                Expr::Verdict(verdict) => next.extend(verdict.chain()),
                Expr::Lookup { set, to: Some(Found::Verdict), .. } => {
                    let elements = table.sets.get(set).into_iter().flat_map(|set| set.elements.values());
                    next.extend(elements.filter_map(|datum| match datum {
                        Datum::Verdict(verdict) => verdict.chain(),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
    }
    ahead
}

/// No chain leads back to itself, and none of them deeper than the kernel follows.
fn jumps(object: &str, table: &Table, ahead: &Ahead<'_>) -> Result<(), Refusal> {
    let mut depths = BTreeMap::new();
    for name in table.chains.keys() {
        if depth(name, ahead, &mut depths, 0).is_none_or(|depth| depth >= JUMPS) {
            return Err(refuse(&object, &format!("chain {name}"), &"it leads back to itself, or over 15 jumps deep"));
        }
    }
    Ok(())
}

/// How many jumps follow from a chain; none if there is no end.
fn depth<'a>(name: &'a Name, ahead: &Ahead<'a>, known: &mut BTreeMap<&'a Name, usize>, level: usize) -> Option<usize> {
    if let Some(depth) = known.get(name) {
        return Some(*depth);
    }
    if level > JUMPS {
        return None;
    }
    let mut deepest = 0;
    for next in ahead.get(name).into_iter().flatten() {
        deepest = deepest.max(1 + depth(next, ahead, known, level + 1)?);
    }
    known.insert(name, deepest);
    Some(deepest)
}

fn refuse(object: &impl Display, wanted: &(impl Display + ?Sized), reason: &impl Display) -> Refusal {
    Refusal::new(object.to_string(), wanted.to_string(), reason.to_string())
}

const DEVICES: usize = 256; // NFT_NETDEVICE_MAX
const SPANS: usize = 1000;
const JUMPS: usize = 16; // NFT_JUMP_STACK_SIZE
const REGISTERS: usize = 64;
const SINGLE: usize = 16;
const MOST_SECONDS: u32 = 49 * 24 * 3600;
