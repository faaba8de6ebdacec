//! What takes its time, for who traces: the names, levels and fields of the table in the crate's page.

use overlay_core::{EndpointId, Name, NodeId, Phase};
use overlay_crypto::{Cause, Epoch};
use overlay_node::{Place, Reference};
use tracing::field::{Empty, display};
use tracing::{Span, debug_span, info_span};

/// From a container that is to be attached until that is in effect, or taken back.
pub(crate) fn attach(node: NodeId, container: &Name, network: &Reference) -> Span {
    info_span!(target: "overlay_driver", "attach", %node, %container, %network, endpoint = Empty)
}

/// The endpoint has its id.
pub(crate) fn is_endpoint(span: &Span, endpoint: EndpointId) {
    span.record("endpoint", display(endpoint));
}

/// From an endpoint that is to be detached until it is.
pub(crate) fn detach(node: NodeId, endpoint: EndpointId) -> Span {
    info_span!(target: "overlay_driver", "detach", %node, %endpoint)
}

/// From an endpoint that is to be drained until it is, or its deadline.
pub(crate) fn drain(node: NodeId, endpoint: EndpointId) -> Span {
    info_span!(target: "overlay_driver", "drain", %node, %endpoint)
}

/// A round: places are planned, and brought to what they should hold.
pub(crate) fn round(node: NodeId, places: usize) -> Span {
    debug_span!(target: "overlay_driver", "round", %node, places)
}

/// A place is looked at, and what it lacks is planned.
pub(crate) fn plan(round: &Span, place: &Place) -> Span {
    debug_span!(target: "overlay_driver", parent: round, "plan", %place, steps = Empty)
}

/// How many steps there are.
pub(crate) fn has_steps(span: &Span, steps: usize) {
    span.record("steps", steps);
}

/// The steps of one phase of a place are carried out.
pub(crate) fn phase(round: &Span, place: &Place, phase: Phase) -> Span {
    debug_span!(target: "overlay_driver", parent: round, "phase", %place, phase = word(phase))
}

/// A manager, or the node's own process, is asked for something by its control API, here.
pub(crate) fn call(what: &'static str, caller: &dyn std::fmt::Display) -> Span {
    debug_span!(target: "overlay_driver", "call", call = what, caller = %caller)
}

/// A node joins a cluster.
pub(crate) fn join() -> Span {
    info_span!(target: "overlay_driver", "join", node = Empty)
}

/// It is this node.
pub(crate) fn is_node(span: &Span, node: NodeId) {
    span.record("node", display(node));
}

/// The node's keys of encrypted networks change, from the first that is made until the old one is forgotten.
pub(crate) fn rotation(node: NodeId, epoch: Epoch, cause: Option<Cause>) -> Span {
    let cause = cause.map(display);
    info_span!(target: "overlay_driver", "rotation", %node, epoch = epoch.get(), cause)
}

const fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Guard => "guard",
        Phase::Build => "build",
        Phase::Open => "open",
        Phase::Close => "close",
        Phase::Dismantle => "dismantle",
        Phase::Unguard => "unguard",
    }
}
