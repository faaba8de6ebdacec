//! Networks: changed while they live.

use overlay_core::{Commit, Key, NetworkId, Snapshot, UnixTime};
use overlay_ipam::IpamError;

use super::Manager;
use super::settle::Settled;
use super::transaction::{Decided, Trouble, not_found, refuse, withdrawn};
use crate::catalogue::record::{Held, Object as _};
use crate::{ControlError, Network, NetworkSpec, Refused};

impl NetworkSpec {
    /// Whether a network that was asked for so can be changed to `new`: it may have more subnets, behind those it has, other labels,
    /// another MTU, and be attachable or not.
    ///
    /// # Errors
    /// The first thing that cannot be changed.
    pub fn check_change(&self, new: &Self) -> Result<(), Refused> {
        new.check()?;
        let (had, wants) = (self.requests(), new.requests());
        let kept = [
            ("name", self.name == new.name),
            ("kind", self.kind == new.kind),
            ("ingress", self.ingress == new.ingress),
            ("internal", self.internal == new.internal),
            ("encrypted", self.encryption == new.encryption),
            ("VNI", self.vni == new.vni),
        ];
        match kept.into_iter().find(|(_, same)| !same) {
            Some((option, _)) => Err(Refused::Fixed { option }),
            None if !wants.starts_with(&had) => Err(Refused::SubnetsKept),
            None => Ok(()),
        }
    }
}

impl Network {
    /// Whether it was promised subnets that it has not got yet.
    pub(super) fn is_growing(&self) -> bool {
        self.subnets.len() < self.spec.requests().len()
    }
}

impl Manager {
    /// Subnets first: that they are wanted is written down, so that whoever settles goes on; they are claimed; that they are there
    /// is written down, and the other options then.
    pub(super) async fn alter_network(
        &self,
        id: NetworkId,
        spec: NetworkSpec,
        now: UnixTime,
    ) -> Result<Network, ControlError> {
        let key = self.keys.network(id);
        let grown = |had: &NetworkSpec| NetworkSpec { subnets: spec.subnets.clone(), ..had.clone() };
        let held = self.run(|snapshot| self.write_spec(snapshot, &key, &spec, grown)).await?;
        match self.grow_network(&held, now).await {
            Ok(()) => {}
            Err(Trouble::Stuck(error)) => return Err(error),
            Err(Trouble::Refused(refused)) => return Err(refused.into()),
        }
        let held = self.run(|snapshot| self.write_spec(snapshot, &key, &spec, |_| spec.clone())).await?;
        Ok(held.object)
    }

    /// Writes down what is wanted of a network from now on, as far as `of` says, if it can be changed to `spec`.
    fn write_spec(
        &self,
        snapshot: &Snapshot,
        key: &Key,
        spec: &NetworkSpec,
        of: impl Fn(&NetworkSpec) -> NetworkSpec,
    ) -> Decided<Held<Network>> {
        let Some(mut held) = self.held::<Network>(snapshot, key)? else {
            return refuse(Refused::NotFound { what: Network::WHAT, reference: spec.name.to_string() });
        };
        let id = held.object.id.to_string();
        if held.is_removing() {
            return refuse(Refused::Removing { what: Network::WHAT, id });
        }
        if held.is_pending() {
            return refuse(Refused::NotAllocated { what: Network::WHAT, id });
        }
        if let Err(refused) = held.object.spec.check_change(spec) {
            return refuse(refused);
        }
        let new = of(&held.object.spec);
        if new == held.object.spec {
            return Ok((Commit::new(), held));
        }
        held.object.spec = new;
        Ok((Commit::new().put(key.clone(), held.encode()), held))
    }

    /// Claims the subnets that a network was promised, or takes the promise back if they cannot be had.
    pub(super) async fn grow_network(&self, held: &Held<Network>, now: UnixTime) -> Result<(), Trouble> {
        if !held.object.is_growing() {
            return Ok(());
        }
        let claimed = self.ipam.claim_subnets(held.object.id, &held.object.spec.requests(), now).await;
        let trouble = match claimed {
            Ok(subnets) => {
                let has = self.change_living(held, |network| {
                    let promised = network.spec.requests().len().min(subnets.len());
                    if network.subnets.len() < promised {
                        network.subnets = subnets[..promised].to_vec();
                    }
                });
                return Ok(has.await?);
            }
            // Somebody else's claim came late: what it has is not what is asked for.
            Err(IpamError::Mismatch { .. }) => Trouble::Refused(Refused::SubnetsKept),
            Err(error) => error.into(),
        };
        if let Trouble::Refused(_) = &trouble {
            let promised = &held.object.spec.subnets;
            let undone = self.change_living(held, |network| {
                if network.spec.subnets == *promised && network.is_growing() {
                    network.spec.subnets.truncate(network.subnets.len());
                }
            });
            undone.await?;
        }
        Err(trouble)
    }

    /// Changes the record of a network that is there still and is not being removed.
    async fn change_living(
        &self,
        held: &Held<Network>,
        change: impl Fn(&mut Network) + Send + Sync,
    ) -> Result<(), ControlError> {
        let (id, key) = (held.object.id, held.object.key(&self.keys));
        self.run(|snapshot| {
            let Some(now) = self.held::<Network>(snapshot, &key)? else { return refuse(not_found::<Network>(id)) };
            if now.claim != held.claim || now.is_removing() {
                return refuse(withdrawn::<Network>(&id));
            }
            let mut changed = now.clone();
            change(&mut changed.object);
            match changed == now {
                true => Ok((Commit::new(), ())),
                false => Ok((Commit::new().put(key.clone(), changed.encode()), ())),
            }
        })
        .await
    }

    /// Goes on with what networks were promised when a manager died. What cannot be had is promised no more.
    pub(super) async fn settle_growth(&self, settled: &mut Settled, now: UnixTime) -> Result<(), ControlError> {
        let (mut networks, _) = self.readable::<Network>().await?;
        networks.retain(|held| !held.is_pending() && !held.is_removing() && held.object.is_growing());
        for held in networks {
            match self.grow_network(&held, now).await {
                Ok(()) => settled.allocated += 1,
                Err(Trouble::Stuck(error)) => settled.troubles.push(error),
                Err(Trouble::Refused(_)) => {}
            }
        }
        Ok(())
    }
}
