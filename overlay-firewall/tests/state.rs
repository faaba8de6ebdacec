//! The laws of states, and what a state must be to make sense.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use overlay_core::testing::laws;
use overlay_core::{Mac, Memory, Phase, Port, Protocol, State as _, reconcile};
use overlay_firewall::testing::state;
use overlay_firewall::{
    Bind, BridgePort, Gateway, Limit, Member, Pin, Policy, PolicyRule, Published, Selector, State, Strangers, Tunnel,
};
use proptest::prelude::*;

struct World(Memory<State>);

impl laws::World<State> for World {
    type Native = State;
    type Table = Memory<State>;
    type Foreign = ();

    fn open(&mut self) -> Memory<State> {
        self.0.clone()
    }

    fn foreign(&mut self) {}

    fn meddle(&mut self, _dice: &mut overlay_core::testing::Dice) -> bool {
        let was = self.0.state();
        self.0.update(|state| state.ports.clear());
        self.0.update(|state| state.published.clear());
        self.0.state() != was
    }
}

proptest! {
    #[test]
    fn a_state_keeps_the_laws_of_states(a in state(), b in state()) {
        prop_assert_eq!((a.check(), b.check()), (Ok(()), Ok(())));
        laws::state(&a, &b)?;
    }

    #[test]
    fn memory_keeps_the_laws_of_backends(desired in proptest::collection::vec(state(), 1..4), seed: [u8; 32]) {
        let seen = laws::backend(&mut World(Memory::default()), &desired, seed)?;
        prop_assert_eq!(seen.reached, desired.len());
    }

    #[test]
    fn a_state_is_the_same_after_a_way_through_text(state in state()) {
        let text = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}

fn web() -> Published {
    Published::new(Protocol::Tcp, Port::new(80).unwrap()).to("172.18.0.5:80".parse().unwrap())
}

#[test]
fn what_lets_in_comes_after_all_guards_and_goes_before_them() {
    let mut host = State::default();
    host.gateways.insert("ovgw0".parse().unwrap(), Gateway::new(["172.18.0.0/24".parse().unwrap()]));
    host.ports.insert("g0".parse().unwrap(), BridgePort::Pinned(Pin::new(Mac::new([2, 0, 0, 0, 0, 1]), [])));
    host.published.insert("web".parse().unwrap(), web());
    let phases = |from: &State, to: &State| from.plan(to).iter().map(State::phase).collect::<Vec<_>>();
    assert_eq!(phases(&State::default(), &host), [Phase::Guard, Phase::Guard, Phase::Open]);
    assert_eq!(phases(&host, &State::default()), [Phase::Close, Phase::Unguard, Phase::Unguard]);
}

/// What the refusal of a state that was changed so says.
fn refusal(change: impl FnOnce(&mut State)) -> String {
    let mut state = State::default();
    state.gateways.insert("ovgw0".parse().unwrap(), Gateway::new(["172.18.0.0/16".parse().unwrap()]));
    state.published.insert("web".parse().unwrap(), web());
    state.check().unwrap();
    change(&mut state);
    let refused = state.check().unwrap_err().to_string();
    assert_eq!(reconcile(&mut Memory::<State>::default(), &state).unwrap_err().to_string(), refused);
    refused
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let gateway = |net: &str| Gateway::new([net.parse().unwrap()]);
    assert_eq!(
        refusal(|state| drop(state.gateways.insert("ovgw1".parse().unwrap(), gateway("172.18.3.0/24")))),
        "gateway ovgw1: subnet 172.18.3.0/24: it overlaps 172.18.0.0/16"
    );
    assert_eq!(
        refusal(|state| drop(state.gateways.insert("ovgw1".parse().unwrap(), gateway("172.19.0.1/24")))),
        "gateway ovgw1: subnet 172.19.0.1/24: a subnet has no bits behind its prefix"
    );
    assert_eq!(
        refusal(|state| drop(state.published.insert("zeb".parse().unwrap(), web()))),
        "published zeb: tcp 80 at any address: web is published there"
    );
    let at = |address: &str| web().at(Bind::Address(address.parse().unwrap()));
    assert_eq!(
        refusal(|state| drop(state.published.insert("b".parse().unwrap(), at("2001:db8::1")))),
        "published b: tcp 80 at 2001:db8::1: it has no target of the family that clients have there"
    );
    assert!(refusal(|state| drop(state.published.insert("b".parse().unwrap(), at("0.0.0.0")))).contains("Bind::Any"));
    let nowhere = Published::new(Protocol::Tcp, Port::new(81).unwrap()).to("0.0.0.0:80".parse().unwrap());
    assert!(refusal(|state| drop(state.published.insert("b".parse().unwrap(), nowhere))).contains("no host's port"));
}

#[test]
fn guards_ports_and_policies_that_cannot_be_meant_are_refused_by_name() {
    let tunnel = Tunnel { members: [[224, 0, 0, 1].into()].into(), ..Tunnel::default() };
    assert_eq!(
        refusal(|state| drop(state.tunnels.insert(Port::VXLAN, tunnel))),
        "tunnel 4789: member 224.0.0.1: it is no host's address"
    );
    assert_eq!(
        refusal(|state| {
            let limit = Limit {
                protocol: Protocol::Udp,
                port: Port::VXLAN,
                members: [].into(),
                per_second: std::num::NonZeroU32::MIN,
                burst: 1,
            };
            state.tunnels.insert(Port::VXLAN, Tunnel::default());
            state.limits.insert("twice".parse().unwrap(), limit);
        }),
        "limit twice: udp 4789: the port is guarded already"
    );
    let pin = |host| BridgePort::Pinned(Pin::new(Mac::new([2, 0, 0, 0, 0, host]), [[10, 0, 0, 2].into()]));
    assert_eq!(
        refusal(|state| {
            state.ports.insert("p1".parse().unwrap(), pin(1));
            state.ports.insert("p2".parse().unwrap(), pin(2));
        }),
        "port p2: address 10.0.0.2: another port has it"
    );
    let group = BridgePort::Pinned(Pin::new(Mac::BROADCAST, []));
    assert!(refusal(|state| drop(state.ports.insert("p".parse().unwrap(), group))).contains("a station's"));
    let rule = PolicyRule::allow(Selector::everyone(), Selector::everyone());
    assert!(
        refusal(|state| drop(state.policy.rules.insert("r".parse().unwrap(), rule))).starts_with("policy: gateways")
    );
    let member = Member { addresses: [[10, 0, 0, 2].into()].into(), ..Member::default() };
    let twice = Policy {
        members: [1, 2].map(|id| (overlay_core::EndpointId::from_bytes([id; 16]), member.clone())).into(),
        ..Policy::default()
    };
    assert!(refusal(|state| state.policy = twice).ends_with("another member has it"));
    assert_eq!(Strangers::default(), Strangers::Pass);
}
