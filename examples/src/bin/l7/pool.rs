//! The replicas of a service at one port: who gets a request, who is well, and whether a request is tried again. A machine without I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, Instant, Port};
use overlay_dns::Health;
use overlay_node::{ServiceEndpoint, ServiceEndpoints, ServiceEvent};

/// Which port of a service's replicas is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Number(Port),
    /// That of the published port with this name.
    Named(String),
}

/// How replicas are checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks {
    pub(crate) every: Duration,
    /// So many that fail one after the other, and a replica is taken for ill. The first that does not, and it is well.
    pub(crate) failures: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    target: Target,
    checks: Checks,
    known: Option<Arc<ServiceEndpoints>>,
    replicas: BTreeMap<EndpointId, Replica>,
}

#[derive(Debug)]
struct Replica {
    at: SocketAddr,
    weight: i64,
    said: Health,
    state: State,
    failed: u32,
    next_check: Instant,
    /// How far it is behind its share: the weights it was due, less what it got.
    credit: i64,
}

/// What our own checks and requests say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Well,
    Unchecked,
    Ill,
}

impl Pool {
    pub(crate) const fn new(target: Target, checks: Checks) -> Self {
        Self { target, checks, known: None, replicas: BTreeMap::new() }
    }

    /// Takes what is told of the service. Gives where nobody is to be sent to any more: idle connections there are of no use.
    pub(crate) fn heed(&mut self, event: ServiceEvent, now: Instant) -> Vec<SocketAddr> {
        event.heed(&mut self.known);
        let known = self.known.as_ref();
        let port = known.and_then(|known| self.port(known));
        let endpoints =
            known.zip(port).into_iter().flat_map(|(known, port)| known.endpoints.iter().zip(std::iter::repeat(port)));
        let now_there: BTreeMap<EndpointId, (SocketAddr, &ServiceEndpoint)> = endpoints
            .filter_map(|((id, endpoint), port)| {
                Some((*id, (SocketAddr::new(address(endpoint)?, port.get()), endpoint)))
            })
            .collect();
        let before: BTreeSet<SocketAddr> = self.open().collect();
        self.replicas.retain(|id, replica| now_there.get(id).is_some_and(|(at, _)| *at == replica.at));
        for (id, (at, endpoint)) in &now_there {
            let replica = self.replicas.entry(*id).or_insert(Replica {
                at: *at,
                weight: 1,
                said: Health::Healthy,
                state: State::Unchecked,
                failed: 0,
                next_check: now,
                credit: 0,
            });
            (replica.weight, replica.said) = (endpoint.weight.get().into(), endpoint.health);
        }
        let after: BTreeSet<SocketAddr> = self.open().collect();
        before.difference(&after).copied().collect()
    }

    fn port(&self, known: &ServiceEndpoints) -> Option<Port> {
        match &self.target {
            Target::Number(port) => Some(*port),
            Target::Named(name) => {
                let named = |name: &str| {
                    known.ports.iter().find(|port| port.name.as_ref().is_some_and(|it| it.as_str() == name))
                };
                named(name).map(|port| port.target)
            }
        }
    }

    /// Whether somebody there may get requests.
    pub(crate) fn is_open(&self, at: SocketAddr) -> bool {
        self.open().any(|open| open == at)
    }

    fn open(&self) -> impl Iterator<Item = SocketAddr> {
        self.replicas.values().filter(|replica| replica.said != Health::Draining).map(|replica| replica.at)
    }

    /// Who gets the next request, of those that it was not tried on: of the best there are, each by its weight, in turn. One that drains never does; one
    /// that is ill does where nobody else is left, as our check may be wrong. O(n).
    pub(crate) fn choose(&mut self, tried: &BTreeSet<EndpointId>) -> Option<(EndpointId, SocketAddr)> {
        let may = |(id, replica): &(&EndpointId, &mut Replica)| replica.said != Health::Draining && !tried.contains(id);
        let rank = |replica: &Replica| (replica.state == State::Ill, replica.said, replica.state);
        let best = self.replicas.iter_mut().filter(may).map(|(_, replica)| rank(replica)).min()?;
        let mut all: Vec<_> = self.replicas.iter_mut().filter(may).filter(|(_, it)| rank(it) == best).collect();
        let sum: i64 = all.iter().map(|(_, replica)| replica.weight).sum();
        all.iter_mut().for_each(|(_, replica)| replica.credit += replica.weight);
        // Of equals the first.
        let (id, chosen) = all.into_iter().min_by_key(|(_, replica)| -replica.credit)?;
        chosen.credit -= sum;
        Some((*id, chosen.at))
    }

    /// Whom to check now, each once: what comes of it is to be told.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(EndpointId, SocketAddr)> {
        let due = self.replicas.iter_mut().filter(|(_, replica)| replica.next_check <= now);
        let every = self.checks.every;
        due.map(|(id, replica)| {
            replica.next_check = now + every;
            (*id, replica.at)
        })
        .collect()
    }

    /// When the next check is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.replicas.values().map(|replica| replica.next_check).min()
    }

    /// What came of a check.
    pub(crate) fn checked(&mut self, id: EndpointId, is_well: bool) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.failed = if is_well { 0 } else { replica.failed.saturating_add(1) };
        if is_well {
            replica.state = State::Well;
        } else if replica.failed >= self.checks.failures || replica.state == State::Unchecked {
            replica.state = State::Ill;
        }
    }

    /// A request could not be brought to it: it is ill until a check says otherwise, which comes at once.
    pub(crate) fn unreached(&mut self, id: EndpointId, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            (replica.state, replica.next_check) = (State::Ill, now);
        }
    }

    /// Who is there, for people: how each is, and where.
    pub(crate) fn status(&self) -> Vec<(SocketAddr, String)> {
        let said = |replica: &Replica| format!("{:?}, {:?} by our checks", replica.said, replica.state).to_lowercase();
        self.replicas.values().map(|replica| (replica.at, said(replica))).collect()
    }
}

/// Of an endpoint's addresses the one that is asked: IPv4 if there is one.
fn address(endpoint: &ServiceEndpoint) -> Option<IpAddr> {
    endpoint.addresses.iter().min_by_key(|address| address.is_ipv6()).copied()
}

/// Why a replica gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing of the request was sent.
    Unreached,
    /// It was sent, at least in part, and the connection ended.
    Broken,
    /// It was sent, and no answer began in time.
    Late,
}

/// What of a request decides whether it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repeat {
    /// Its method means the same once and twice (RFC 9110 §9.2.2).
    pub(crate) idempotent: bool,
    /// Its body, if any, is kept.
    pub(crate) kept: bool,
}

/// How often a request is tried at most.
pub(crate) const TRIES: usize = 3;

/// Whether a request that failed on so many replicas is tried on another.
pub(crate) const fn again(failure: Failure, repeat: Repeat, tries: usize) -> bool {
    let harmless = match failure {
        Failure::Unreached => true,
        Failure::Broken | Failure::Late => repeat.idempotent && repeat.kept,
    };
    harmless && tries < TRIES
}

#[cfg(test)]
mod tests {
    use overlay_core::{Name, NetworkId, NodeId, Protocol, ServiceId};
    use overlay_lb::Weight;
    use overlay_node::{EndpointChange, PublishMode, PublishedPort};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CHECKS: Checks = Checks { every: Duration::from_secs(1), failures: 2 };

    fn id(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 16])
    }

    fn endpoint(number: u8, weight: u16) -> ServiceEndpoint {
        ServiceEndpoint {
            network: NetworkId::from_bytes([9; 16]),
            container: Name::new(&format!("web-{number}")).unwrap(),
            node: NodeId::from_bytes([1; 16]),
            node_address: [192, 0, 2, 1].into(),
            addresses: ["fd00::1".parse().unwrap(), [10, 0, 9, number].into()].into(),
            weight: Weight::new(weight).unwrap(),
            health: Health::Healthy,
        }
    }

    fn web(endpoints: &[(u8, u16)]) -> ServiceEvent {
        ServiceEvent::All(Some(Arc::new(ServiceEndpoints {
            service: ServiceId::from_bytes([7; 16]),
            name: "web".parse().unwrap(),
            ports: vec![PublishedPort {
                name: Some("http".parse().unwrap()),
                mode: PublishMode::Host,
                ..PublishedPort::new(Protocol::Tcp, Port::new(8080).unwrap())
            }],
            unheard: BTreeSet::new(),
            endpoints: endpoints.iter().map(|(number, weight)| (id(*number), endpoint(*number, *weight))).collect(),
        })))
    }

    fn pool(endpoints: &[(u8, u16)]) -> Pool {
        let mut pool = Pool::new(Target::Number(Port::new(80).unwrap()), CHECKS);
        pool.heed(web(endpoints), Instant::ZERO);
        endpoints.iter().for_each(|(number, _)| pool.checked(id(*number), true));
        pool
    }

    fn chosen(pool: &mut Pool, times: usize) -> Vec<u8> {
        let who = |pool: &mut Pool| pool.choose(&BTreeSet::new()).map_or(0, |(id, _)| id.to_bytes()[0]);
        (0..times).map(|_| who(pool)).collect()
    }

    fn health(number: u8, health: Health) -> ServiceEvent {
        ServiceEvent::Changes(vec![EndpointChange::Health(id(number), health)])
    }

    #[test]
    fn each_has_its_share_in_turn_and_none_has_it_in_a_row() {
        assert_eq!(chosen(&mut pool(&[(1, 1), (2, 1)]), 4), [1, 2, 1, 2]);
        assert_eq!(chosen(&mut pool(&[(1, 5), (2, 1), (3, 1)]), 7), [1, 1, 2, 1, 3, 1, 1]);
    }

    #[test]
    fn one_that_drains_gets_nothing_though_it_is_the_last_and_its_idle_connections_are_of_no_use() {
        let mut pool = pool(&[(1, 1), (2, 1)]);
        let at = |number| SocketAddr::from(([10, 0, 9, number], 80));
        assert_eq!(pool.heed(health(1, Health::Draining), Instant::ZERO), [at(1)]);
        assert_eq!(chosen(&mut pool, 3), [2, 2, 2]);
        assert_eq!(pool.heed(health(2, Health::Draining), Instant::ZERO), [at(2)]);
        assert_eq!(pool.choose(&BTreeSet::new()), None);
        assert_eq!(pool.heed(health(1, Health::Healthy), Instant::ZERO), []);
        assert_eq!(chosen(&mut pool, 2), [1, 1]);
    }

    #[test]
    fn the_suspect_are_asked_after_the_healthy_the_unchecked_after_the_well_and_the_ill_last_of_all() {
        let mut pool = pool(&[(1, 1), (2, 1), (3, 1)]);
        pool.heed(health(1, Health::Suspect), Instant::ZERO);
        assert_eq!(chosen(&mut pool, 4), [2, 3, 2, 3]);
        pool.checked(id(3), false);
        assert_eq!(chosen(&mut pool, 2), [2, 3], "one failure is none");
        pool.checked(id(3), false);
        assert_eq!(chosen(&mut pool, 2), [2, 2]);
        pool.unreached(id(2), Instant::ZERO);
        assert_eq!(
            chosen(&mut pool, 2),
            [1, 1],
            "a suspect one that answers is better than a healthy one that does not"
        );
        pool.unreached(id(1), Instant::ZERO);
        assert!(pool.choose(&BTreeSet::new()).is_some(), "our checks may be wrong");
        pool.heed(ServiceEvent::Changes(vec![EndpointChange::Added(id(4), endpoint(4, 1))]), Instant::ZERO);
        assert_eq!(chosen(&mut pool, 2), [4, 4], "nothing is known against it");
        pool.checked(id(2), true);
        assert_eq!(chosen(&mut pool, 2), [2, 2]);
    }

    #[test]
    fn a_request_is_tried_on_another_each_time() {
        let mut pool = pool(&[(1, 1), (2, 1)]);
        let mut tried = BTreeSet::new();
        while let Some((id, _)) = pool.choose(&tried) {
            assert!(tried.insert(id));
        }
        assert_eq!(tried.len(), 2);
    }

    #[test]
    fn a_named_port_is_the_published_ones_target_and_unknown_it_is_nobodys() {
        for (name, expected) in [("http", Some(8080)), ("https", None)] {
            let mut pool = Pool::new(Target::Named(name.into()), CHECKS);
            pool.heed(web(&[(1, 1)]), Instant::ZERO);
            assert_eq!(pool.choose(&BTreeSet::new()).map(|(_, at)| at.port()), expected);
        }
    }

    #[test]
    fn checks_are_due_at_once_for_who_is_new_or_unreached_and_then_now_and_then() {
        let mut pool = Pool::new(Target::Number(Port::new(80).unwrap()), CHECKS);
        assert_eq!(pool.poll_timeout(), None);
        pool.heed(web(&[(1, 1)]), Instant::ZERO);
        assert_eq!(pool.due(Instant::ZERO).len(), 1);
        assert_eq!((pool.due(Instant::ZERO), pool.poll_timeout()), (vec![], Some(Instant::ZERO + CHECKS.every)));
        pool.unreached(id(1), Instant::ZERO);
        assert_eq!(pool.due(Instant::ZERO).len(), 1);
        pool.checked(id(9), false); // it is gone meanwhile
    }

    #[test]
    fn what_may_have_been_done_is_not_done_again_unless_that_is_the_same() {
        let (get, post) = (Repeat { idempotent: true, kept: true }, Repeat { idempotent: false, kept: true });
        let upload = Repeat { idempotent: true, kept: false };
        for failure in [Failure::Broken, Failure::Late] {
            assert!(again(failure, get, 1) && !again(failure, post, 1) && !again(failure, upload, 1));
        }
        assert!([get, post, upload].iter().all(|of| again(Failure::Unreached, *of, 1)), "nobody has it");
        assert!(![get, post, upload].iter().any(|of| again(Failure::Unreached, *of, TRIES)), "there is an end to it");
    }

    proptest! {
        #[test]
        fn shares_are_as_weights_whatever_the_weights(weights in vec(1_u16..50, 1..8)) {
            let all: Vec<(u8, u16)> = (1..).zip(weights.iter().copied()).collect();
            let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let round = chosen(&mut pool(&all), sum);
            for (number, weight) in all {
                prop_assert_eq!(round.iter().filter(|it| **it == number).count(), usize::from(weight));
            }
        }
    }
}
