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
            Self::Follow | Self::FollowAfter(_) | Self::FollowWith(_) => ("follow the catalogue", Open::Nodes),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::control::cluster::Ask;

    /// One of every kind.
    fn calls() -> Vec<Value> {
        let id = "0250za67mbtgh1tvq6ktn8q2p";
        let overlay = json!(overlay_node::NetworkSpec::overlay("front".parse().unwrap()));
        let service = json!(overlay_node::ServiceSpec::new("web".parse().unwrap(), []));
        let endpoint =
            json!(overlay_node::EndpointSpec::new(id.parse().unwrap(), "web".parse().unwrap(), id.parse().unwrap()));
        let calls = json!([
            {"create_network": {"id": id, "spec": overlay}}, {"change_network": {"network": "x", "spec": overlay}},
            {"remove_network": {"network": "x"}}, {"network": {"network": "x"}}, {"networks": {}},
            {"create_service": {"id": id, "spec": service}}, {"remove_service": {"service": "x"}},
            {"service": {"service": "x"}}, {"services": {}}, {"attach": {"id": id, "spec": endpoint}},
            {"relocate": {"endpoint": id, "node": id}}, {"detach": {"endpoint": id}}, {"endpoint": {"endpoint": id}},
            {"endpoints": {"network": id}}, {"report": {"endpoint": id, "stay": {"node": id, "moves": 0}, "failure": null}},
            {"add_node": {"id": id, "spec": {"name": "x", "role": "worker"}}}, {"remove_node": {"node": "x"}},
            {"node": {"node": "x"}}, {"nodes": {}}, {"local": 1}
        ]);
        calls.as_array().unwrap().clone()
    }

    /// One of every kind but that which needs a certificate.
    fn asks() -> Vec<Value> {
        let (id, invitation) =
            ("0250za67mbtgh1tvq6ktn8q2p", json!({"role": "worker", "until": null, "uses": null, "node": null}));
        let asks = json!([
            {"join": {"token": "x", "request": "00", "node": null}}, {"renew": {"request": "00"}},
            {"stand": {"revision": 0, "ring": 0}}, {"token": {"role": "worker"}}, {"rotate_token": {"role": "worker"}},
            {"invite": {"invitation": invitation}}, {"members": {}}, {"set_role": {"node": id, "role": "worker"}},
            {"remove": {"node": "x"}}, {"rotate_root": {}}, {"abort_root": {}}, {"root_progress": {}}, {"sealing_key": {}}
        ]);
        asks.as_array().unwrap().clone()
    }

    fn names(all: &[Value]) -> BTreeSet<String> {
        all.iter().map(|it| it.as_object().unwrap().keys().next().unwrap().clone()).collect()
    }

    /// What serde knows, as it says itself.
    fn known<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> BTreeSet<String> {
        let said = serde_json::from_value::<T>(json!({"fly": {}})).unwrap_err().to_string();
        let (_, expected) = said.split_once("expected one of ").unwrap();
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_table_in_the_documentation_is_what_is_held_to() {
        let mut rows: BTreeSet<String> =
            [Purpose::Follow, Purpose::Watch("x".into())].iter().map(|it| row(it.open())).collect();
        let known_calls = known::<Call>();
        assert_eq!(
            names(&calls()).union(&["cluster".to_owned()].into()).cloned().collect::<BTreeSet<_>>(),
            known_calls
        );
        rows.extend(calls().into_iter().map(|it| row(serde_json::from_value::<Call>(it).unwrap().open())));
        assert_eq!(
            names(&asks()).union(&["rescue".to_owned()].into()).cloned().collect::<BTreeSet<_>>(),
            known::<Ask>()
        );
        rows.extend(asks().into_iter().map(|it| row(serde_json::from_value::<Ask>(it).unwrap().open())));
        rows.insert(row(("be rescued", Open::Strangers)));
        let told: BTreeSet<String> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! "))
            .filter(|line| line.starts_with("| ") && !line.starts_with("| call"))
            .map(str::to_owned)
            .collect();
        assert_eq!(told, rows);
    }

    fn row((what, open): (&str, Open)) -> String {
        format!("| {what} | {} |", format!("{open:?}").to_lowercase())
    }
}
