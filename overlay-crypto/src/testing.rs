//! Proptest strategies for states.

#![allow(clippy::expect_used, reason = "a strategy's own values are right")]

use std::net::{IpAddr, Ipv6Addr};

use overlay_core::{IpFamily, Port};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use crate::{
    Cipher, Direction, Epoch, Epochs, Limits, Numbers, Sa, SaId, SaKey, Spi, State, Tunnel, UdpEncapsulation, Usage,
    WindowSize,
};

/// States that pass their check: up to 3 guarded ports, tunnels of this node to up to 5 peers, with up to 4 lanes, and associations of
/// up to 2 epochs.
pub fn state() -> impl Strategy<Value = State> {
    let tunnel = (0_u8..6, any::<bool>(), prop_oneof![Just(0_u8), Just(1), Just(2), Just(4)], 1_u8..3, any::<u8>());
    let ports = btree_set(0_u16..3, 0..3);
    (ports, btree_map((0_u16..3, 1_u8..6), tunnel, 0..6)).prop_map(|(ports, tunnels)| {
        let mut state = State { ports: ports.into_iter().map(port).collect(), ..State::default() };
        for ((number, peer), (stray, open, lanes, epochs, look)) in tunnels {
            if !state.ports.contains(&port(number)) {
                continue;
            }
            let family = if peer % 2 == 0 { IpFamily::V4 } else { IpFamily::V6 };
            let tunnel = Tunnel { port: port(number), local: host(family, 100), peer: host(family, peer) };
            for epoch in 0..epochs {
                add(&mut state, &tunnel, (epoch, lanes.max(stray / 5)), look);
            }
            let promoted = look % epochs;
            if open {
                let sends = (0..lanes).map(|lane| spi(&tunnel, Direction::Out, promoted, lane));
                state.tunnels.insert(tunnel, sends.collect());
            }
        }
        state
    })
}

/// The same that a kernel with ESP can hold, in any order: what an association is follows from its name, its key may be used again and
/// again, and none is in UDP.
pub fn kernel_state() -> impl Strategy<Value = State> {
    state().prop_map(|mut state| {
        for (id, sa) in &mut state.sas {
            let look = id.spi.get() as u8;
            let cipher = Cipher::ALL[usize::from(look) % 3];
            let mut material = vec![look; cipher.material_len()];
            material[..4].copy_from_slice(&id.spi.get().to_be_bytes());
            sa.numbers = if look & 16 == 0 { Numbers::Extended } else { Numbers::Short };
            sa.window = if look & 2 == 0 { WindowSize::MIN } else { WindowSize::MAX };
            sa.udp = None;
            sa.key = SaKey::again_and_again(cipher, &material).expect("its length");
        }
        state
    })
}

/// The same that a kernel without ESP can hold: guards, and tunnels that receive only.
pub fn only_guards() -> impl Strategy<Value = State> {
    state().prop_map(|mut state| {
        state.sas.clear();
        state.tunnels.values_mut().for_each(Vec::clear);
        state
    })
}

/// The associations of a tunnel in an epoch, both ways.
fn add(state: &mut State, tunnel: &Tunnel, (epoch, lanes): (u8, u8), look: u8) {
    for lane in 0..lanes {
        for direction in [Direction::In, Direction::Out] {
            let spi = spi(tunnel, direction, epoch, lane);
            let (source, destination) = match direction {
                Direction::In => (tunnel.peer, tunnel.local),
                Direction::Out => (tunnel.local, tunnel.peer),
            };
            state.sas.insert(SaId { destination, spi }, sa((direction, source, tunnel.port), spi, epoch, look));
        }
    }
}

fn sa((direction, source, port): (Direction, IpAddr, Port), spi: Spi, epoch: u8, look: u8) -> Sa {
    let cipher = Cipher::ALL[usize::from(look) % 3];
    let mut material = vec![look; cipher.material_len()];
    material[..4].copy_from_slice(&spi.get().to_be_bytes());
    let number = Epoch::new(u64::from(epoch) + 1).expect("above 0");
    Sa {
        direction,
        source,
        port,
        numbers: if look & 1 == 0 { Numbers::Extended } else { Numbers::Short },
        window: if look & 2 == 0 { WindowSize::MIN } else { WindowSize::MAX },
        limits: (look & 8 != 0).then(|| Limits::of(Usage { bytes: 1 << 20, packets: u64::from(look) + 1 })),
        udp: (look & 4 != 0).then(UdpEncapsulation::default),
        epochs: Epochs { sender: number, receiver: number },
        key: SaKey::new(cipher, &material).expect("its length"),
    }
}

/// Another for each, so that no two have one.
fn spi(tunnel: &Tunnel, direction: Direction, epoch: u8, lane: u8) -> Spi {
    let peer = match tunnel.peer {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    let low = u32::from(direction == Direction::In) << 7 | u32::from(epoch) << 4 | u32::from(lane);
    Spi::of_chance(u32::from(tunnel.port.get()) << 16 | u32::from(peer) << 8 | low)
}

fn port(number: u16) -> Port {
    Port::new(4790 + number).expect("a port")
}

fn host(family: IpFamily, number: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [192, 0, 2, number].into(),
        IpFamily::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}
