//! Who may call what: one table, which the module's page shows.

use overlay_crypto::pki::{Identity, Role};
use overlay_node::{Control, ControlError, Refused, Stay};

use super::call::Call;
use super::frame::Purpose;

/// To whom a call is open, among nodes. A process that may open the node's own socket may do all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// To who has no certificate, and nobody else.
    Strangers,
    /// To every node.
    Nodes,
    /// To managers, and to a worker for itself.
    Itself,
    /// To managers.
    Managers,
    /// To nobody but processes on the machine.
    Machine,
}

impl Call {
    /// What people call it, and to whom it is open.
    pub(super) const fn open(&self) -> (&'static str, Open) {
        match self {
            Self::CreateNetwork { .. } => ("create a network", Open::Managers),
            Self::ChangeNetwork { .. } => ("change a network", Open::Managers),
            Self::RemoveNetwork { .. } => ("remove a network", Open::Managers),
            Self::Network { .. } | Self::Networks {} => ("read networks", Open::Nodes),
            Self::CreateService { .. } => ("create a service", Open::Managers),
            Self::RemoveService { .. } => ("remove a service", Open::Managers),
            Self::Service { .. } | Self::Services {} => ("read services", Open::Nodes),
            Self::Attach { .. } => ("attach a container", Open::Itself),
            Self::Relocate { .. } => ("move an endpoint", Open::Managers),
            Self::Detach { .. } => ("detach an endpoint", Open::Itself),
            Self::Endpoint { .. } | Self::Endpoints { .. } => ("read endpoints", Open::Nodes),
            Self::Report { .. } => ("report on an endpoint", Open::Itself),
            Self::AddNode { .. } => ("add a node", Open::Itself),
            Self::RemoveNode { .. } => ("remove a node", Open::Itself),
            Self::Node { .. } | Self::Nodes {} => ("read nodes", Open::Nodes),
            Self::Local(_) => ("ask the node itself", Open::Machine),
            Self::Cluster(ask) => ask.open(),
        }
    }
}

impl Purpose {
    /// What people call it, and to whom it is open.
    pub(super) const fn open(&self) -> (&'static str, Open) {
        match self {
            Self::Call => ("call", Open::Nodes),
            Self::Follow => ("follow the catalogue", Open::Nodes),
            Self::Watch(_) => ("watch a service", Open::Managers),
        }
    }
}

/// Whether a node may do that.
///
/// # Errors
/// That it may not, and who may; or the catalogue could not be asked whose it is.
pub(super) async fn allow(caller: &Identity, call: &Call, control: &dyn Control) -> Result<(), ControlError> {
    match (call.open(), caller.role) {
        ((_, Open::Nodes), _) | ((_, Open::Itself | Open::Managers), Role::Manager) => Ok(()),
        ((what, Open::Managers | Open::Machine | Open::Strangers), _) => Err(only_managers(caller, what).into()),
        ((what, Open::Itself), Role::Worker) => match others(caller, call, control).await? {
            None => Ok(()),
            Some(whom) => Err(Refused::NotItself { call: what.to_owned(), node: caller.node, whom }.into()),
        },
    }
}

pub(super) fn only_managers(caller: &Identity, what: &str) -> Refused {
    Refused::OnlyManagers { call: what.to_owned(), node: caller.node }
}

/// For whom it is, if it is not for the node that calls. What is nobody's is nobody else's.
async fn others(caller: &Identity, call: &Call, control: &dyn Control) -> Result<Option<String>, ControlError> {
    let of = |node: overlay_core::NodeId| (node != caller.node).then(|| format!("node {node}"));
    Ok(match call {
        Call::Attach { spec, .. } => of(spec.node),
        Call::Report { stay: Stay { node, .. }, .. } => of(*node),
        Call::Detach { endpoint } => control.endpoint(*endpoint).await?.and_then(|found| of(found.spec.node)),
        Call::AddNode { spec, .. } if spec.role == overlay_gossip::Role::Manager => Some("a manager".to_owned()),
        Call::AddNode { id, .. } => of(*id),
        Call::RemoveNode { node } => (node.as_str() != caller.node.to_string()).then(|| format!("node {node}")),
        _ => Some("others".to_owned()),
    })
}
