//! When an endpoint has nothing more to do.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use overlay_core::{Instant, NodeId};
use serde::{Deserialize, Serialize};

use super::flows::Counts;
use super::{Flow, Flows, LeftFlows};

/// The end of an endpoint's work, waited for. The endpoint was told to be draining before this begins. Then, in this order:
///
/// 1. Every live node that knows the network has acted upon that: names, VIPs and published ports lead elsewhere.
/// 2. For [`QUIET`](Self::QUIET) after that nobody began a flow: who had asked for a name before, or had a packet on its way, has come.
/// 3. No flow stands.
///
/// Or the deadline comes. A machine: tell it [who is behind](Self::handle_behind) and [which flows there are](Self::handle_flows), until
/// [`poll`](Self::poll) gives something.
///
/// ```
/// use std::time::Duration;
/// use overlay_core::{Instant, NodeId};
/// use overlay_node::{Drain, Flows};
///
/// let (begun, peer) = (Instant::ZERO, NodeId::from_bytes([2; 16]));
/// let mut drain = Drain::new(begun, Duration::from_secs(30));
/// drain.handle_behind([peer].into(), begun);
/// let confirmed = begun + Duration::from_millis(200);
/// drain.handle_behind([].into(), confirmed);
/// let quiet = confirmed + Drain::QUIET;
/// drain.handle_flows(Flows::default(), quiet, quiet);
/// assert!(drain.poll(quiet).is_some_and(|drained| drained.is_complete()));
/// ```
#[derive(Debug, Clone)]
pub struct Drain {
    begun: Instant,
    deadline: Instant,
    /// Who has not acted yet; `None` until that was told.
    behind: Option<BTreeSet<NodeId>>,
    /// Since when nobody is behind.
    heard: Option<Instant>,
    /// When the last flow began.
    last: Option<Instant>,
    seen: Option<BTreeSet<Flow>>,
    /// Those that began since nobody is behind, or since it began.
    arrived: Counts,
    /// What was read last, and when that began.
    read: Option<(Flows, Instant)>,
    unreadable: Option<String>,
}

/// What became of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// How long it took.
    pub took: Duration,
    /// The live nodes that had not acted upon it: they may lead new flows there still.
    pub behind: BTreeSet<NodeId>,
    /// The flows that stood: they are cut when the endpoint is taken away.
    pub left: Vec<LeftFlows>,
    /// If somebody began flows to the last, all that came since every node had acted, or, where not all have, since it began. Whoever comes has the
    /// endpoint's address from elsewhere, or asks a node that leads there still.
    #[serde(default)]
    pub arrived: Vec<LeftFlows>,
    /// Why it is not known which flows stood, where it is not.
    pub uncounted: Option<String>,
}

impl Drained {
    /// Both, of a container that has work by two endpoints: as long as the longer took, and all that either left.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let Self { took, behind, left, arrived, uncounted } = other;
        self.took = self.took.max(took);
        self.behind.extend(behind);
        self.left.extend(left);
        self.arrived.extend(arrived);
        Self { uncounted: self.uncounted.or(uncounted), ..self }
    }

    /// Whether taking the endpoint away cuts nothing.
    pub fn is_complete(&self) -> bool {
        self.behind.is_empty() && self.left.is_empty() && self.arrived.is_empty() && self.uncounted.is_none()
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.is_complete() { "drained" } else { "not drained" };
        write!(f, "{said} after {:.3} s", self.took.as_secs_f64())?;
        self.left.iter().try_for_each(|left| write!(f, "\n{left} left"))?;
        self.arrived.iter().try_for_each(|came| write!(f, "\n{came} began since, and new ones still come"))?;
        self.behind.iter().try_for_each(|node| write!(f, "\nnode {node} has not acted upon it"))?;
        self.uncounted.iter().try_for_each(|reason| write!(f, "\nflows are not known: {reason}"))
    }
}

impl Drain {
    /// For how long nobody may have begun a flow: 100 ms. What is on its way takes less, also with a name that was asked for right before.
    pub const QUIET: Duration = Duration::from_millis(100);

    /// One that begins now and ends after `patience` at the latest.
    pub fn new(now: Instant, patience: Duration) -> Self {
        let deadline = now + patience;
        let (behind, heard, last, seen, read) = (None, None, None, None, None);
        Self { begun: now, deadline, behind, heard, last, seen, arrived: Counts::default(), read, unreadable: None }
    }

    /// These live nodes have not acted yet; nobody, if it is none. A node that comes has yet to.
    pub fn handle_behind(&mut self, nodes: BTreeSet<NodeId>, now: Instant) {
        if nodes.is_empty() && self.heard.is_none() {
            self.arrived = Counts::default();
        }
        self.heard = nodes.is_empty().then(|| self.heard.unwrap_or(now));
        self.behind = Some(nodes);
    }

    /// These flows were read, between `begun` and `now`.
    pub fn handle_flows(&mut self, flows: Flows, begun: Instant, now: Instant) {
        let all: BTreeSet<Flow> = flows.standing.union(&flows.ended).copied().collect();
        for flow in self.seen.iter().flat_map(|seen| all.difference(seen)) {
            self.last = Some(now);
            self.arrived.add(flow);
        }
        self.seen = Some(all);
        self.read = Some((flows, begun));
        self.unreadable = None;
    }

    /// The flows cannot be read. Until they can, it is as if some stood.
    pub fn handle_unreadable(&mut self, reason: String) {
        self.unreadable = Some(reason);
        self.read = None;
    }

    /// Whether it has ended, and how.
    pub fn poll(&self, now: Instant) -> Option<Drained> {
        (self.is_done() || now >= self.deadline).then(|| Drained {
            took: now - self.begun,
            behind: self.behind.clone().unwrap_or_default(),
            left: self.read.as_ref().map(|(flows, _)| flows.left()).unwrap_or_default(),
            arrived: if self.is_quiet() { Vec::new() } else { self.arrived.list() },
            uncounted: self.uncounted(),
        })
    }

    /// When [`poll`](Self::poll) says something new, if nothing is told before.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// From when on a reading can end it, as far as is known: one before says only who comes. `None` while somebody is behind.
    pub fn quiet_at(&self) -> Option<Instant> {
        let since = self.heard?.max(self.last.unwrap_or(Instant::ZERO));
        Some(since + Self::QUIET)
    }

    fn is_done(&self) -> bool {
        self.is_quiet() && self.read.as_ref().is_some_and(|(flows, _)| flows.standing.is_empty())
    }

    /// Whether it was seen that nobody comes any more.
    fn is_quiet(&self) -> bool {
        let quiet = self.quiet_at();
        self.read.as_ref().is_some_and(|(_, begun)| quiet.is_some_and(|quiet| *begun >= quiet))
    }

    fn uncounted(&self) -> Option<String> {
        match (&self.unreadable, &self.read) {
            (None, None) => Some("there was no time to look".to_owned()),
            (None, Some((flows, _))) => flows.uncounted.clone(),
            (reason, _) => reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::Protocol;
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const MILLI: Duration = Duration::from_millis(1);

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn flow(number: u16) -> Flow {
        Flow { protocol: Protocol::Tcp, from: ([10, 0, 9, 7], number).into(), to: ([10, 0, 9, 2], 80).into() }
    }

    fn flows(standing: &[u16], ended: &[u16]) -> Flows {
        let all = |numbers: &[u16]| numbers.iter().map(|number| flow(*number)).collect();
        Flows { standing: all(standing), ended: all(ended), uncounted: None }
    }

    fn at(millis: u32) -> Instant {
        Instant::ZERO + MILLI * millis
    }

    fn heard() -> Drain {
        let mut drain = Drain::new(at(0), PATIENCE);
        drain.handle_behind([].into(), at(0));
        drain
    }

    #[test]
    fn it_is_done_when_all_have_acted_nobody_comes_and_no_flow_stands_in_that_order() {
        let mut drain = Drain::new(at(0), PATIENCE);
        drain.handle_behind([node(2)].into(), at(0));
        drain.handle_flows(flows(&[], &[]), at(150), at(150));
        assert_eq!((drain.poll(at(160)), drain.quiet_at()), (None, None), "somebody is behind");
        drain.handle_behind([].into(), at(200));
        drain.handle_flows(flows(&[], &[1]), at(290), at(291));
        assert_eq!(drain.poll(at(300)), None, "one came and went");
        drain.handle_flows(flows(&[2], &[1]), at(300), at(301));
        drain.handle_flows(flows(&[2], &[]), at(900), at(901));
        assert_eq!(drain.poll(at(901)), None, "one stands");
        drain.handle_flows(flows(&[], &[2]), at(902), at(903));
        let took = MILLI * 903;
        let done = Drained { took, behind: [].into(), left: Vec::new(), arrived: Vec::new(), uncounted: None };
        assert_eq!(drain.poll(at(903)), Some(done));
    }

    #[test]
    fn where_not_all_flows_are_listed_it_ends_when_none_of_those_stands_and_says_so() {
        let mut drain = heard();
        drain.handle_flows(Flows { uncounted: Some("no UDP".to_owned()), ..Flows::default() }, at(100), at(101));
        let drained = drain.poll(at(101)).unwrap();
        assert_eq!((drained.is_complete(), drained.uncounted.as_deref()), (false, Some("no UDP")));
    }

    #[test]
    fn what_was_read_before_it_was_quiet_does_not_count() {
        let mut drain = heard();
        drain.handle_flows(flows(&[], &[]), at(99), at(140));
        assert_eq!(drain.poll(at(140)), None);
        drain.handle_flows(flows(&[], &[]), at(100), at(141));
        assert!(drain.poll(at(141)).is_some());
    }

    #[test]
    fn who_joins_meanwhile_is_waited_for() {
        let mut drain = heard();
        drain.handle_behind([node(3)].into(), at(50));
        drain.handle_flows(flows(&[], &[]), at(200), at(200));
        assert_eq!(drain.poll(at(200)), None);
        drain.handle_behind([].into(), at(300));
        assert_eq!(drain.quiet_at(), Some(at(400)));
    }

    #[test]
    fn at_the_deadline_it_says_what_is_cut_and_who_has_not_heard() {
        let mut drain = Drain::new(at(0), PATIENCE);
        drain.handle_behind([node(2)].into(), at(0));
        let reading = flows(&[1, 2], &[3]);
        drain.handle_flows(reading, at(10), at(11));
        let left = vec![LeftFlows { protocol: Protocol::Tcp, peer: [10, 0, 9, 7].into(), flows: 2 }];
        let drained = drain.poll(drain.deadline()).unwrap();
        assert_eq!((&drained.left, &drained.behind, drained.is_complete()), (&left, &[node(2)].into(), false));
        let said =
            format!("not drained after 5.000 s\n2 tcp flows of 10.0.9.7 left\nnode {} has not acted upon it", node(2));
        assert_eq!(drained.to_string(), said);
        drain.handle_unreadable("no right".to_owned());
        let drained = drain.poll(drain.deadline()).unwrap();
        assert_eq!((drained.left, drained.uncounted.as_deref()), (Vec::new(), Some("no right")));
        let drained = Drain::new(at(0), Duration::ZERO).poll(at(0)).unwrap();
        assert!(!drained.is_complete() && drained.uncounted.is_some(), "nobody looked");
    }

    #[test]
    fn where_somebody_comes_again_and_again_and_stays_for_no_look_it_is_not_done_and_says_who() {
        let mut drain = Drain::new(at(0), PATIENCE);
        drain.handle_behind([node(2)].into(), at(0));
        drain.handle_flows(flows(&[], &[]), at(1), at(2));
        drain.handle_flows(flows(&[], &[1, 2, 3]), at(3), at(4));
        drain.handle_behind([].into(), at(5));
        for number in 10..50 {
            drain.handle_flows(
                flows(&[], &[1, 2, 3, number]),
                at(100 * u32::from(number)),
                at(100 * u32::from(number) + 1),
            );
            assert_eq!(drain.poll(at(100 * u32::from(number) + 2)), None);
        }
        let drained = drain.poll(drain.deadline()).unwrap();
        let arrived = vec![LeftFlows { protocol: Protocol::Tcp, peer: [10, 0, 9, 7].into(), flows: 40 }];
        assert_eq!((&drained.arrived, &drained.left, drained.is_complete()), (&arrived, &Vec::new(), false));
        assert_eq!(
            drained.to_string(),
            "not drained after 5.000 s\n40 tcp flows of 10.0.9.7 began since, and new ones still come"
        );
        drain.handle_flows(flows(&[60], &[]), at(5_100), at(5_101));
        drain.handle_flows(flows(&[60], &[]), at(5_300), at(5_301));
        let drained = drain.poll(at(5_301)).unwrap();
        assert_eq!((drained.arrived, drained.left.len()), (Vec::new(), 1), "nobody came after that one");
    }

    proptest! {
        /// What happens in whatever order: it is complete only if nothing stands in a reading that began when all had acted and nobody had
        /// come for so long.
        #[test]
        fn it_is_never_done_early(told in proptest::collection::vec((0_u8..3, 0_u32..120, 0_u16..4), 1..60)) {
            let (mut drain, mut now) = (Drain::new(at(0), PATIENCE), at(0));
            let (mut heard, mut came, mut known) = (None, at(0), None::<u16>);
            for (kind, later, number) in told {
                now += MILLI * later;
                match kind {
                    0 => {
                        drain.handle_behind((0..number as u8).map(node).collect(), now);
                        heard = (number == 0).then(|| heard.unwrap_or(now));
                    }
                    1 => {
                        drain.handle_flows(flows(&[number], &[]), now, now);
                        came = if known.is_some_and(|known| known != number) { now } else { came };
                        known = Some(number);
                        let done = drain.poll(now);
                        prop_assert!(now >= drain.deadline() || done.is_none());
                    }
                    _ => {
                        drain.handle_flows(flows(&[], &[]), now, now);
                        known = Some(u16::MAX);
                        let quiet = heard.is_some_and(|heard: Instant| now >= heard.max(came) + Drain::QUIET);
                        let due = quiet || now >= drain.deadline();
                        prop_assert_eq!(drain.poll(now).is_some(), due);
                    }
                }
            }
        }
    }
}
