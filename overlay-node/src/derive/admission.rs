//! Which endpoints of a network there is room for: each with an address of its own.

use std::collections::BTreeMap;

use overlay_core::EndpointId;

use super::Footing;
use super::claim::{Claim, Taken, Unfit};
use crate::{Knowledge, Section};

/// The endpoints of a network that are in effect here, and what each has.
///
/// What is plugged in here comes first, then what other nodes say, each in the order of ids: of two that say they have one
/// address, the first has it.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    pub(super) ports: BTreeMap<EndpointId, Claim>,
    pub(super) peers: BTreeMap<EndpointId, Claim>,
    /// Who is left out, or an address of whom.
    pub(super) unfit: BTreeMap<EndpointId, Unfit>,
    pub(super) taken: Taken,
}

impl Admission {
    pub(super) fn of(knowledge: &Knowledge, section: &Section, footing: &Footing) -> Self {
        let mut admission = Self::local(section, footing);
        for (id, remote) in section.remote.iter().filter(|(id, _)| !section.local.contains_key(id)) {
            let claim = Claim::of_remote(knowledge, section, footing, remote);
            match claim.and_then(|(claim, unfit)| admission.settle(claim, unfit)) {
                Ok((claim, unfit)) => {
                    admission.taken.take(&claim);
                    admission.peers.insert(*id, claim);
                    admission.unfit.extend(unfit.map(|unfit| (*id, unfit)));
                }
                Err(unfit) => drop(admission.unfit.insert(*id, unfit)),
            }
        }
        admission
    }

    /// As if there were no other nodes. O(what is here).
    pub(super) fn local(section: &Section, footing: &Footing) -> Self {
        let taken = Taken::of(section, footing.vni);
        let mut admission = Self { ports: BTreeMap::new(), peers: BTreeMap::new(), unfit: BTreeMap::new(), taken };
        for (id, local) in &section.local {
            let claim = Claim::of_local(section, *id, local);
            match claim.and_then(|claim| admission.taken.conflict(&claim).map_or(Ok(claim), Err)) {
                Ok(claim) => {
                    admission.taken.take(&claim);
                    admission.ports.insert(*id, claim);
                }
                Err(unfit) => drop(admission.unfit.insert(*id, unfit)),
            }
        }
        admission
    }

    /// An endpoint elsewhere has those of its addresses that nobody has; of the others, one is told.
    fn settle(&self, mut claim: Claim, mut unfit: Option<Unfit>) -> Result<(Claim, Option<Unfit>), Unfit> {
        if self.taken.has_mac(claim.mac) {
            return Err(Unfit::MacTaken(claim.mac));
        }
        claim.addresses.retain(|address| {
            let taken = self.taken.has(*address);
            unfit = if taken { Some(Unfit::AddressTaken(*address)) } else { unfit };
            !taken
        });
        match unfit.filter(|_| claim.addresses.is_empty()) {
            Some(unfit) => Err(unfit),
            None => Ok((claim, unfit)),
        }
    }
}
