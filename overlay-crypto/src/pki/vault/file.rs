//! What a vault's file is made of: a line that says so, the length (4) of what anybody may know and that, as JSON; 0 or 1 for keys in the clear or locked; the keys.
//!
//! The keys: 32 bytes of a manager's sealing key, or none, as the byte before them says (1 or 0); the length (4) of the node's key in PKCS #8 and that; the length (4) of what else is secret and that.

use zeroize::Zeroizing;

use super::{Kept, VaultError};
use crate::pki::{Issued, Locked, SealingKey, SigningKey, UnlockKey};

const FIRST: &[u8] = b"overlay-crypto vault 1\n";

/// What is wrong with a file.
pub(super) enum Flaw {
    Form(&'static str),
    Other(VaultError),
}

pub(super) fn encode(
    kept: &Kept,
    unlock: Option<&UnlockKey>,
    fill: impl FnOnce(&mut [u8]),
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let open = serde_json::to_vec(&kept.issued).unwrap_or_default();
    let (key, sealing) = (kept.key.to_pkcs8(), kept.sealing.as_ref().map(SealingKey::to_bytes));
    let mut keys = Zeroizing::new(Vec::with_capacity(1 + 32 + 4 + key.len() + 4 + kept.beside.len()));
    keys.push(u8::from(sealing.is_some()));
    if let Some(sealing) = &sealing {
        keys.extend_from_slice(sealing.as_slice());
    }
    for part in [&key, &kept.beside] {
        keys.extend_from_slice(&(part.len() as u32).to_be_bytes());
        keys.extend_from_slice(part);
    }
    let locked = unlock.map(|unlock| Locked::lock(&keys, unlock, fill)).transpose()?;
    let secret = locked.as_ref().map_or(keys.as_slice(), Locked::as_bytes);
    let mut file = Zeroizing::new(Vec::with_capacity(FIRST.len() + 4 + open.len() + 1 + secret.len()));
    file.extend_from_slice(FIRST);
    file.extend_from_slice(&(open.len() as u32).to_be_bytes());
    file.extend_from_slice(&open);
    file.push(u8::from(locked.is_some()));
    file.extend_from_slice(secret);
    Ok(file)
}

pub(super) fn decode(file: &[u8], unlock: Option<&UnlockKey>) -> Result<Kept, Flaw> {
    let rest = file.strip_prefix(FIRST).ok_or(Flaw::Form("no vault, or of a later release"))?;
    let (open, rest) = part(rest).ok_or(CUT)?;
    let issued: Issued = serde_json::from_slice(open).map_err(|_| Flaw::Form("its certificates make no sense"))?;
    let (locked, kept) = rest.split_first().ok_or(CUT)?;
    let keys = match (locked, unlock) {
        (0, None) => Zeroizing::new(kept.to_vec()),
        (1, Some(unlock)) => Locked::from_bytes(kept).unlock(unlock).map_err(|error| Flaw::Other(error.into()))?,
        (0, Some(_)) => return Err(Flaw::Other(VaultError::NotLocked)),
        (1, None) => return Err(Flaw::Other(VaultError::Locked)),
        _ => return Err(Flaw::Form("keys that are neither locked nor in the clear")),
    };
    let (sealing, rest) = match keys.split_first().ok_or(CUT)? {
        (0, rest) => (None, rest),
        (_, rest) => {
            let (sealing, rest) = rest.split_first_chunk().ok_or(CUT)?;
            (Some(SealingKey::from_bytes(*sealing)), rest)
        }
    };
    let (key, rest) = part(rest).ok_or(CUT)?;
    let (beside, []) = part(rest).ok_or(CUT)? else { return Err(Flaw::Form("there is more than belongs to it")) };
    let key = SigningKey::from_pkcs8(key).map_err(|_| Flaw::Form("its key is none"))?;
    let is_ours = issued.certificate().is_some_and(|certificate| certificate.key() == key.digest());
    let beside = Zeroizing::new(beside.to_vec());
    if is_ours {
        Ok(Kept { key, issued, sealing, beside })
    } else {
        Err(Flaw::Form("its key is not its certificate's"))
    }
}

/// What a length before it tells, and what comes after.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

const CUT: Flaw = Flaw::Form("it ends too early");
