//! Waiting until an endpoint has nothing to do.

use std::time::Duration;

use overlay_core::EndpointId;
use overlay_driver::control::ControlClient;
use overlay_node::Drained;

use crate::Outcome;
use crate::commands::{ask, show};
use crate::failure::{Changed, Failure};
use crate::question::{NodeAnswer, NodeQuestion};

/// How long it is waited for if nothing is said.
const USUAL: Duration = Duration::from_secs(30);
/// How long a node is asked for at a time: it answers nothing that takes long.
const AT_A_TIME: Duration = Duration::from_secs(20);

/// Asks again until it is done or the time is over: the endpoint stays draining between two questions.
pub(crate) async fn until_done(
    node: &ControlClient,
    json: bool,
    endpoint: EndpointId,
    deadline: Option<Duration>,
) -> Outcome {
    let mut left = deadline.unwrap_or(USUAL);
    let mut took = Duration::ZERO;
    loop {
        let most = left.min(AT_A_TIME);
        let question = NodeQuestion::Drain(endpoint, most.as_millis() as u64);
        let NodeAnswer::Drained(drained) = ask(node, &question).await? else {
            return Err("the node answers something else".into());
        };
        took += drained.took;
        left -= most;
        if drained.is_complete() || left.is_zero() {
            let drained = Drained { took, ..drained };
            show(json, &drained, || drained.to_string())?;
            return if drained.is_complete() {
                Ok(())
            } else {
                Err(Failure::new("not_drained", "it has not come to its end", Changed::Something).into())
            };
        }
    }
}
