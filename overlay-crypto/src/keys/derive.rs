//! Key, salt and SPI of one association, from the secret of two nodes (RFC 5869).

use crate::provider::hkdf::{HKDF_SHA256, KeyType, Salt};
use overlay_core::{NetworkId, NodeId};
use zeroize::Zeroizing;

use super::EpochRecord;
use crate::{Cipher, Lane, SaKey, Spi};

/// All that an association's key depends on besides the secret. Each field has one length, so no two of them are written alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) cipher: Cipher,
    pub(super) network: NetworkId,
    pub(super) lane: Lane,
    pub(super) sender: (NodeId, EpochRecord),
    pub(super) receiver: (NodeId, EpochRecord),
}

const LABEL: &[u8] = b"overlay-crypto ESP 1"; // another number if anything of the derivation changes
const SPI_LEN: usize = 4;

/// One output of HKDF: key, salt, SPI. What both ends derive is the same exactly if secret and context are.
pub(super) fn derive(shared: &[u8; 32], context: &Context) -> Option<(Spi, SaKey)> {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }

    let length = context.cipher.material_len() + SPI_LEN;
    let mut output = Zeroizing::new([0; 40]);
    let output = output.get_mut(..length)?;
    let pseudorandom = Salt::new(HKDF_SHA256, LABEL).extract(shared);
    let info = context.encode();
    pseudorandom.expand(&[LABEL, &info], Len(length)).ok()?.fill(output).ok()?;
    let (material, spi) = output.split_last_chunk::<SPI_LEN>()?;
    Some((Spi::of_chance(u32::from_be_bytes(*spi)), SaKey::new(context.cipher, material).ok()?))
}

impl Context {
    fn encode(&self) -> Vec<u8> {
        let Self { cipher, network, lane, sender, receiver } = self;
        let mut bytes = vec![*cipher as u8, lane.get()];
        bytes.extend(network.to_bytes());
        for (node, record) in [sender, receiver] {
            bytes.extend(node.to_bytes());
            bytes.extend(record.encode());
        }
        bytes
    }
}
