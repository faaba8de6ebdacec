//! Any policy, and any packets in any order: what passes is what the firewall's judge says of their flows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{Port, Protocol};
use overlay_datapath::{Datapath, Fate, Reason, Tables, Wanted};
use overlay_firewall::{
    Action, Content, Flow, Frame, Ip, Judge, Member, Mode, Packet, Policy, PolicyRule, Ports, Selector, Transport,
};
use overlay_vxlan::names;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::bytes::{End, see, tcp, udp};
use crate::node::{NOW, VNI, cross, datapath, end, end6, endpoint, mac, send, v4, v6, wanted, with};

/// What is sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    from: u8,
    to: u8,
    ports: (u16, u16),
    kind: Kind,
    ipv6: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Udp,
    /// TCP's first segment.
    Syn,
    /// Any later one.
    Ack,
}

#[derive(Debug, Clone)]
enum Event {
    Sent(Sent),
    /// Another policy.
    Now(Policy),
}

fn policy() -> impl Strategy<Value = Policy> {
    let groups = vec(select(vec!["a", "b"]), 4);
    let selector = select(vec![None, Some("a"), Some("b")]);
    let ports = select(vec![None, Some((Protocol::Tcp, 80)), Some((Protocol::Udp, 80)), Some((Protocol::Udp, 81))]);
    let action = select(vec![Action::Allow, Action::Deny]);
    let rule = (selector.clone(), selector, ports, (action.clone(), 0_u16..3, any::<bool>()));
    let is_audited = |audit: bool| if audit { Mode::Audit } else { Mode::Enforce };
    let rule = rule.prop_map(move |(from, to, ports, (action, order, audit))| {
        let of = |group: Option<&str>| group.map_or_else(Selector::everyone, |group| Selector::labels([("in", group)]));
        let on = |(protocol, port)| Ports::one(protocol, Port::new(port).unwrap());
        let ports = ports.map(on).into_iter().collect();
        PolicyRule { order, ports, action, mode: is_audited(audit), ..PolicyRule::allow(of(from), of(to)) }
    });
    (groups, vec(rule, 0..4), action).prop_map(|(groups, rules, otherwise)| {
        let member = |(number, group): (u8, &str)| {
            let labels = [("in".to_owned(), group.to_owned())].into();
            (endpoint(number), Member { addresses: [v4(number), v6(number)].into(), labels })
        };
        let rules = rules.into_iter().enumerate();
        Policy {
            otherwise,
            rules: rules.map(|(number, rule)| (format!("r{number}").parse().unwrap(), rule)).collect(),
            members: (1..=4).zip(groups).map(member).collect(),
        }
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let ports = (select(vec![5_000_u16, 80]), select(vec![80_u16, 81, 5_000]));
    let kind = select(vec![Kind::Udp, Kind::Syn, Kind::Ack]);
    let ends = (1_u8..=4, 1_u8..=3).prop_map(|(from, step)| (from, (from - 1 + step) % 4 + 1));
    (ends, ports, kind, any::<bool>()).prop_map(|((from, to), ports, kind, ipv6)| Sent { from, to, ports, kind, ipv6 })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let answers = (sent(), 1..4_usize).prop_map(|(sent, times)| {
        let back = Sent { from: sent.to, to: sent.from, ports: (sent.ports.1, sent.ports.0), ..sent };
        [sent, back].into_iter().cycle().take(times).map(Event::Sent).collect::<Vec<_>>()
    });
    let changes = policy().prop_map(|policy| vec![Event::Now(policy)]);
    vec(prop_oneof![6 => answers, 1 => changes], 1..25).prop_map(|all| all.concat())
}

impl Sent {
    fn ends(self) -> [End; 2] {
        let of = if self.ipv6 { end6 } else { end };
        [of(self.from, self.ports.0), of(self.to, self.ports.1)]
    }

    fn frame(self) -> Vec<u8> {
        let [from, to] = self.ends();
        match self.kind {
            Kind::Udp => udp(from, to, b"a datagram"),
            Kind::Syn => tcp(from, to, true),
            Kind::Ack => tcp(from, to, false),
        }
    }

    fn transport(self) -> Transport {
        let (source, destination) = self.ports;
        match self.kind {
            Kind::Udp => Transport::udp(source, destination),
            kind => Transport::Tcp { source, destination, begins: kind == Kind::Syn },
        }
    }
}

/// A flow, by both of its ends, the lower first, and whether it is TCP.
type Key = (bool, [(IpAddr, u16); 2]);

/// What is known of it.
#[derive(Debug, Clone)]
struct Known {
    /// The packet that began it.
    first: Sent,
    answered: bool,
    policy: usize,
}

/// The flows of all nodes at once, as nobody forgets any: a few lines of what connection tracking does, and the judge.
struct Model {
    /// Of each node, which knows its own ports.
    judges: [Judge; 2],
    /// Without a policy, nothing is followed.
    active: bool,
    policies: usize,
    flows: BTreeMap<Key, Known>,
}

impl Model {
    fn new(policy: &Policy) -> Self {
        let judges = [1, 2].map(|node| judge(&policed(node, policy)));
        Self { judges, active: policy.is_active(), policies: 0, flows: BTreeMap::new() }
    }

    fn follow(&mut self, policy: &Policy) {
        let Self { policies, flows, .. } = std::mem::replace(self, Self::new(policy));
        (self.policies, self.flows) = (policies + 1, flows);
    }

    fn passes(&mut self, sent: Sent) -> bool {
        if !self.active {
            return self.judged(sent, Flow::New);
        }
        let mut ends = sent.ends().map(|end| (end.address, end.port));
        ends.sort_unstable();
        let key = (sent.kind != Kind::Udp, ends);
        let known = self.flows.get(&key).filter(|_| sent.kind != Kind::Syn).cloned();
        // A flow that would not be let begin by the policy that there is now was never there.
        let known = known.filter(|it| it.policy == self.policies || self.judged(it.begun(), Flow::New));
        let flow = match known {
            Some(known) => {
                let answered = known.answered || known.first.from != sent.from || known.first.ports != sent.ports;
                self.flows.insert(key, Known { answered, policy: self.policies, ..known });
                if answered { Flow::Established } else { Flow::New }
            }
            None => {
                if sent.kind != Kind::Syn {
                    self.flows.remove(&key);
                }
                Flow::New
            }
        };
        let passes = self.judged(sent, flow);
        if passes && flow == Flow::New {
            self.flows.insert(key, Known { first: sent, answered: false, policy: self.policies });
        }
        passes
    }

    fn judged(&self, sent: Sent, flow: Flow) -> bool {
        let [from, to] = sent.ends();
        let ip = Ip::between(from.address, to.address, sent.transport()).unwrap();
        let vni = VNI.try_into().unwrap();
        let port = |number: u8| format!("tap{number}").parse().unwrap();
        let frame = Frame { port: port(sent.from), out: Some(port(sent.to)), source: mac(sent.from) };
        let packet = Packet::bridged(names::bridge(vni).unwrap(), frame, Content::Ip(ip));
        self.judges[usize::from(sent.from > 2)].judge(&packet, flow).ruling.passes()
    }
}

impl Known {
    /// As if it began today.
    fn begun(&self) -> Sent {
        let kind = if self.first.kind == Kind::Udp { Kind::Udp } else { Kind::Syn };
        Sent { kind, ..self.first }
    }
}

fn judge(wanted: &Wanted) -> Judge {
    Judge::new(&wanted.networks.values().next().unwrap().firewall)
}

fn policed(node: u8, policy: &Policy) -> Wanted {
    with(wanted(node), |sandbox| sandbox.firewall.policy = policy.clone())
}

/// What becomes of a frame, wherever its sender and its receiver are.
fn carried(nodes: &mut [Datapath; 2], sent: Sent) -> Result<Vec<u8>, Reason> {
    let of = |number: u8| usize::from(number > 2);
    let (frame, [one, two]) = (sent.frame(), nodes);
    let found = match (of(sent.from), of(sent.to)) {
        (0, 1) => cross((one, sent.from), two, &frame),
        (1, 0) => cross((two, sent.from), one, &frame),
        (node, _) => match send(if node == 0 { one } else { two }, sent.from, &frame) {
            (Fate::Port(to), frame) => Ok((to, frame)),
            (Fate::Drop(reason), _) => Err(reason),
            other => panic!("{other:?}"),
        },
    };
    let (to, frame) = found?;
    assert_eq!(to, endpoint(sent.to));
    Ok(frame)
}

proptest! {
    #[test]
    fn what_passes_a_policy_is_what_the_firewalls_judge_says_of_each_packets_flow(first in policy(), events in events()) {
        let mut nodes = [1, 2].map(|node| datapath(&policed(node, &first)));
        let mut model = Model::new(&first);
        for event in events {
            let sent = match event {
                Event::Sent(sent) => sent,
                Event::Now(policy) => {
                    for (node, number) in nodes.iter_mut().zip(1..) {
                        node.handle_tables(Arc::new(Tables::new(&policed(number, &policy)).unwrap()), NOW);
                    }
                    model.follow(&policy);
                    continue;
                }
            };
            let expected = model.passes(sent);
            match carried(&mut nodes, sent) {
                Ok(frame) => {
                    prop_assert!(expected, "{:?} passed", sent);
                    let seen = see(&frame); // with checksums that are right
                    let [from, to] = sent.ends().map(|end| (end.address, end.port));
                    prop_assert_eq!((seen.from, seen.to), (from, to));
                }
                Err(reason) => {
                    prop_assert!(!expected, "{:?} was dropped: {:?}", sent, reason);
                    prop_assert_eq!(reason, Reason::Policy);
                }
            }
        }
    }
}
