#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod bridge_port;
mod check;
mod gateway;
mod input;
mod judge;
#[cfg(feature = "kernel")]
pub mod kernel;
mod packet;
mod policy;
mod published;
mod rule;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;

pub use bridge_port::{BridgePort, Pin, Strangers};
pub use gateway::{Egress, Gateway};
pub use input::{Limit, Tunnel};
pub use ipnet::IpNet;
pub use judge::{Gate, Judge, TunnelGate};
#[cfg(feature = "kernel")]
pub use kernel::Firewall;
pub use packet::{Content, Ends, Flow, Frame, Icmpv6, Ip, Packet, Transport};
pub use policy::{Action, Member, Mode, Policy, PolicyRule, Ports, Selector};
pub use published::{Bind, Published};
pub use rule::{PinRule, Rule, Ruling, Verdict};
pub use state::State;
pub use step::Step;
