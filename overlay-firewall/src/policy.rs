//! Who may talk to whom inside a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use overlay_core::{EndpointId, Name, PortRange, Protocol, SharedMap};
use serde::{Deserialize, Serialize};

/// Who may talk to whom inside a network: everybody to everybody, if nothing is said.
///
/// A rule speaks of who *begins*: replies pass in any case, so `web` may be allowed to ask `db` and not the reverse. Of the
/// rules that apply to a first packet, the one with the lowest [`order`](PolicyRule::order) decides, of equals that with the
/// first name; if none applies, [`otherwise`](Self::otherwise) does. Once there is a rule, TCP begins with a SYN.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What becomes of flows that no rule speaks of.
    pub otherwise: Action,
    /// Rules, by name.
    pub rules: BTreeMap<Name, PolicyRule>,
    /// The network's endpoints on all nodes, as far as they are known.
    pub members: SharedMap<EndpointId, Member>,
}

impl Policy {
    /// Whether any packet's fate depends on it, or is at least counted.
    pub fn is_active(&self) -> bool {
        self.otherwise == Action::Deny || !self.rules.is_empty()
    }

    /// Whether a rule that is meant denies.
    #[cfg(feature = "kernel")]
    pub(crate) fn denies(&self) -> bool {
        self.rules.values().any(|rule| rule.action == Action::Deny && rule.mode == Mode::Enforce)
    }

    /// The rules in the order in which they are asked.
    pub(crate) fn in_order(&self) -> Vec<(&Name, &PolicyRule)> {
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.sort_by_key(|(_, rule)| rule.order); // stable: equals stay in the order of their names
        rules
    }
}

/// An endpoint, as rules see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its addresses in this network.
    pub addresses: BTreeSet<IpAddr>,
    /// What selectors look at.
    pub labels: BTreeMap<String, String>,
}

/// A group: every member that has all of these labels. Empty, it is every member; addresses that are no member's are in none.
///
/// ```
/// use overlay_firewall::{Member, Selector};
///
/// let web = Selector::labels([("app", "web")]);
/// let member = Member { labels: [("app".into(), "web".into())].into(), ..Member::default() };
/// assert!(web.selects(&member) && Selector::everyone().selects(&member));
/// assert!(!Selector::labels([("app", "web"), ("tier", "front")]).selects(&member));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector(pub BTreeMap<String, String>);

impl Selector {
    /// Every member.
    pub const fn everyone() -> Self {
        Self(BTreeMap::new())
    }

    /// Those with all of these labels.
    pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// Whether the member is one of them.
    pub fn selects(&self, member: &Member) -> bool {
        self.0.iter().all(|(key, value)| member.labels.get(key) == Some(value))
    }
}

/// One rule: whether some may begin to talk to others.
///
/// ```
/// use overlay_core::{Port, Protocol};
/// use overlay_firewall::{Mode, PolicyRule, Ports, Selector};
///
/// let rule = PolicyRule::allow(Selector::labels([("app", "web")]), Selector::labels([("app", "db")]))
///     .on(Ports::one(Protocol::Tcp, Port::new(5432)?));
/// assert_eq!(rule.to_string(), "allow app=web to app=db on tcp 5432");
/// let watched = PolicyRule { mode: Mode::Audit, ..PolicyRule::deny(Selector::everyone(), Selector::everyone()) };
/// assert_eq!(watched.to_string(), "audit: deny everyone to everyone");
/// # Ok::<(), overlay_core::PortError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Lower ones are asked first.
    pub order: u16,
    /// Who begins.
    pub from: Selector,
    /// To whom.
    pub to: Selector,
    /// On which ports; on all, and with all other protocols, where it is empty.
    pub ports: BTreeSet<Ports>,
    /// Whether they may.
    pub action: Action,
    /// Whether it is meant already.
    pub mode: Mode,
}

impl PolicyRule {
    /// A rule that allows, on all ports.
    pub const fn allow(from: Selector, to: Selector) -> Self {
        Self { order: 0, from, to, ports: BTreeSet::new(), action: Action::Allow, mode: Mode::Enforce }
    }

    /// A rule that denies, on all ports.
    pub fn deny(from: Selector, to: Selector) -> Self {
        Self { action: Action::Deny, ..Self::allow(from, to) }
    }

    /// The same on these ports too, and on no others but those named before.
    #[must_use]
    pub fn on(mut self, ports: Ports) -> Self {
        self.ports.insert(ports);
        self
    }
}

/// Ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// The first and the last.
    pub range: PortRange,
}

impl Ports {
    /// One port.
    pub const fn one(protocol: Protocol, port: overlay_core::Port) -> Self {
        Self { protocol, range: PortRange::one(port) }
    }

    /// Whether the next in order overlap with them or follow at once.
    #[cfg(feature = "kernel")]
    pub(crate) fn touches(&self, next: &Self) -> bool {
        self.protocol == next.protocol && u32::from(next.range.first().get()) <= u32::from(self.range.last().get()) + 1
    }

    /// Adds the next in order.
    #[cfg(feature = "kernel")]
    pub(crate) fn extend(&mut self, next: &Self) {
        let last = self.range.last().max(next.range.last());
        self.range = PortRange::new(self.range.first(), last).unwrap_or(self.range);
    }

    /// Whether a port on the wire is one of them.
    pub(crate) fn covers(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && (self.range.first().get()..=self.range.last().get()).contains(&port)
    }
}

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It may begin.
    #[default]
    Allow,
    /// Its first packet is dropped.
    Deny,
}

/// Whether a rule is meant already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// It counts what it would decide, and the next rule is asked.
    Audit,
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.mode == Mode::Audit { "audit: " } else { "" })?;
        write!(f, "{} {} to {}", self.action, self.from, self.to)?;
        for (number, ports) in self.ports.iter().enumerate() {
            write!(f, "{}{ports}", if number == 0 { " on " } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        write!(
            f,
            "{} labelled {}",
            addresses.join(", "),
            if labels.is_empty() { "nothing".to_owned() } else { labels.join(",") }
        )
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("everyone");
        }
        let labels: Vec<_> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&labels.join(","))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range.first() == self.range.last() {
            true => write!(f, "{} {}", self.protocol, self.range.first()),
            false => write!(f, "{} {}", self.protocol, self.range),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}
