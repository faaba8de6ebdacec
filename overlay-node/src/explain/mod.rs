//! Why a container does not reach another, or a client no container, seen from one node.

mod hop;
mod outside;
mod published;
mod sealed;
mod walk;

use std::fmt;

use overlay_core::EndpointId;
use overlay_lb::Ask;

pub use hop::{Break, Hop, Target};

use walk::Walk;

use crate::{Desired, Knowledge, derive};

/// The way from an endpoint that is plugged in here to a name or an address, or from a client to a published port, hop by hop: what this node knows of
/// each, held against what is there. The first break ends it.
///
/// Its text has a line for each hop.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    let desired = derive(knowledge);
    let mut walk = Walk { knowledge, desired: &desired, held, hops: Vec::new() };
    let broken = walk.go(from, to).err();
    Explanation { hops: walk.hops, broken }
}

/// Explains what becomes of a client that asks this node for a port: which service publishes it, whether here and for him, which replicas take it, and
/// the way to the first of them.
///
/// O(n log n) for n endpoints: all that should be held is derived anew.
pub fn explain_published(knowledge: &Knowledge, ask: &Ask, held: &Desired) -> Explanation {
    let desired = derive(knowledge);
    let mut walk = Walk { knowledge, desired: &desired, held, hops: Vec::new() };
    let broken = walk.visit(ask).err();
    Explanation { hops: walk.hops, broken }
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
