//! The area value keeps the laws, what makes no sense is refused by name, and nothing passes a guarded port in the clear.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::net::IpAddr;

use overlay_core::testing::{Dice, laws};
use overlay_core::{Memory, Phase, Port, State as _, reconcile};
use overlay_crypto::testing::state;
use overlay_crypto::{
    Cipher, Datagram, Direction, Epoch, Epochs, Numbers, Reason, Sa, SaId, SaKey, Spi, State, Step, Tunnel, Verdict,
    WindowSize,
};
use proptest::prelude::*;

fn meddle(state: &mut State, dice: &mut Dice) {
    match dice.below(3) {
        0 => state.sas.clear(),
        1 => state.tunnels.clear(),
        _ => state.ports.clear(),
    }
}

fn datagram(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16) -> Datagram {
    Datagram { source, destination, source_port, destination_port }
}

proptest! {
    #[test]
    fn states_keep_the_laws(from in state(), to in state()) {
        laws::state(&from, &to)?;
    }

    #[test]
    fn the_memory_backend_keeps_the_laws(desired in proptest::collection::vec(state(), 1..4), seed in any::<[u8; 32]>()) {
        laws::backend(&mut laws::InMemory::new(meddle), &desired, seed)?;
    }

    #[test]
    fn generated_states_pass_the_check(state in state()) {
        prop_assert_eq!(state.check(), Ok(()));
    }

    /// Whatever is there or is not, half-way too: what is guarded before and after a change is guarded all the time.
    #[test]
    fn no_datagram_passes_a_guarded_port_in_the_clear_at_any_step(from in state(), to in state(), source_port: u16, peer in 0_u8..7) {
        let mut now = from.clone();
        for step in std::iter::once(None).chain(from.plan(&to).into_iter().map(Some)) {
            step.inspect(|step| now.apply(step));
            for port in from.ports.intersection(&to.ports) {
                let out = datagram([192, 0, 2, 100].into(), [192, 0, 2, peer].into(), source_port, port.get());
                prop_assert!(matches!(now.outgoing(&out), Verdict::Seal(_) | Verdict::Drop(_)));
                prop_assert_eq!(now.incoming(&out), Verdict::Drop(Reason::Clear));
            }
        }
    }

    /// Associations come before the tunnel sends by them, and go after it sends by others.
    #[test]
    fn while_a_tunnel_stays_it_has_something_to_send_by_at_every_step(from in state(), to in state(), source_port: u16) {
        let mut now = from.clone();
        for step in std::iter::once(None).chain(from.plan(&to).into_iter().map(Some)) {
            step.inspect(|step| now.apply(step));
            for (tunnel, lanes) in &from.tunnels {
                if !lanes.is_empty() && to.tunnels.get(tunnel).is_some_and(|lanes| !lanes.is_empty()) {
                    let out = datagram(tunnel.local, tunnel.peer, source_port, tunnel.port.get());
                    prop_assert!(matches!(now.outgoing(&out), Verdict::Seal(_)), "{} {:?}", tunnel, now.outgoing(&out));
                }
            }
        }
    }

    #[test]
    fn what_is_printed_of_a_state_has_no_key(state in state()) {
        let steps = State::default().plan(&state);
        let shown = format!("{state:?} {steps:?}");
        prop_assert_eq!(shown.matches("Key(..)").count(), 2 * state.sas.len());
        prop_assert!(steps.iter().all(|step| !step.to_string().contains("ey(")));
    }
}

const PORT: u16 = 4790;

fn port() -> Port {
    Port::new(PORT).unwrap()
}

fn here() -> IpAddr {
    [192, 0, 2, 1].into()
}

fn there() -> IpAddr {
    [192, 0, 2, 2].into()
}

fn sa(direction: Direction, source: IpAddr, seed: u8) -> Sa {
    Sa {
        direction,
        source,
        port: port(),
        numbers: Numbers::Extended,
        window: WindowSize::MIN,
        limits: None,
        udp: None,
        epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::new(3).unwrap() },
        key: SaKey::new(Cipher::Aes128Gcm, &[seed; 20]).unwrap(),
    }
}

const TUNNEL_SPI: u32 = 0x2000;

fn id(destination: IpAddr, number: u32) -> SaId {
    SaId { destination, spi: Spi::new(number).unwrap() }
}

/// One tunnel of one lane, both ways.
fn plain() -> State {
    let (out, back) = (id(there(), TUNNEL_SPI), id(here(), 0x1000));
    let sas = [(out, sa(Direction::Out, here(), 1)), (back, sa(Direction::In, there(), 2))].into();
    State { ports: [port()].into(), sas, tunnels: [(tunnel(), vec![out.spi])].into() }
}

fn tunnel() -> Tunnel {
    Tunnel { port: port(), local: here(), peer: there() }
}

#[test]
fn guards_go_up_first_and_come_down_last() {
    let phases = |from: &State, to: &State| from.plan(to).iter().map(State::phase).collect::<Vec<_>>();
    assert_eq!(phases(&State::default(), &plain()), [Phase::Guard, Phase::Build, Phase::Build, Phase::Open]);
    let down = [Phase::Close, Phase::Dismantle, Phase::Dismantle, Phase::Unguard];
    assert_eq!(phases(&plain(), &State::default()), down);
}

#[test]
fn a_dry_run_says_all_but_the_key() {
    let steps: Vec<String> = State::default().plan(&plain()).iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "guard port 4790",
            "put SA 0x00001000 to 192.0.2.1: in from 192.0.2.2 port 4790, AES-128-GCM, epochs 1 and 3",
            "put SA 0x00002000 to 192.0.2.2: out from 192.0.2.1 port 4790, AES-128-GCM, epochs 1 and 3",
            "port 4790 from 192.0.2.1 to 192.0.2.2: send by 0x00002000",
        ]
    );
}

#[test]
fn a_packet_goes_by_its_tunnel_or_not_at_all() {
    let state = plain();
    let out = datagram(here(), there(), 50_000, PORT);
    assert_eq!(state.outgoing(&out), Verdict::Seal(id(there(), TUNNEL_SPI)));
    assert_eq!(state.outgoing(&datagram(here(), [192, 0, 2, 9].into(), 50_000, PORT)), Verdict::Drop(Reason::NoTunnel));
    assert_eq!(state.outgoing(&datagram(here(), there(), 50_000, 4789)), Verdict::Pass);
    let back = datagram(there(), here(), 50_000, PORT);
    assert_eq!(state.incoming(&back), Verdict::Drop(Reason::Clear));
    assert_eq!(state.incoming(&datagram(there(), here(), 50_000, 53)), Verdict::Pass);

    let by = id(here(), 0x1000);
    assert_eq!(state.sealed(here(), by.spi), Verdict::Open(by));
    assert_eq!(state.opened(&by, &back), Verdict::Pass);
    assert_eq!(state.sealed(here(), Spi::MIN), Verdict::Drop(Reason::ForeignSpi));
    assert_eq!(state.sealed(there(), by.spi), Verdict::Drop(Reason::ForeignSpi));
    let sends = id(there(), TUNNEL_SPI);
    assert_eq!(state.sealed(there(), sends.spi), Verdict::Drop(Reason::ForeignSpi), "it only sends");
    for other in [
        datagram([192, 0, 2, 9].into(), here(), 50_000, PORT),
        datagram(there(), [192, 0, 2, 9].into(), 50_000, PORT),
        datagram(there(), here(), 50_000, 4791),
        datagram(there(), here(), 50_000, 22),
    ] {
        assert_eq!(state.opened(&by, &other), Verdict::Drop(Reason::OfAnother), "{other:?}");
    }
}

#[test]
fn what_is_taken_away_lets_nothing_out_or_in() {
    let (out, back) = (datagram(here(), there(), 50_000, PORT), datagram(there(), here(), 50_000, PORT));
    let without = |change: fn(&mut State)| {
        let mut state = plain();
        change(&mut state);
        state
    };
    let flushed = without(|state| state.sas.clear());
    assert_eq!(flushed.outgoing(&out), Verdict::Drop(Reason::NoAssociation));
    assert_eq!(flushed.sealed(here(), Spi::new(0x1000).unwrap()), Verdict::Drop(Reason::ForeignSpi));
    let closed = without(|state| state.tunnels.clear());
    assert_eq!(closed.outgoing(&out), Verdict::Drop(Reason::NoTunnel));
    assert_eq!(closed.opened(&id(here(), 0x1000), &back), Verdict::Drop(Reason::NoTunnel));
    let receiving = without(|state| state.tunnels.values_mut().for_each(Vec::clear));
    assert_eq!(receiving.outgoing(&out), Verdict::Drop(Reason::NoAssociation));
    assert_eq!(receiving.opened(&id(here(), 0x1000), &back), Verdict::Pass);
    for state in [flushed, closed, receiving] {
        assert_eq!(state.incoming(&back), Verdict::Drop(Reason::Clear));
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_changes_nothing() {
    let refusal = |change: fn(&mut State)| {
        let mut state = plain();
        change(&mut state);
        let mut memory = Memory::default();
        let refused = reconcile(&mut memory, &state).unwrap_err().to_string();
        assert_eq!(memory.state(), State::default());
        refused
    };
    assert!(refusal(|state| state.ports.clear()).contains("port 4790: it is not guarded"));
    assert!(
        refusal(|state| *state.sas.values_mut().next().unwrap() = sa(Direction::In, here(), 9)).contains("two ends")
    );
    assert!(
        refusal(|state| drop(state.sas.insert(id(here(), 0x3000), sa(Direction::In, there(), 2)))).contains("its key")
    );
    assert!(
        refusal(|state| drop(
            state.sas.insert(id(here(), 0x3000), sa(Direction::In, "2001:db8::1".parse().unwrap(), 3))
        ))
        .contains("both ends have one family")
    );
    assert!(
        refusal(|state| drop(state.sas.insert(id([224, 0, 0, 1].into(), 0x3000), sa(Direction::Out, here(), 3))))
            .contains("one host's address")
    );
    let sends = |lanes: fn(Spi) -> Vec<Spi>| {
        let mut state = plain();
        state.tunnels.values_mut().for_each(|own| *own = lanes(Spi::new(TUNNEL_SPI).unwrap()));
        state.check().unwrap_err().to_string()
    };
    assert!(sends(|spi| vec![spi; 3]).contains("3 lanes"));
    assert!(sends(|spi| vec![spi; 2]).contains("two lanes have it"));
    assert!(sends(|_| vec![Spi::MIN]).contains("no association of it that sends"));
}

#[test]
fn one_name_never_has_two_keys_and_a_changed_one_is_put_anew() {
    let mut changed = plain();
    changed.sas.insert(id(there(), TUNNEL_SPI), sa(Direction::Out, here(), 77));
    let steps = plain().plan(&changed);
    assert!(matches!(&steps[..], [Step::PutSa(of, _)] if *of == id(there(), TUNNEL_SPI)), "{steps:?}");
}

#[test]
fn an_spi_that_comes_twice_by_chance_is_noticed_and_the_first_stays() {
    let (mut state, of) = (plain(), id(here(), 0x1000));
    let taken = state.add(of, sa(Direction::In, [192, 0, 2, 9].into(), 5)).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "SA 0x00001000 to 192.0.2.1 is there with another key; its receiver needs a new epoch"
    );
    assert_eq!(state, plain());
    let wider = Sa { window: WindowSize::MAX, ..sa(Direction::In, there(), 2) };
    state.add(of, wider.clone()).unwrap();
    state.add(id(here(), 0x1004), sa(Direction::In, [192, 0, 2, 9].into(), 5)).unwrap();
    assert_eq!((state.sas.get(&of), state.sas.len()), (Some(&wider), 3));
}
