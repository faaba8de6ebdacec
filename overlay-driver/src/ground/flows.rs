//! The flows that come to a container.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use overlay_core::{BackendError, ErrorKind, Meter, Protocol};
use overlay_kernel::Namespace;
use overlay_kernel::conntrack::{self, Conntrack};
use overlay_kernel::sock_diag::{SockDiag, TcpSocket};
use overlay_node::{Flow, Flows};

/// Counts them where they end, in the container's own namespace. Connection tracking knows flows of all protocols, and which address one came
/// to that was led on to another, as those of published ports are; where it tracks nothing, sockets know TCP's. A kernel that can track does so only in
/// namespaces with rules that ask for it, and does not say in which: connections that stand and are not tracked tell.
pub(super) struct ContainerFlows {
    /// The endpoint's addresses.
    at: BTreeSet<IpAddr>,
    tracked: Option<Conntrack>,
    sockets: Option<SockDiag>,
    /// What there was to read before: it does not go, so then a failure is one.
    was_there: [bool; 2],
    /// Ports that somebody listened at, ever: whoever is about to end stops to listen first.
    listened: BTreeSet<u16>,
    /// The connections that stood when nothing was tracked.
    stood: BTreeSet<[SocketAddr; 2]>,
    /// Whether one of those did for longer than that.
    tracks_nothing: bool,
}

impl ContainerFlows {
    /// To these addresses of `namespace`.
    pub(super) fn open(namespace: &Namespace, at: BTreeSet<IpAddr>) -> Result<Self, BackendError> {
        let (tracked, sockets) = (if_there(Conntrack::open(namespace))?, if_there(SockDiag::open(namespace))?);
        let (was_there, listened, stood, tracks_nothing) = Default::default();
        Ok(Self { at, tracked, sockets, was_there, listened, stood, tracks_nothing })
    }
}

impl Meter for ContainerFlows {
    type Reading = Flows;

    fn read(&mut self) -> Result<Flows, BackendError> {
        let tracked = self.tracked.as_mut().map(|tracked| tracked.some(|_| true));
        let tracked = tracked.map(|found| still_there(found, &mut self.was_there[0])).transpose()?.flatten();
        let sockets = self.sockets.as_mut().map(SockDiag::tcp);
        let sockets = sockets.map(|found| still_there(found, &mut self.was_there[1])).transpose()?.flatten();
        if tracked.is_none() && sockets.is_none() {
            const NEITHER: &str = "this kernel lists neither tracked flows nor sockets";
            return Err(BackendError::new(ErrorKind::Unsupported, "count flows").caused_by(NEITHER));
        }
        let sockets = sockets.unwrap_or_default();
        let uncounted = match &tracked {
            None => Some(UNTRACKED.to_owned()),
            Some(tracked) => self.doubts(tracked.is_empty(), &sockets).then(|| NOT_HERE.to_owned()),
        };
        let tracked: Vec<Tracked> = tracked.into_iter().flatten().filter_map(|flow| Tracked::of(&flow)).collect();
        Ok(Flows { uncounted, ..self.join(&tracked, &sockets) })
    }
}

impl ContainerFlows {
    /// Whether nothing is tracked here, as far as can be told: something that stood before stands, and is not.
    fn doubts(&mut self, nothing: bool, sockets: &[TcpSocket]) -> bool {
        let standing = sockets.iter().filter(|it| nothing && it.is_standing());
        let stand: BTreeSet<_> = standing.map(|it| ends(it.local, it.remote)).collect();
        self.tracks_nothing = nothing && (self.tracks_nothing || !self.stood.is_disjoint(&stand));
        self.stood = stand;
        self.tracks_nothing
    }

    fn join(&mut self, tracked: &[Tracked], sockets: &[TcpSocket]) -> Flows {
        let mut flows = Flows::default();
        let mut known = BTreeSet::new();
        for Tracked { flow, asked, has_ended } in tracked {
            known.insert(ends(flow.from, flow.to));
            if self.at.contains(asked) && !self.at.contains(&flow.from.ip()) {
                let all = if *has_ended { &mut flows.ended } else { &mut flows.standing };
                all.insert(*flow);
            }
        }
        self.listened.extend(sockets.iter().filter(|it| it.is_listening()).map(|it| it.local.port()));
        let came = sockets.iter().filter(|it| {
            let to_us = self.at.contains(&it.local.ip()) && !self.at.contains(&it.remote.ip());
            to_us && it.is_standing() && self.listened.contains(&it.local.port())
        });
        // What is tracked is not counted twice, nor one that was begun here.
        let untracked = came.filter(|it| !known.contains(&ends(it.remote, it.local)));
        flows.standing.extend(untracked.map(|it| Flow { protocol: Protocol::Tcp, from: it.remote, to: it.local }));
        flows
    }
}

/// A flow that is tracked.
#[derive(Debug, Clone, Copy)]
struct Tracked {
    flow: Flow,
    /// Which address it came to.
    asked: IpAddr,
    has_ended: bool,
}

impl Tracked {
    fn of(flow: &conntrack::Flow) -> Option<Self> {
        let protocol = Protocol::from_number(flow.protocol)?;
        let from = SocketAddr::new(flow.original.from, flow.original.from_port);
        let to = SocketAddr::new(flow.reply.from, flow.reply.from_port);
        Some(Self { flow: Flow { protocol, from, to }, asked: flow.original.to, has_ended: flow.has_ended() })
    }
}

/// The same for both directions.
fn ends(one: SocketAddr, other: SocketAddr) -> [SocketAddr; 2] {
    if one <= other { [one, other] } else { [other, one] }
}

const UNTRACKED: &str = "this kernel tracks no flows, so those of UDP and SCTP are not seen";

const NOT_HERE: &str = "nothing is tracked in its namespace, so flows of UDP and SCTP are not seen";

/// The same of what is read: what was there once is there.
fn still_there<T>(found: Result<T, BackendError>, was_there: &mut bool) -> Result<Option<T>, BackendError> {
    let found = if *was_there { found.map(Some) } else { if_there(found) }?;
    *was_there |= found.is_some();
    Ok(found)
}

/// Nothing, where a kernel does not have it.
fn if_there<T>(result: Result<T, BackendError>) -> Result<Option<T>, BackendError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid | ErrorKind::Gone) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use overlay_core::testing::{Kernel, kernel_test};
    use overlay_kernel::testing::judge;

    use super::*;

    const OWN: &str = "10.0.9.2:80";
    const LED: &str = "172.18.0.2:80";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn meter() -> ContainerFlows {
        let (tracked, sockets, was_there, listened, stood, tracks_nothing) = Default::default();
        ContainerFlows { at: [at(OWN).ip()].into(), tracked, sockets, was_there, listened, stood, tracks_nothing }
    }

    fn flow(from: &str, to: &str) -> Flow {
        Flow { protocol: Protocol::Tcp, from: at(from), to: at(to) }
    }

    fn tracked(from: &str, asked: &str, to: &str, has_ended: bool) -> Tracked {
        Tracked { flow: flow(from, to), asked: at(asked).ip(), has_ended }
    }

    #[test]
    fn what_came_to_the_endpoint_counts_also_if_it_was_led_on_and_what_its_container_began_does_not() {
        let came = [("10.0.9.3:4000", OWN, OWN, false), ("192.0.2.9:4000", OWN, LED, false)];
        let others = [
            ("10.0.9.2:5000", "10.0.9.3:80", "10.0.9.3:80", false), // it began it
            ("10.0.9.2:5001", OWN, OWN, false),                     // it asked itself
            ("10.0.9.3:4001", "10.0.8.2:80", "10.0.8.2:80", false), // to another endpoint of it
            ("10.0.9.3:4002", OWN, OWN, true),
        ];
        let all: Vec<Tracked> =
            came.iter().chain(&others).map(|(from, asked, to, ended)| tracked(from, asked, to, *ended)).collect();
        let flows = meter().join(&all, &[]);
        assert_eq!(flows.standing, [flow("10.0.9.3:4000", OWN), flow("192.0.2.9:4000", LED)].into());
        assert_eq!(flows.ended, [flow("10.0.9.3:4002", OWN)].into());
    }

    #[test]
    fn a_namespace_that_tracks_nothing_is_said_not_to_and_its_connections_count_all_the_same() {
        kernel_test(Kernel::Host, "driver::a_namespace_that_tracks_nothing", || {
            let home = Namespace::create().unwrap();
            judge(&home, "ip", &["link", "set", "lo", "up"]);
            let own: SocketAddr = "127.0.0.2:8080".parse().unwrap();
            let listener = home.run(|| TcpListener::bind(own)).unwrap().unwrap();
            let [mut meter, mut again] = [(); 2].map(|()| ContainerFlows::open(&home, [own.ip()].into()).unwrap());
            let connect = || (home.run(|| TcpStream::connect(own)).unwrap().unwrap(), listener.accept().unwrap());
            let first = connect();
            let mut read = || (meter.read().unwrap(), meter.read().unwrap());
            let (_, flows) = read();
            assert_eq!((flows.standing.len(), flows.uncounted.as_deref()), (1, Some(NOT_HERE)));
            drop(first);
            let (_, flows) = read();
            assert_eq!((flows.standing.len(), flows.uncounted.as_deref()), (0, Some(NOT_HERE)), "it is known by now");

            let chain = "add table ip t; add chain ip t c { type filter hook input priority 0; }";
            judge(&home, "nft", &[chain]);
            judge(&home, "nft", &["add rule ip t c ct state new accept"]);
            let second = connect();
            let (_, flows) = read();
            assert_eq!((flows.standing.len(), flows.uncounted), (1, None));
            let flows = [again.read().unwrap(), again.read().unwrap()];
            assert!(flows.iter().all(|flows| flows.uncounted.is_none()));
            drop(second);
        });
    }

    #[test]
    fn what_was_there_once_and_is_lost_is_an_error_and_not_an_empty_list() {
        let lost = || Err::<(), _>(BackendError::new(ErrorKind::Gone, "read flows"));
        let mut was_there = false;
        assert!(still_there(lost(), &mut was_there).is_ok_and(|found| found.is_none()), "it never was there");
        assert!(still_there(Ok(()), &mut was_there).is_ok_and(|found| found.is_some()));
        assert!(still_there(lost(), &mut was_there).is_err());
    }
}
