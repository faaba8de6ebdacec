#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs as provider;
#[cfg(not(feature = "aws-lc-rs"))]
use ring as provider;

mod check;
mod cipher;
mod esp;
pub mod gossip;
mod hex;
mod judge;
#[cfg(feature = "kernel")]
pub mod kernel;
mod key;
mod keys;
mod lane;
#[cfg(feature = "pki")]
pub mod pki;
mod rotation;
mod sa;
mod spi;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod version;

pub use cipher::Cipher;
pub use esp::{
    Arrived, Numbers, OpenCounts, OpenError, Opened, Opener, Openers, ReplayWindow, SealCounts, SealError, Sealer,
    Sealers, UdpEncapsulation, WindowSize, WindowSizeError, sealed_len,
};
pub use judge::{Datagram, Reason, Verdict};
pub use key::{KeyLengthError, SaKey, Spent, TakenKey};
pub use keys::{
    AgreeError, AlreadyIssued, Chance, Direction, Epoch, EpochError, EpochRecord, EpochRecords, EpochSecret, Issued,
    Pair, PublicKey, Use,
};
pub use lane::{Lane, Lanes, LanesError};
pub use rotation::{
    Cause, Causes, Rotation, RotationConfig, RotationConfigError, RotationCounts, RotationEvent, Stage, Usage,
};
pub use sa::{Epochs, Limits, Sa, SaId};
pub use spi::{Spi, SpiError};
pub use state::{SpiTaken, State, Step, Tunnel};
