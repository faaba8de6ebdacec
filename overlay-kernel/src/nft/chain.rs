//! Chains: where rules stand.

use std::collections::BTreeSet;
use std::fmt;

use overlay_core::IfName;

use super::Rule;

/// Rules, one after the other.
///
/// A regular chain is only where rules jump; a base chain is where packets come by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where packets come by, if they do.
    pub base: Option<Base>,
    /// The rules. A change of one sets all of the chain's anew, and their counters to 0: what comes and goes belongs in
    /// sets.
    pub rules: Vec<Rule>,
    /// Whether its rules are somebody else's: what they are is neither read nor changed.
    pub open: bool,
}

impl Chain {
    /// A chain that rules jump to.
    pub const fn regular(rules: Vec<Rule>) -> Self {
        Self { base: None, rules, open: false }
    }

    /// A chain that packets come by.
    pub const fn base(base: Base, rules: Vec<Rule>) -> Self {
        Self { base: Some(base), rules, open: false }
    }

    /// A chain that rules jump to and whose own rules are somebody else's, an administrator's say. It comes empty; what is in
    /// it then stays as it is until the chain goes, or its table goes or is made anew because it was given objects that
    /// are none of ours. Rules there should look into no set of ours, which could not go then.
    ///
    /// It is known by its comment, which kernels before 5.10 do not keep.
    pub const fn open() -> Self {
        Self { base: None, rules: Vec::new(), open: true }
    }
}

/// Where packets come by a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// What it may do.
    pub kind: ChainKind,
    /// Where on a packet's way.
    pub hook: Hook,
    /// Before which others there: lower numbers first.
    pub priority: i32,
    /// What becomes of packets that come to the end.
    pub policy: Policy,
    /// In `netdev`: the devices, which must be there on kernels before 6.16. Elsewhere none.
    pub devices: BTreeSet<IfName>,
}

impl Base {
    /// Priority of chains that act before connections are tracked.
    pub const RAW: i32 = -300;
    /// Priority of chains that mark packets.
    pub const MANGLE: i32 = -150;
    /// Priority at which destinations are translated.
    pub const DSTNAT: i32 = -100;
    /// Priority of filters.
    pub const FILTER: i32 = 0;
    /// Priority at which sources are translated.
    pub const SRCNAT: i32 = 100;

    /// A filter that lets pass what no rule drops.
    pub const fn filter(hook: Hook, priority: i32) -> Self {
        Self { kind: ChainKind::Filter, hook, priority, policy: Policy::Accept, devices: BTreeSet::new() }
    }

    /// A chain of translations: for the first packet of each flow.
    pub const fn nat(hook: Hook, priority: i32) -> Self {
        Self { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept, devices: BTreeSet::new() }
    }

    /// A filter of what comes in by some devices.
    pub const fn ingress(devices: BTreeSet<IfName>, priority: i32) -> Self {
        Self { kind: ChainKind::Filter, hook: Hook::Ingress, priority, policy: Policy::Accept, devices }
    }

    /// The same, but what no rule accepts is dropped.
    #[must_use]
    pub fn or_drop(self) -> Self {
        Self { policy: Policy::Drop, ..self }
    }

    /// Whether the kernel can make one of the other by changing its policy.
    pub(super) fn differs_in_policy_only(&self, other: &Self) -> bool {
        *self == Self { policy: self.policy, ..other.clone() }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {} hook {}", self.kind.text(), self.hook.text())?;
        let names: Vec<_> = self.devices.iter().map(|name| format!("\"{name}\"")).collect();
        match &names[..] {
            [] => {}
            [one] => write!(f, " device {one}")?,
            many => write!(f, " devices = {{ {} }}", many.join(", "))?,
        }
        write!(f, " priority {}; policy {};", self.priority, self.policy.text())
    }
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Let pass, drop, mark, count.
    Filter,
    /// Translate addresses: in `ip`, `ip6` and `inet`.
    Nat,
    /// Mark outgoing packets so that they are routed anew: in `ip`, `ip6` and `inet`, at the hook for output.
    Route,
}

impl ChainKind {
    pub(super) const ALL: [Self; 3] = [Self::Filter, Self::Nat, Self::Route];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// Where on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// It has come in, nothing was decided yet.
    Prerouting,
    /// It is for this host.
    Input,
    /// It is for another.
    Forward,
    /// It is this host's own.
    Output,
    /// It is about to leave.
    Postrouting,
    /// It was just received by a device: in `netdev`.
    Ingress,
    /// It is about to be sent by a device: in `netdev`.
    Egress,
}

impl Hook {
    pub(super) const ALL: [Self; 7] =
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting, Self::Ingress, Self::Egress];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// Its number among those of its family.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Prerouting | Self::Ingress => 0,
            Self::Input | Self::Egress => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    pub(super) const fn is_of_a_device(self) -> bool {
        matches!(self, Self::Ingress | Self::Egress)
    }
}

/// What becomes of packets that come to the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// They may pass.
    Accept,
    /// They are gone.
    Drop,
}

impl Policy {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        }
    }
}
