//! Why a container does not reach another, or a client no container, seen from one node.

mod hop;
mod outside;
mod published;
mod sealed;
mod walk;

use std::fmt;

use overlay_core::{EndpointId, NetworkId};
use overlay_lb::Ask;
use serde::Serialize;

pub use hop::{Break, Hop, NameOf, ServiceBackend, Target};

use walk::Walk;

use crate::{Contest, Desired, Knowledge, RemoteEndpoint, derive};

/// The way from an endpoint that is plugged in here to a name or an address, or from a client to a published port, hop by hop: what this node knows of
/// each, held against what is there. The first break ends it.
///
/// Its text has a line for each hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// How far everything is as it should be.
    pub hops: Vec<Hop>,
    /// What is not; `None` if the packet leaves this node as it should, or arrives on it.
    pub broken: Option<Break>,
}

/// Explains the way of a packet of TCP to port 80. `held` is what the places hold: read back from their tables, and as to
/// names what their resolvers were given.
///
/// O(n log n) for n endpoints: all that should be held is derived anew.
pub fn explain(knowledge: &Knowledge, from: EndpointId, to: &Target, held: &Desired) -> Explanation {
    explain_with(knowledge, &[], (from, to), held)
}

/// The same with what nodes say that does not count: where it would lead on, the break says why it does not.
pub(crate) fn explain_with(
    knowledge: &Knowledge,
    contested: &[Said<'_>],
    (from, to): (EndpointId, &Target),
    held: &Desired,
) -> Explanation {
    let desired = derive(knowledge);
    let mut walk = Walk { knowledge, contested, desired: &desired, held, hops: Vec::new() };
    let broken = walk.go(from, to).err();
    Explanation { hops: walk.hops, broken }
}

/// Explains what becomes of a client that asks this node for a port: which service publishes it, whether here and for him, which replicas take it, and
/// the way to the first of them.
///
/// O(n log n) for n endpoints: all that should be held is derived anew.
pub fn explain_published(knowledge: &Knowledge, ask: &Ask, held: &Desired) -> Explanation {
    let desired = derive(knowledge);
    let mut walk = Walk { knowledge, contested: &[], desired: &desired, held, hops: Vec::new() };
    let broken = walk.visit(ask).err();
    Explanation { hops: walk.hops, broken }
}

/// What a node says of an endpoint of a network, and why that does not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'k> {
    pub(crate) network: NetworkId,
    pub(crate) endpoint: &'k RemoteEndpoint,
    pub(crate) why: Contest,
}

impl Explanation {
    /// Adds what of the host is in the way, which its places do not show, if nothing else is.
    #[must_use]
    pub fn hindered_by(self, obstacle: Option<Break>) -> Self {
        Self { broken: self.broken.or(obstacle), ..self }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hops.iter().try_for_each(|hop| writeln!(f, "{hop}"))?;
        match &self.broken {
            Some(broken) => writeln!(f, "{broken}"),
            None => Ok(()),
        }
    }
}
