//! Virtual services in a Linux kernel.

mod amend;
mod ipvs;
mod lower;
mod native;
mod nftables;
mod standing;

use overlay_core::{Applied, BackendError, ErrorKind, Name, Owner, StepError};

pub use self::ipvs::{Ipvs, IpvsNative, IpvsStep, Marks};
pub use self::native::{Meaning, Native, NativeStep, Withdrawn};
pub use self::nftables::Nftables;

/// An owner of its own beside this one, whose instance has `-` and `what` behind it: so tables of one do not pass for the other's.
fn owner_of(owner: &Owner, what: &str) -> Result<Owner, BackendError> {
    let instance = Name::new(&format!("{}-{what}", owner.instance));
    let instance = instance.map_err(|error| BackendError::new(ErrorKind::Invalid, "name an owner").caused_by(error))?;
    Ok(Owner::new(owner.cluster.clone(), instance))
}

/// Carries out steps of several kinds: `some` does those from the first on that go together, and says how many.
fn in_runs<S>(steps: &[S], mut some: impl FnMut(&[S]) -> Result<usize, StepError>) -> Result<(), StepError> {
    let mut done = 0;
    while let Some(rest) = steps.get(done..).filter(|rest| !rest.is_empty()) {
        done += some(rest).map_err(|error| match error.applied {
            Applied::Nothing if done > 0 => StepError { at: done, applied: Applied::Before, ..error },
            _ => StepError { at: done + error.at, ..error },
        })?;
    }
    Ok(())
}
