//! Security associations.

use std::fmt;
use std::net::IpAddr;

use super::{Key, Selector};

/// What names an association: where its packets go, and the SPI there (RFC 4301 §4.1). The protocol is ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaId {
    /// Where its packets go.
    pub destination: IpAddr,
    /// Its number there, 256 or more.
    pub spi: u32,
}

/// An ESP security association.
///
/// Two are equal if their parameters are: `key` and `counted` are what one begins with, and the kernel does not tell them for sure.
#[derive(Debug, Clone)]
pub struct Sa {
    /// Where its packets come from.
    pub source: IpAddr,
    /// By what templates find it, and whose it is: see [`Claim`](super::Claim).
    pub reqid: u32,
    /// What of a packet is sealed.
    pub mode: Mode,
    /// By what it is sealed, with an integrity check value of 128 bits.
    pub aead: Aead,
    /// Whether sequence numbers have 64 bits (RFC 4304).
    pub extended: bool,
    /// How many sequence numbers the receiver remembers: 1 to 4,096.
    pub window: u32,
    /// When it ends.
    pub lifetimes: Lifetimes,
    /// The UDP header in front (RFC 3948), where there is NAT between.
    pub udp: Option<UdpPorts>,
    /// The only packets that it seals, and the only ones that pass when it has opened them; none is any.
    pub selector: Option<Selector>,
    /// How many packets were counted before it begins, in both directions: 0 but in tests.
    pub counted: u64,
    /// The key; none where it was read from the kernel.
    pub key: Option<Key>,
}

/// What of a packet is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// What follows the IP header.
    Transport,
    /// All of it, in a new IP header.
    Tunnel,
}

/// An AEAD of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aead {
    /// AES-GCM with a key of 128 bits (RFC 4106).
    Aes128Gcm,
    /// AES-GCM with a key of 256 bits (RFC 4106).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

impl Aead {
    /// All.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => "rfc4106(gcm(aes))",
            Self::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
        }
    }

    /// Bytes of key and salt together.
    pub const fn material_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 20,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 36,
        }
    }
}

/// When an association ends, and when it is said beforehand. The default is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lifetimes {
    /// At these the kernel tells who listens.
    pub soft: Limits,
    /// At these the association goes.
    pub hard: Limits,
}

/// How much is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
    /// Seconds since it was made.
    pub seconds: Option<u64>,
}

/// The ports of the UDP header in front of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpPorts {
    /// The sender's.
    pub source: u16,
    /// The receiver's.
    pub destination: u16,
}

impl PartialEq for Sa {
    fn eq(&self, other: &Self) -> bool {
        let of = |sa: &Self| {
            let Self { source, reqid, mode, aead, extended, window, lifetimes, udp, selector, counted: _, key: _ } = sa;
            (*source, *reqid, *mode, *aead, *extended, *window, *lifetimes, *udp, *selector)
        };
        of(self) == of(other)
    }
}

impl Eq for Sa {}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x} to {}", self.spi, self.destination)
    }
}

impl fmt::Display for Sa {
    /// All that is usual to differ; never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, reqid, mode, aead, extended, window, udp, selector, .. } = self;
        let mode = if *mode == Mode::Transport { "transport" } else { "tunnel" };
        write!(f, "from {source} reqid {reqid} {mode} {} window {window}", aead.name())?;
        f.write_str(if *extended { " esn" } else { "" })?;
        udp.map_or(Ok(()), |UdpPorts { source, destination }| write!(f, " in udp {source} to {destination}"))?;
        selector.map_or(Ok(()), |selector| write!(f, ", only {selector}"))
    }
}
