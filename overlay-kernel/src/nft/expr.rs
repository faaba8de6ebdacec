//! A rule's expressions, one to one as the kernel has them.

use overlay_core::Name;

use super::field::Base;
use super::value::Bytes;
use super::{CtDirection, Limit, Log, NatFlags, Reject};

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It may pass this hook; base chains of a higher priority number look at it still.
    Accept,
    /// It is gone.
    Drop,
    /// The next rule.
    Continue,
    /// Back to the rule after the jump; in a base chain, its policy.
    Return,
    /// The rules of a regular chain, then the next one here.
    Jump(Name),
    /// The rules of a regular chain, and not back.
    Goto(Name),
}

impl Verdict {
    /// The chain it leads to.
    pub const fn chain(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// One of the sixteen 32-bit registers by its number; a longer value takes those after it too.
pub(super) type Register = u8;

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal = 0,
    NotEqual = 1,
    Less = 2,
    LessOrEqual = 3,
    Greater = 4,
    GreaterOrEqual = 5,
}

/// An expression. Registers are allocated by [`Rule`](super::Rule)'s methods as nf_tables' own tool does it, from 0 on in
/// each statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Payload {
        to: Register,
        base: Base,
        offset: u32,
        size: u32,
    },
    Meta {
        to: Register,
        key: u32,
    },
    SetMeta {
        from: Register,
        key: u32,
    },
    Ct {
        to: Register,
        key: u32,
        direction: Option<CtDirection>,
    },
    SetCt {
        from: Register,
        key: u32,
        direction: Option<CtDirection>,
    },
    Fib {
        to: Register,
        flags: u32,
    },
    Route {
        to: Register,
        key: u32,
    },
    Numgen {
        to: Register,
        random: bool,
        modulus: u32,
    },
    Jhash {
        to: Register,
        from: Register,
        size: u32,
        modulus: u32,
        seed: u32,
    },
    Symhash {
        to: Register,
        modulus: u32,
    },
    Value {
        to: Register,
        bytes: Bytes,
    },
    Verdict(Verdict),
    Compare {
        from: Register,
        how: Compare,
        bytes: Bytes,
    },
    Range {
        from: Register,
        outside: bool,
        low: Bytes,
        high: Bytes,
    },
    Bits {
        at: Register,
        mask: Bytes,
        xor: Bytes,
    },
    ToNetworkOrder {
        at: Register,
        size: u32,
    },
    Lookup {
        set: Name,
        from: Register,
        to: Option<Found>,
        negated: bool,
    },
    /// Puts a key and what it leads to into a map that rules fill, or has it begin its time anew.
    Update {
        set: Name,
        key: Register,
        value: Register,
        seconds: u32,
    },
    Nat {
        destination: bool,
        ipv6: bool,
        address: Option<Register>,
        port: Option<Register>,
        flags: NatFlags,
    },
    Masquerade(NatFlags),
    Redirect {
        port: Option<Register>,
        flags: NatFlags,
    },
    TransparentProxy {
        ipv6: Option<bool>,
        address: Option<Register>,
        port: Option<Register>,
    },
    Reject(Reject),
    Counter,
    Limit(Limit),
    Log(Log),
    Untracked,
    /// One that we do not make: observed only.
    Strange(Box<str>),
}

/// Where a lookup puts what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The verdict is carried out.
    Verdict,
    In(Register),
}
