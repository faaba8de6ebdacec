//! The networks that a cluster has from its beginning.

use overlay_core::{Commit, IpFamily, Name, NetworkId, UnixTime};
use overlay_ipam::SubnetRequest;

use super::Manager;
use crate::{ControlError, Kind, NetworkSpec, Refused};

/// Names of networks that every cluster has, and keeps, as Docker's hosts do.
const NAMES: [&str; 3] = ["bridge", "host", "none"];

/// Where the bridge network's subnet is, unless that is taken.
const BRIDGE: &str = "172.17.0.0/16";

impl NetworkSpec {
    /// Whether it has the name of a network that every cluster has from its beginning, and keeps: `bridge`, `host` or `none`.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }
}

fn is_predefined(name: &Name) -> bool {
    NAMES.contains(&name.folded().as_str())
}

/// Refuses to create or remove a predefined network.
pub(super) fn refuse_predefined(name: &Name) -> Result<(), Refused> {
    match is_predefined(name) {
        true => Err(Refused::Predefined { name: name.clone() }),
        false => Ok(()),
    }
}

impl Manager {
    /// Makes the networks that a cluster begins with, once in its life: `bridge`, `host` and `none`, which stay, and the default ingress network,
    /// which may be removed, and another be created. Without effect from then on, so that every manager may call it whenever it starts.
    ///
    /// # Errors
    /// What is in the way of a network. Nothing is kept of it then, and the next call tries again.
    pub async fn found_cluster(&self, ingress: NetworkId, now: UnixTime) -> Result<(), ControlError> {
        let founded = self.keys.founded();
        if self.store.get(&founded).await?.is_some() {
            return Ok(());
        }
        let spec = NetworkSpec { ingress: true, ..NetworkSpec::overlay(name("ingress")) };
        match self.make_network(ingress, spec, now).await {
            Ok(_) | Err(ControlError::Refused(Refused::IngressPresent { .. })) => {}
            Err(error) => return Err(error),
        }
        for kind in [Kind::Bridge, Kind::Host, Kind::None] {
            self.predefine(kind, now).await?;
        }
        let put = self.run(|snapshot| {
            Ok(match snapshot.get(&founded)? {
                Some(_) => (Commit::new(), ()),
                None => (Commit::new().put(founded.clone(), ingress.to_string()), ()),
            })
        });
        put.await
    }

    /// Makes a predefined network. Its id is that of its name, so that managers who do it at once make one.
    async fn predefine(&self, kind: Kind, now: UnixTime) -> Result<(), ControlError> {
        let name = name(&kind.to_string());
        let mut last = Ok(());
        for subnets in subnets(kind) {
            let spec = NetworkSpec { attachable: kind == Kind::Bridge, subnets, ..NetworkSpec::of(kind, name.clone()) };
            last = match self.make_checked_network(id(&name), spec, now).await {
                // Another manager made it, of another subnet.
                Ok(_) | Err(ControlError::Refused(Refused::Differs { .. })) => return Ok(()),
                Err(error) => Err(error),
            };
            if !matches!(last, Err(ControlError::Refused(Refused::Subnet(_)))) {
                return last;
            }
        }
        last
    }
}

/// What to ask for, the best first.
fn subnets(kind: Kind) -> Vec<Vec<SubnetRequest>> {
    let usual = BRIDGE.parse().map(SubnetRequest::this).into_iter();
    match kind {
        Kind::Bridge => usual.chain([SubnetRequest::any(IpFamily::V4)]).map(|request| vec![request]).collect(),
        _ => vec![Vec::new()],
    }
}

/// The name's letters, as far as they go.
fn id(name: &Name) -> NetworkId {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.as_str().bytes()).for_each(|(byte, letter)| *byte = letter);
    NetworkId::from_bytes(bytes)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|_| unreachable!("a few letters make a name"))
}
