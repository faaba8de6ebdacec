//! Why a carrier carries no more.

use std::io;
use std::sync::{Arc, OnceLock};

/// Why a thread of a [`Carrier`](super::Carrier) has ended though nobody told it to. What its queue carried is carried no more: start another carrier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierEnded {
    /// The kernel refused to say what is ready.
    #[error("the kernel does not say what is ready ({0}): start another carrier")]
    Refused(String),
    /// A mistake of ours.
    #[error("a thread that carries packets has panicked: start another carrier")]
    Panicked,
}

/// Where a thread says it: the first is heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Epitaph(Arc<OnceLock<CarrierEnded>>);

impl Epitaph {
    pub(super) fn read(&self) -> Option<CarrierEnded> {
        self.0.get().cloned()
    }

    /// Works, and writes down if that ends otherwise than it should.
    pub(super) fn of(self, work: impl FnOnce() -> io::Result<()>) {
        let unless = Unless(self);
        if let Err(error) = work() {
            let _ = unless.0.0.set(CarrierEnded::Refused(error.to_string())); // unless another was first
        }
    }
}

/// What is written unless the work comes back.
struct Unless(Epitaph);

impl Drop for Unless {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.0.set(CarrierEnded::Panicked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_no_more_says_why() {
        let (fine, refused, panicked) = (Epitaph::default(), Epitaph::default(), Epitaph::default());
        fine.clone().of(|| Ok(()));
        assert_eq!(fine.read(), None);
        refused.clone().of(|| Err(io::Error::from_raw_os_error(9)));
        assert!(matches!(refused.read(), Some(CarrierEnded::Refused(why)) if why.contains("os error 9")));
        let works = panicked.clone();
        let ended = std::panic::catch_unwind(|| works.of(|| panic!("on purpose")));
        assert!(ended.is_err());
        assert_eq!(panicked.read(), Some(CarrierEnded::Panicked));
    }
}
