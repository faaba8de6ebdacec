//! The area value: all that is allowed and forbidden at one place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::{Change, IfName, Name, Phase, Port, Refusal, SharedMap, keyed_diff};
use serde::{Deserialize, Serialize};

use crate::{BridgePort, Gateway, Limit, Policy, Published, Step, Strangers, Tunnel, check};

/// All that is allowed and forbidden at one place: the host, a network's sandbox, a container.
///
/// The default is a place that forbids nothing. Its large parts are [`SharedMap`]s: who makes the next value from a copy of the
/// last has it compared, and brought to the kernel, at the cost of what changed. What belongs where:
///
/// | place | sections |
/// |---|---|
/// | host | [`gateways`](Self::gateways), [`published`](Self::published), [`tunnels`](Self::tunnels), [`esp`](Self::esp), [`limits`](Self::limits), [`admin`](Self::admin), and the gateways' bridges in [`ports`](Self::ports) |
/// | sandbox | [`ports`](Self::ports), [`strangers`](Self::strangers) `Drop`, [`policy`](Self::policy) |
/// | container | [`published`](Self::published): where its own packets, or packets for it, shall end at another of its ports |
///
/// ```
/// use overlay_core::{Memory, Port, Protocol, reconcile};
/// use overlay_firewall::{Gateway, Published, State};
///
/// let mut host = State::default();
/// host.gateways.insert("ovgw0".parse()?, Gateway::new(["172.18.0.0/24".parse()?]));
/// let web = Published::new(Protocol::Tcp, Port::new(8080)?).to("172.18.0.5:80".parse()?);
/// host.published.insert("web".parse()?, web);
///
/// let done = reconcile(&mut Memory::<State>::default(), &host)?;
/// assert_eq!(
///     done.to_string(),
///     "guard      gateway ovgw0: masquerade 172.18.0.0/24\n\
///      open       publish web: tcp 8080 at any address to 172.18.0.5:80\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Devices through which endpoints reach the outside.
    pub gateways: SharedMap<IfName, Gateway>,
    /// Ports that lead to endpoints, by name.
    pub published: SharedMap<Name, Published>,
    /// VXLAN ports of this machine, and who may send to them.
    pub tunnels: BTreeMap<Port, Tunnel>,
    /// Who may send ESP; whoever likes where it is `None`, as this machine may have other business in ESP than ours.
    pub esp: Option<BTreeSet<IpAddr>>,
    /// Ports that everybody may knock at, but not too often, by name.
    pub limits: BTreeMap<Name, Limit>,
    /// Ports of bridges, by device.
    pub ports: SharedMap<IfName, BridgePort>,
    /// What other ports of bridges may do.
    pub strangers: Strangers,
    /// Who may talk to whom.
    pub policy: Policy,
    /// Whether an administrator's rules are asked before ours about all that this place forwards: those of the chain
    /// `admin` in the table of our rules, which comes empty. What they accept or drop is decided, what they do not decide we
    /// do. They are neither read nor changed, are no part of any verdict here, and go with the chain when this is
    /// `false` again.
    pub admin: bool,
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n objects; of those that both share, a comparison of pointers for some dozens.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.esp != desired.esp {
            steps.push(Step::SetEsp(desired.esp.clone()));
        }
        if self.strangers != desired.strangers {
            steps.push(Step::SetStrangers(desired.strangers));
        }
        if self.admin != desired.admin {
            steps.push(Step::SetAdmin(desired.admin));
        }
        if self.policy.otherwise != desired.policy.otherwise {
            steps.push(Step::SetOtherwise(desired.policy.otherwise));
        }
        put(&mut steps, self.gateways.diff(&desired.gateways), Step::PutGateway, Step::RemoveGateway);
        put(&mut steps, keyed_diff(&self.tunnels, &desired.tunnels), Step::PutTunnel, Step::RemoveTunnel);
        put(&mut steps, keyed_diff(&self.limits, &desired.limits), Step::PutLimit, Step::RemoveLimit);
        put(&mut steps, self.ports.diff(&desired.ports), Step::PutPort, Step::RemovePort);
        let (now, new) = (&self.policy, &desired.policy);
        put(&mut steps, now.members.diff(&new.members), Step::PutMember, Step::RemoveMember);
        put(&mut steps, keyed_diff(&now.rules, &new.rules), Step::PutRule, Step::RemoveRule);
        put(&mut steps, self.published.diff(&desired.published), Step::Publish, Step::Withdraw);
        overlay_core::in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::PutGateway(device, gateway) => drop(self.gateways.insert(device, gateway)),
            Step::RemoveGateway(device) => drop(self.gateways.remove(&device)),
            Step::Publish(name, published) => drop(self.published.insert(name, published)),
            Step::Withdraw(name) => drop(self.published.remove(&name)),
            Step::PutTunnel(port, tunnel) => drop(self.tunnels.insert(port, tunnel)),
            Step::RemoveTunnel(port) => drop(self.tunnels.remove(&port)),
            Step::SetEsp(members) => self.esp = members,
            Step::PutLimit(name, limit) => drop(self.limits.insert(name, limit)),
            Step::RemoveLimit(name) => drop(self.limits.remove(&name)),
            Step::PutPort(device, port) => drop(self.ports.insert(device, port)),
            Step::RemovePort(device) => drop(self.ports.remove(&device)),
            Step::SetStrangers(strangers) => self.strangers = strangers,
            Step::SetAdmin(admin) => self.admin = admin,
            Step::PutMember(endpoint, member) => drop(self.policy.members.insert(endpoint, member)),
            Step::RemoveMember(endpoint) => drop(self.policy.members.remove(&endpoint)),
            Step::PutRule(name, rule) => drop(self.policy.rules.insert(name, rule)),
            Step::RemoveRule(name) => drop(self.policy.rules.remove(&name)),
            Step::SetOtherwise(action) => self.policy.otherwise = action,
        }
    }

    fn phase(step: &Step) -> Phase {
        step.phase()
    }

    fn check(&self) -> Result<(), Refusal> {
        check::state(self)
    }
}

fn put<'a, K: Clone + 'a, V: Clone + 'a>(
    steps: &mut Vec<Step>,
    changes: impl Iterator<Item = Change<'a, K, V>>,
    add: fn(K, V) -> Step,
    remove: fn(K) -> Step,
) {
    steps.extend(changes.map(|change| match change {
        Change::Add(key, value) | Change::Replace(key, _, value) => add(key.clone(), value.clone()),
        Change::Remove(key, _) => remove(key.clone()),
    }));
}
