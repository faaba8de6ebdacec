//! The steps between two values.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use overlay_core::{EndpointId, IfName, Name, Phase, Port};

use crate::{Action, BridgePort, Gateway, Limit, Member, PolicyRule, Published, Strangers, Tunnel};

/// One change of a [`State`](crate::State).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A gateway comes, or changes.
    PutGateway(IfName, Gateway),
    /// A gateway goes.
    RemoveGateway(IfName),
    /// A port is published, or published otherwise.
    Publish(Name, Published),
    /// A port is published no more.
    Withdraw(Name),
    /// A tunnel's guard comes, or changes.
    PutTunnel(Port, Tunnel),
    /// A tunnel's guard goes.
    RemoveTunnel(Port),
    /// Who may send ESP changes.
    SetEsp(Option<BTreeSet<IpAddr>>),
    /// A port's guard comes, or changes.
    PutLimit(Name, Limit),
    /// A port's guard goes.
    RemoveLimit(Name),
    /// A bridge's port is listed, or otherwise.
    PutPort(IfName, BridgePort),
    /// A bridge's port is listed no more.
    RemovePort(IfName),
    /// What ports that are not listed may do changes.
    SetStrangers(Strangers),
    /// Whether an administrator's rules are asked first changes.
    SetAdmin(bool),
    /// An endpoint becomes known to the policy, or changes.
    PutMember(EndpointId, Member),
    /// An endpoint is forgotten.
    RemoveMember(EndpointId),
    /// A rule of the policy comes, or changes.
    PutRule(Name, PolicyRule),
    /// A rule of the policy goes.
    RemoveRule(Name),
    /// What becomes of flows that no rule is about changes.
    SetOtherwise(Action),
}

impl Step {
    /// Guards are up before anything is built and go when all is gone; what lets traffic in is last to come and first to go.
    pub(crate) const fn phase(&self) -> Phase {
        match self {
            Self::PutGateway(..)
            | Self::PutTunnel(..)
            | Self::SetEsp(Some(_))
            | Self::PutLimit(..)
            | Self::PutPort(..)
            | Self::SetStrangers(Strangers::Drop)
            | Self::SetAdmin(true)
            | Self::PutMember(..)
            | Self::SetOtherwise(Action::Deny) => Phase::Guard,
            Self::PutRule(_, rule) => match rule.action {
                Action::Deny => Phase::Guard,
                Action::Allow => Phase::Open,
            },
            Self::Publish(..) => Phase::Open,
            Self::Withdraw(_) | Self::RemoveRule(_) => Phase::Close,
            Self::RemoveGateway(_)
            | Self::RemoveTunnel(_)
            | Self::SetEsp(None)
            | Self::RemoveLimit(_)
            | Self::RemovePort(_)
            | Self::SetStrangers(Strangers::Pass)
            | Self::SetAdmin(false)
            | Self::RemoveMember(_)
            | Self::SetOtherwise(Action::Allow) => Phase::Unguard,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutGateway(device, gateway) => write!(f, "gateway {device}: {gateway}"),
            Self::RemoveGateway(device) => write!(f, "remove gateway {device}"),
            Self::Publish(name, published) => write!(f, "publish {name}: {published}"),
            Self::Withdraw(name) => write!(f, "withdraw {name}"),
            Self::PutTunnel(port, tunnel) => write!(f, "guard tunnel {port}: {tunnel}"),
            Self::RemoveTunnel(port) => write!(f, "guard tunnel {port} no more"),
            Self::SetEsp(Some(members)) => write!(f, "guard ESP: {} members", members.len()),
            Self::SetEsp(None) => f.write_str("guard ESP no more"),
            Self::PutLimit(name, limit) => write!(f, "guard {name}: {limit}"),
            Self::RemoveLimit(name) => write!(f, "guard {name} no more"),
            Self::PutPort(device, port) => write!(f, "port {device}: {port}"),
            Self::RemovePort(device) => write!(f, "forget port {device}"),
            Self::SetStrangers(strangers) => write!(f, "other ports {strangers}"),
            Self::SetAdmin(true) => f.write_str("ask an administrator's rules first"),
            Self::SetAdmin(false) => f.write_str("ask no administrator's rules"),
            Self::PutMember(endpoint, member) => write!(f, "member {}: {member}", endpoint.short()),
            Self::RemoveMember(endpoint) => write!(f, "forget member {}", endpoint.short()),
            Self::PutRule(name, rule) => write!(f, "policy {name}: {rule}"),
            Self::RemoveRule(name) => write!(f, "remove policy {name}"),
            Self::SetOtherwise(action) => write!(f, "policy otherwise {action}"),
        }
    }
}
