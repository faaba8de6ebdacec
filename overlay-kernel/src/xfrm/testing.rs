//! Proptest strategies for native states (feature `testing`).

use std::net::IpAddr;

use proptest::collection::btree_set;
use proptest::prelude::*;

use super::{
    Action, Aead, Claim, Direction, Key, Lifetimes, Limits, Mode, Policy, PolicyKey, Ports, Sa, SaId, Selector, State,
    Template, UdpPorts,
};

/// What the strategies' states are claimed by.
pub const CLAIM: Claim = Claim { reqids: (100, 199), priorities: (1000, 1999) };

/// States that pass their check and that a kernel can hold, small and alike enough that two of them differ in every way a plan can
/// meet. What an association is follows from its SPI, as it must; of all there are, `with_sas` or none.
pub fn state(with_sas: bool) -> impl Strategy<Value = State> {
    let sas = btree_set(0_u32..8, 0..if with_sas { 5 } else { 1 });
    let policies = proptest::collection::vec(proptest::option::of((0_u32..3, any::<bool>())), 8);
    (sas, policies).prop_map(move |(sas, policies)| State {
        sas: if with_sas { sas.into_iter().map(association).collect() } else { [].into() },
        policies: (0_u32..).zip(policies).filter_map(|(n, draw)| Some((key(n), policy(n, draw?)))).collect(),
    })
}

fn addresses(number: u32) -> (IpAddr, IpAddr) {
    if number.is_multiple_of(2) {
        ([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    } else {
        ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into())
    }
}

fn association(number: u32) -> (SaId, Sa) {
    let (source, destination) = addresses(number);
    let aead = if number.is_multiple_of(3) { Aead::Aes128Gcm } else { Aead::Aes256Gcm };
    let hard =
        Limits { bytes: (number == 3).then_some(1 << 40), packets: (number == 4).then_some(1 << 31), seconds: None };
    let soft = Limits { seconds: (number == 5).then_some(86_400), ..Limits::default() };
    let sa = Sa {
        source,
        reqid: 100 + number,
        mode: if number < 6 { Mode::Transport } else { Mode::Tunnel },
        aead,
        extended: number != 1,
        window: if number == 2 { 33 } else { 1024 },
        lifetimes: Lifetimes { soft, hard },
        udp: (number == 4).then_some(UdpPorts { source: 4500, destination: 4500 }),
        selector: (number.is_multiple_of(3)).then(|| key(number).selector),
        counted: 0,
        key: Some(Key::again_and_again(vec![7; aead.material_len()])),
    };
    (SaId { destination, spi: 0x1000 + number }, sa)
}

fn key(number: u32) -> PolicyKey {
    let (source, destination) = addresses(number);
    let direction = [Direction::In, Direction::Out, Direction::Forward][number as usize % 3];
    let selector = Selector {
        source: source.into(),
        destination: destination.into(),
        protocol: if number == 7 { 0 } else { 17 },
        source_port: (number == 5).then_some(Ports { bits: 1, mask: 3 }),
        destination_port: (number != 7).then_some(4790.into()),
    };
    PolicyKey { direction, selector }
}

fn policy(number: u32, (priority, block): (u32, bool)) -> Policy {
    let (source, destination) = addresses(number);
    let spi = (priority == 1).then_some(0x1000 + number);
    let template = Template { source, destination, reqid: 100 + number, spi, mode: Mode::Transport };
    Policy { priority: 1000 + priority, action: if block { Action::Block } else { Action::Protect(vec![template]) } }
}
