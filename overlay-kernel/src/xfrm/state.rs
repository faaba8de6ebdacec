//! The native state: what one owner has in XFRM of one namespace.

use std::collections::BTreeMap;

use overlay_core::{Change, Phase, Refusal, in_phases, keyed_diff};

use super::{Policy, PolicyKey, Sa, SaId, Step, check};

/// Associations and policies of one owner in one namespace.
///
/// It has secrets, so it cannot be serialised; what is printed of it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The associations; [`add`](Self::add) notices when an SPI comes twice.
    pub sas: BTreeMap<SaId, Sa>,
    /// The policies.
    pub policies: BTreeMap<PolicyKey, Policy>,
}

/// Another association has the SPI already: another key or other parameters need another SPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SA {0} is there with another key or other parameters, which need another SPI")]
pub struct SpiTaken(pub SaId);

impl State {
    /// Adds an association, unless it is there.
    ///
    /// # Errors
    /// [`SpiTaken`], and nothing changed, if there is one of that name that is another, or has a key that is no copy of this one's.
    pub fn add(&mut self, id: SaId, sa: Sa) -> Result<(), SpiTaken> {
        let Some(there) = self.sas.get(&id) else {
            self.sas.insert(id, sa);
            return Ok(());
        };
        let same_key = match (&there.key, &sa.key) {
            (Some(there), Some(new)) => there.is_copy_of(new),
            _ => false,
        };
        if same_key && *there == sa { Ok(()) } else { Err(SpiTaken(id)) }
    }
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n log n) for n changes, O(n) to find them. Policies for what arrives come before those for what leaves.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        for change in keyed_diff(&self.policies, &desired.policies) {
            steps.push(match change {
                Change::Add(key, policy) | Change::Replace(key, _, policy) => Step::PutPolicy(*key, policy.clone()),
                Change::Remove(key, policy) => Step::RemovePolicy(*key, policy.clone()),
            });
        }
        for change in keyed_diff(&self.sas, &desired.sas) {
            steps.push(match change {
                Change::Add(id, sa) | Change::Replace(id, _, sa) => Step::AddSa(*id, sa.clone()),
                Change::Remove(id, _) => Step::RemoveSa(*id),
            });
        }
        in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::PutPolicy(key, policy) => drop(self.policies.insert(*key, policy.clone())),
            Step::AddSa(id, sa) => drop(self.sas.insert(*id, sa.clone())),
            Step::RemovePolicy(key, _) => drop(self.policies.remove(key)),
            Step::RemoveSa(id) => drop(self.sas.remove(id)),
        }
    }

    fn phase(step: &Step) -> Phase {
        step.phase()
    }

    fn check(&self) -> Result<(), Refusal> {
        check::state(self)
    }
}
