//! Certificates that handshakes have read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use overlay_crypto::pki::Certificate;

/// The certificates that handshakes have read last. TLS keeps of a handshake what was shown as bytes alone, so whoever has the connection would read them again, which takes a tenth as
/// long as the handshake.
#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<Certificate>>);

/// As many as there are handshakes at once. What was pushed out is read again.
const MOST: usize = 64;

impl Recent {
    /// Keeps it until it is taken, or so many others came.
    pub(super) fn put(&self, certificate: Certificate) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back(certificate);
    }

    /// The one of these bytes, if it is there. O(those kept).
    pub(super) fn take(&self, der: &[u8]) -> Option<Certificate> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().rposition(|it| it.as_der() == der)?;
        kept.remove(at)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{ClusterId, UnixTime};
    use overlay_crypto::pki::{Algorithm, Authority, Serial, SigningKey};

    use super::*;

    fn certificate(number: u8) -> Certificate {
        let (cluster, now) = (ClusterId::from_bytes([5; 16]), UnixTime::from_millis(1_800_000_000_000));
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        let serial = Serial::generate(|bytes| bytes.fill(number));
        Authority::create(cluster, key, &serial, now).unwrap().certificate().clone()
    }

    #[test]
    fn each_is_found_by_all_of_its_bytes_once_and_the_oldest_makes_room() {
        let (recent, all) = (Recent::default(), [1, 2].map(certificate));
        all.iter().for_each(|it| recent.put(it.clone()));
        assert_eq!(recent.take(&all[0].as_der()[1..]), None);
        assert_eq!(recent.take(all[0].as_der()).as_ref(), Some(&all[0]));
        assert_eq!(recent.take(all[0].as_der()), None);
        (0..MOST).for_each(|_| recent.put(all[0].clone()));
        assert_eq!(recent.take(all[1].as_der()), None);
        assert_eq!((0..=MOST).filter(|_| recent.take(all[0].as_der()).is_some()).count(), MOST);
    }
}
