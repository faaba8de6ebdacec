//! Native state `nft`: tables of nf_tables, with their chains, rules, sets and maps.
//!
//! [`State`] mirrors the kernel's objects one to one, rule bodies and elements too. Area crates lower their values to it; it
//! plans, and [`Nft`] reads it back and carries its steps out, all steps of a phase in one transaction: packets see all
//! of a change or nothing of it. The state is pure, so all of it but `Nft` is tested without privilege.
//!
//! Rules are built from typed [`Field`]s and values, so that an address is not compared with a port; registers are
//! allocated as nf_tables' own tool does it. What comes and goes (endpoints, ports, services) belongs in [`Set`]s and
//! maps, where one lookup costs the same for ten and for a hundred thousand, and a change is an element: see [`State`].

mod barrier;
mod carry;
mod chain;
mod check;
mod expr;
mod field;
mod grave;
mod guest;
mod kernel;
mod observe;
mod plan;
mod prune;
mod rule;
mod set;
mod state;
mod statement;
mod step;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod value;
mod wire;
mod writers;

pub use barrier::Barrier;
pub use chain::{Base, Chain, ChainKind, Hook, Policy};
pub use expr::Verdict;
pub use field::{
    Field, Operand, arp, ct, ether, fib, ip, ip6, jhash, meta, numgen_increment, numgen_random, rt, symhash, th, vxlan,
};
pub use grave::{Burial, Buried, Cut, Grave};
pub use guest::HostChain;
pub use kernel::{Nft, Reading, Readings, RuleKey};
pub use rule::Rule;
pub use set::{Set, SetHead};
pub use state::{Family, State, Table, TableKey};
pub use statement::{Limit, Log, LogTo, NatFlags, NatTarget, Per, Reject, Unreachable};
pub use step::{Elements, Step};
pub use value::{
    AddressType, ArpOp, CtDirection, CtState, CtStatus, EtherType, Icmp6Type, IcmpType, IfIndex, IpProtocol, Mark,
    PacketType, Scalar, TcpFlags, Type, Value,
};
pub use writers::Writers;
