//! The protection of a tunnel.

use std::collections::BTreeMap;

use overlay_core::{NodeId, Port};
use overlay_crypto::{Sa, SaId, Spi, Tunnel};

use super::Hop;
use super::walk::{Walk, broken};
use crate::{Break, Desired, Place, Section};

impl Walk<'_> {
    /// Of an encrypted network: keys were agreed on with the other node, and the host protects the tunnel by them.
    pub(super) fn sealed(&mut self, section: &Section, node: NodeId, port: Port) -> Result<(), Break> {
        let Some(carried) = section.carried() else { return Ok(()) };
        let (network, short) = (&section.network.spec.name, node.short());
        let Some(there) = self.knowledge.records.get(&node).copied() else {
            let missing = format!(
                "node {short} has published no key, or is no node of the catalogue, so nothing of {network} is sent there: it would be in the clear"
            );
            return broken(missing, "see on that node whether it can encrypt; its key comes by gossip");
        };
        let agreed = self.knowledge.protection.with(node).filter(|keys| keys.tunnels.contains_key(&carried));
        let Some(keys) = agreed else {
            let missing = format!("no keys are agreed on with node {short}, so nothing of {network} is sent there");
            return broken(missing, "start the agent of either node again, which then has another key");
        };
        let tunnel = Tunnel { port, local: keys.local, peer: keys.peer };
        let [wanted, held] = [self.desired, self.held].map(|of| protects(of, &tunnel));
        match (wanted, held) {
            (Some(wanted), Some(held)) if wanted == held => {
                let (port, lanes) = (tunnel.port, wanted.0.len());
                let (here, cause) = (self.knowledge.records.get(&self.knowledge.me).copied(), self.knowledge.rotated);
                let spis = wanted.0.clone();
                self.hops.push(Hop::Sealed { port, lanes, spis, here, cause, there });
                Ok(())
            }
            (None, _) => broken(
                format!("the tunnel to node {short} is not protected: another node has its VTEP {}", tunnel.peer),
                "give each node an address of its own",
            ),
            _ => broken(
                format!("{}: the tunnel to node {short} is not protected, or otherwise than it should be", Place::Host),
                "have the host hold what is desired: it is known here, and not applied",
            ),
        }
    }
}

type Protected<'d> = (&'d Vec<Spi>, BTreeMap<&'d SaId, &'d Sa>);

/// How a tunnel is sent by, and all of its associations; `None` if it is not protected.
fn protects<'d>(of: &'d Desired, tunnel: &Tunnel) -> Option<Protected<'d>> {
    let state = &of.places.get(&Place::Host)?.crypto;
    let its = |(id, sa): &(&SaId, &Sa)| sa.port == tunnel.port && [id.destination, sa.source].contains(&tunnel.peer);
    Some((state.tunnels.get(tunnel)?, state.sas.iter().filter(its).collect()))
}
