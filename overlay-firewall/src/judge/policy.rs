//! A policy, by group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::{IpFamily, Name};

use super::Map;
use crate::{Action, Flow, Icmpv6, Ip, Member, Mode, Policy, Ports, Rule, Selector, Transport, Verdict};

/// A policy as packets meet it: addresses to classes, and rules about classes. Members that are in the same groups are of
/// one class.
#[derive(Debug, Clone)]
pub(super) struct PolicyIndex {
    otherwise: Action,
    v4: Map<u32, u32>,
    v6: Map<u128, u32>,
    /// By class, and in that by number of a selector: whether it selects the class.
    classes: Vec<Box<[bool]>>,
    rules: Vec<RuleEntry>,
}

#[derive(Debug, Clone)]
struct RuleEntry {
    name: Name,
    from: usize,
    to: usize,
    ports: Box<[Ports]>,
    action: Action,
    mode: Mode,
}

impl PolicyIndex {
    pub(super) fn new(policy: &Policy) -> Self {
        let both = |rule: &'_ crate::PolicyRule| [rule.from.clone(), rule.to.clone()];
        let selectors: Vec<Selector> =
            policy.rules.values().flat_map(both).collect::<BTreeSet<_>>().into_iter().collect();
        let number = |of: &Selector| selectors.binary_search(of).unwrap_or(0);
        let rules = policy.in_order().into_iter().map(|(name, rule)| RuleEntry {
            name: name.clone(),
            from: number(&rule.from),
            to: number(&rule.to),
            ports: rule.ports.iter().copied().collect(),
            action: rule.action,
            mode: rule.mode,
        });
        let (rules, otherwise) = (rules.collect(), policy.otherwise);
        let mut index = Self { otherwise, rules, v4: Map::default(), v6: Map::default(), classes: Vec::new() };
        let mut classes = BTreeMap::new();
        for member in policy.members.values() {
            index.add(member, &selectors, &mut classes);
        }
        index
    }

    fn add(&mut self, member: &Member, selectors: &[Selector], classes: &mut BTreeMap<Box<[bool]>, u32>) {
        let groups: Box<[bool]> = selectors.iter().map(|selector| selector.selects(member)).collect();
        let class = *classes.entry(groups).or_insert_with_key(|groups| {
            self.classes.push(groups.clone());
            self.classes.len() as u32 - 1
        });
        for address in &member.addresses {
            match address {
                IpAddr::V4(address) => drop(self.v4.insert((*address).into(), class)),
                IpAddr::V6(address) => drop(self.v6.insert((*address).into(), class)),
            }
        }
    }

    pub(super) fn judge(&self, ip: &Ip, flow: Flow) -> Verdict<'_> {
        if let Some(verdict) = before_rules(ip, flow) {
            return verdict;
        }
        let rule = self.matching(*ip).find(|rule| rule.mode == Mode::Enforce);
        match rule {
            Some(rule) => ruled(rule.action, Rule::Policy(&rule.name)),
            None => ruled(self.otherwise, Rule::PolicyOtherwise),
        }
    }

    pub(super) fn audited(&self, ip: Ip, flow: Flow) -> impl Iterator<Item = &Name> {
        let asked = before_rules(&ip, flow).is_none();
        let rules = asked.then(|| self.matching(ip).take_while(|rule| rule.mode == Mode::Audit));
        rules.into_iter().flatten().map(|rule| &rule.name)
    }

    /// The rules that speak of such a packet, in their order.
    fn matching(&self, ip: Ip) -> impl Iterator<Item = &RuleEntry> {
        let (from, to, port) = (self.class(ip.source()), self.class(ip.destination()), ip.transport.port());
        let ends = from.zip(to);
        self.rules.iter().filter(move |rule| {
            let Some((from, to)) = ends else { return false };
            let selected = |class: &[bool], selector: usize| class.get(selector).copied().unwrap_or(false);
            let on = |ports: &Ports| port.is_some_and(|(of, port)| ports.covers(of, port));
            selected(from, rule.from) && selected(to, rule.to) && (rule.ports.is_empty() || rule.ports.iter().any(on))
        })
    }

    fn class(&self, address: IpAddr) -> Option<&[bool]> {
        let class = match address {
            IpAddr::V4(address) => self.v4.get(&address.into()),
            IpAddr::V6(address) => self.v6.get(&address.into()),
        };
        self.classes.get(*class? as usize).map(AsRef::as_ref)
    }
}

/// What no rule of a policy is asked about.
fn before_rules<'s>(ip: &Ip, flow: Flow) -> Option<Verdict<'s>> {
    let speaks_of_neighbours = matches!(ip.transport, Transport::Icmpv6(message) if message != Icmpv6::Other);
    match (flow, ip.transport) {
        (Flow::Established | Flow::Related, _) => Some(Verdict::accept(Rule::Known)),
        _ if speaks_of_neighbours && ip.family() == IpFamily::V6 => Some(Verdict::accept(Rule::Neighbours)),
        (Flow::Invalid, _) => Some(Verdict::drop(Rule::Invalid)),
        (_, Transport::Tcp { begins: false, .. }) => Some(Verdict::drop(Rule::Unbegun)),
        _ => None,
    }
}

const fn ruled(action: Action, rule: Rule<'_>) -> Verdict<'_> {
    match action {
        Action::Allow => Verdict::accept(rule),
        Action::Deny => Verdict::drop(rule),
    }
}
