//! This node's own word: what it shows of itself, and its signatures.

use overlay_core::{Instant, NetworkId};

use crate::tables::verify::{Signature, statement, voucher_key};
use crate::tables::{DIRECTORY, Tables, VOUCHERS};

impl Tables {
    /// Shows what others verify this node's signatures by, if it is other than before.
    pub(crate) fn vouch(&mut self, now: Instant) {
        let voucher = self.config.verify.as_ref().and_then(|verify| verify.voucher());
        let (Some(voucher), Some(key)) = (voucher, voucher_key()) else { return };
        if self.get(DIRECTORY, self.me, VOUCHERS, &key) != Some(&voucher) {
            // There is room for it beside all subscriptions.
            let _ = self.write(DIRECTORY, (VOUCHERS, key), Some(voucher), now);
        }
    }

    /// The most bytes by which a change of this node is longer for its signature.
    pub(super) fn signature_len(&self) -> usize {
        self.config.verify.as_ref().map_or(0, |verify| verify.longest() + SIGNATURE_HEAD)
    }

    /// A change of this node is to be signed.
    pub(super) fn owe_signature(&mut self, network: NetworkId, number: u64) {
        if self.config.verify.is_some() {
            self.unsigned.insert((network, number));
        }
    }

    /// Signs what this node has changed since it did so last: at once, before any of it leaves.
    pub(super) fn sign_made(&mut self, now: Instant) {
        let Some(verify) = self.config.verify.clone().filter(|_| !self.unsigned.is_empty()) else { return };
        let (me, incarnation) = (self.me, self.incarnation);
        let (mut made, mut statements) = (Vec::new(), Vec::new());
        for (network, number) in std::mem::take(&mut self.unsigned) {
            let chain = self.replicas.get(&network).and_then(|replica| replica.chain(me));
            if let Some(change) = chain.and_then(|chain| chain.numbered(number)) {
                statements.push(statement(network, me, incarnation, &change));
                made.push((network, number));
            }
        }
        let signatures = verify.sign(&statements);
        let fit = |signature: &&Signature| signature.as_bytes().len() <= verify.longest();
        for ((network, number), signature) in made.into_iter().zip(&signatures) {
            let replica = self.replicas.get_mut(&network);
            if let (Some(replica), Some(signature)) = (replica, Some(signature).filter(fit)) {
                replica.edit(me, incarnation, |chain| chain.sign(number, signature.as_bytes(), now));
            }
        }
    }
}

/// The length of a signature, of at most 255 bytes.
const SIGNATURE_HEAD: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::wire::Change;
    use crate::wire::varint_len;

    #[test]
    fn the_length_of_a_signature_is_foretold() {
        assert_eq!(varint_len(Signature::MOST as u64), SIGNATURE_HEAD);
        let change = Change {
            sequence: 1,
            covers: Vec::new(),
            table: VOUCHERS,
            key: voucher_key().unwrap(),
            value: None,
            signature: bytes::Bytes::new(),
        };
        let signed = Change { signature: vec![1; Signature::MOST].into(), ..change.clone() };
        assert_eq!(signed.encoded_len(), change.encoded_len() + Signature::MOST + SIGNATURE_HEAD);
    }
}
