//! XFRM: a policy that blocks, an association that seals.

use overlay_core::BackendError;

use super::socket;
use crate::netlink::{Body, Family, Flags, Requests};

/// A policy that drops what leaves for 127.0.0.9, as `struct xfrm_userpolicy_info`.
pub(super) fn block() -> Result<(), BackendError> {
    let new = Requests::one(NEW_POLICY, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        selector(body);
        lifetime(body);
        body.raw(&[0; 8]).raw(&[OUT, BLOCK, 0, 0]).raw(&[0; 4]);
    });
    socket(Family::Xfrm)?.request(&new).map_err(|error| error.during("create an IPsec policy"))
}

/// An ESP association with AES-GCM and a key of zeros, as `struct xfrm_usersa_info`.
pub(super) fn seal() -> Result<(), BackendError> {
    let new = Requests::one(NEW_ASSOCIATION, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        selector(body);
        body.raw(&PEER).raw(&0x100_u32.to_be_bytes()).raw(&[IPPROTO_ESP, 0, 0, 0]).raw(&PEER);
        lifetime(body);
        body.raw(&[0; 20]).raw(&AF_INET.to_ne_bytes()).raw(&[TRANSPORT, 0, 0]).raw(&[0; 7]);
        let mut aead = [0; 64 + 8 + 20]; // name, two lengths in bits, key and salt
        aead[..AES_GCM.len()].copy_from_slice(AES_GCM);
        aead[64..68].copy_from_slice(&160_u32.to_ne_bytes());
        aead[68..72].copy_from_slice(&128_u32.to_ne_bytes());
        body.attribute(ALGORITHM_AEAD, &aead);
    });
    socket(Family::Xfrm)?.request(&new).map_err(|error| error.during("create an ESP association"))
}

/// `struct xfrm_selector`: 56 bytes.
fn selector(body: &mut Body<'_>) {
    body.raw(&PEER).raw(&[0; 16]).raw(&[0; 8]).raw(&AF_INET.to_ne_bytes()).raw(&[32, 0, 0, 0, 0, 0]).raw(&[0; 8]);
}

/// `struct xfrm_lifetime_cfg` without limits, `struct xfrm_lifetime_cur`: 96 bytes.
fn lifetime(body: &mut Body<'_>) {
    body.raw(&[0xff; 32]).raw(&[0; 32]).raw(&[0; 32]);
}

const PEER: [u8; 16] = [127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const AES_GCM: &[u8] = b"rfc4106(gcm(aes))";
const AF_INET: u16 = 2;
const IPPROTO_ESP: u8 = 50;

// linux/xfrm.h
const NEW_ASSOCIATION: u16 = 0x10;
const NEW_POLICY: u16 = 0x13;
const ALGORITHM_AEAD: u16 = 18;
const TRANSPORT: u8 = 0;
const OUT: u8 = 1;
const BLOCK: u8 = 1;
