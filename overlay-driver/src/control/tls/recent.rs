//! Certificates that handshakes have read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use overlay_crypto::pki::Certificate;

/// The certificates that handshakes have read last. A node has several connections, and TLS keeps of a handshake what was shown as bytes alone, so one would be read again and again, which
/// takes a tenth as long as a handshake. Whether to believe it is asked each time.
#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<Certificate>>);

/// As many as there are handshakes at once. What was pushed out is read again.
const MOST: usize = 64;

impl Recent {
    /// Keeps it until so many others came, if it is not there.
    pub(super) fn put(&self, certificate: &Certificate) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.contains(certificate) {
            return;
        }
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back(certificate.clone());
    }

    /// The one of these bytes, if it is there. O(those kept).
    pub(super) fn get(&self, der: &[u8]) -> Option<Certificate> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rfind(|it| it.as_der() == der).cloned()
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
    fn each_is_found_by_all_of_its_bytes_and_the_oldest_makes_room() {
        let recent = Recent::default();
        let all: Vec<_> = (0..=MOST).map(|number| certificate(number as u8)).collect();
        recent.put(&all[0]);
        recent.put(&all[0]);
        assert_eq!(recent.get(&all[0].as_der()[1..]), None);
        assert_eq!(recent.get(all[0].as_der()).as_ref(), Some(&all[0]));
        all.iter().for_each(|it| recent.put(it));
        let found: Vec<_> = all.iter().filter_map(|it| recent.get(it.as_der())).collect();
        assert_eq!(found, all[1..]);
    }
}
