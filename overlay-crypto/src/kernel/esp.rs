//! What ESP a kernel has.

use std::collections::BTreeSet;
use std::fmt;

use overlay_core::{BackendError, IpFamily, Refusal};
use overlay_kernel::xfrm::{self, Missing};

use super::lower::aead;
use crate::{Cipher, SaId, State};

/// What ESP a kernel has: all but what it lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Esp {
    /// What is not there.
    pub lacks: BTreeSet<Lack>,
}

/// A part of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lack {
    /// ESP over one family.
    Over(IpFamily),
    /// A cipher.
    Cipher(Cipher),
}

impl Esp {
    /// A kernel that has none of it.
    pub fn none() -> Self {
        let families = [IpFamily::V4, IpFamily::V6].map(Lack::Over);
        Self { lacks: families.into_iter().chain(Cipher::ALL.map(Lack::Cipher)).collect() }
    }

    /// Asks the kernel. Over a family that no cipher serves there is none.
    pub(super) fn of(xfrm: &mut xfrm::Xfrm) -> Result<Self, BackendError> {
        let mut esp = Self::none();
        for family in [IpFamily::V4, IpFamily::V6] {
            for cipher in Cipher::ALL {
                let missing = xfrm.missing(family, aead(cipher))?;
                if missing.is_none() {
                    esp.lacks.remove(&Lack::Over(family));
                }
                if missing != Some(Missing::Aead) {
                    esp.lacks.remove(&Lack::Cipher(cipher));
                }
            }
        }
        Ok(esp)
    }

    /// Refuses a state that this kernel cannot protect: its associations, and its ports where no association could ever be.
    pub(super) fn permit(&self, state: &State) -> Result<(), Refusal> {
        let none = [IpFamily::V4, IpFamily::V6].map(Lack::Over).iter().all(|lack| self.lacks.contains(lack));
        if let (true, Some(port)) = (none, state.ports.first()) {
            return Err(Refusal::new(format!("port {port}"), "ESP", NO_ESP));
        }
        state.sas.iter().filter(|_| !self.lacks.is_empty()).try_for_each(|(id, sa)| self.permits(id, sa.key.cipher()))
    }

    fn permits(&self, id: &SaId, cipher: Cipher) -> Result<(), Refusal> {
        let needs = [Lack::Over(IpFamily::of(id.destination)), Lack::Cipher(cipher)];
        match needs.into_iter().find(|need| self.lacks.contains(need)) {
            Some(lack) => Err(Refusal::new(format!("SA {id}"), lack.to_string(), lack.remedy())),
            None => Ok(()),
        }
    }
}

impl Lack {
    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Over(IpFamily::V4) => "this kernel has none: load its module esp4 (CONFIG_INET_ESP), then begin anew",
            Self::Over(IpFamily::V6) => {
                "this kernel has none: load its module esp6 (CONFIG_INET6_ESP), then begin anew"
            }
            Self::Cipher(Cipher::Aes128Gcm | Cipher::Aes256Gcm) => {
                "this kernel lacks it: load its modules gcm and seqiv (CONFIG_CRYPTO_GCM), then begin anew; or use \
                 ChaCha20-Poly1305"
            }
            Self::Cipher(Cipher::ChaCha20Poly1305) => {
                "this kernel lacks it: load its modules chacha20poly1305 and seqiv (CONFIG_CRYPTO_CHACHA20POLY1305), then \
                 begin anew; or use AES-GCM"
            }
        }
    }
}

const NO_ESP: &str = "this kernel has none, so nothing could pass: load its modules esp4 and esp6 (CONFIG_INET_ESP, \
                      CONFIG_INET6_ESP), then begin anew";

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over(family) => write!(f, "ESP over {family}"),
            Self::Cipher(cipher) => cipher.fmt(f),
        }
    }
}
