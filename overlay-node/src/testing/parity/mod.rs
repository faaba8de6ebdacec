//! One list of what passes and what does not, for all that carries packets (feature `testing`): the datapaths of a simulation and a machine's kernel
//! have to come to the same.

mod list;
mod town;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use overlay_core::IpFamily;

pub use self::list::scenarios;
pub use self::town::{CLIENT, CONTAINERS, Home, MTU, NETWORKS, NODES, Net, PUBLISHED, SERVICES, Served, home, seen_as};

/// What happens, and what then is asked of whom.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// A sentence.
    pub name: &'static str,
    /// What somebody needs who carries it.
    pub needs: Option<Need>,
    /// What happens first.
    pub change: Option<Change>,
    /// What is asked then.
    pub asks: Vec<Ask>,
}

/// What not everybody has who carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// ESP.
    Encryption,
    /// Addresses of nodes that clients outside the cluster reach.
    Outside,
}

/// Something that is done to the town.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A container's endpoint is said to be draining.
    Drains(&'static str),
    /// It is said to be healthy again.
    Heals(&'static str),
    /// A container is detached from all its networks.
    Departs(&'static str),
    /// A container comes that was not there at first.
    Comes(&'static str),
    /// A node's cable is cut.
    Cuts(usize),
    /// It is mended.
    Mends(usize),
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The container that asks; [`OUTSIDE`] is a machine that is none.
    pub from: &'static str,
    /// How.
    pub by: By,
    /// Whom.
    pub to: To,
    /// How often.
    pub times: usize,
    /// What all answers come to.
    pub expected: Outcome,
}

/// Who asks from outside the cluster.
pub const OUTSIDE: &str = "outside";

/// How somebody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By an ICMP echo.
    Ping,
    /// By an ICMP echo of so many bytes, headers included, that no router may take apart.
    Whole(u32),
    /// By a datagram.
    Udp,
    /// By a connection.
    Tcp,
    /// Not at all: the resolver is asked for the name.
    Name,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A container, at its address on a network.
    At(&'static str, &'static str, IpFamily),
    /// A service, at its VIP on a network.
    Vip(&'static str, &'static str, IpFamily),
    /// Whoever is called so: at the first address of the family that the asker's resolver gives.
    Named(&'static str, IpFamily),
    /// A node, at its address in the underlay, where [`PUBLISHED`] is.
    Node(usize),
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// These containers answered, and saw who asks at these addresses.
    Answered {
        /// Their names.
        by: BTreeSet<String>,
        /// The addresses that they saw.
        seen: BTreeSet<IpAddr>,
    },
    /// A ping was answered, from the address that was asked: by whom is not said.
    Pong,
    /// The name has these addresses.
    Has(BTreeSet<IpAddr>),
    /// There is no such name.
    NoName,
    /// It was told at once that nobody takes it.
    Refused,
    /// Nothing came back.
    Unanswered,
}

impl Outcome {
    /// Answered once.
    pub fn answered(by: &str, seen: IpAddr) -> Self {
        Self::Answered { by: [by.to_owned()].into(), seen: [seen].into() }
    }

    /// What both come to: answers add up, and anything else is told.
    #[must_use]
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Answered { mut by, mut seen }, Self::Answered { by: more, seen: also }) => {
                by.extend(more);
                seen.extend(also);
                Self::Answered { by, seen }
            }
            (Self::Answered { .. } | Self::Pong, other) => other,
            (own, _) => own,
        }
    }
}

/// Whatever carries packets for the [town](CONTAINERS), which it has built.
pub trait Ground {
    /// What this lacks, and why; `None` if it has it.
    fn lacks(&self, need: Need) -> Option<&'static str>;
    /// Does it.
    fn change(&mut self, change: Change);
    /// Asks once.
    fn ask(&mut self, ask: &Ask) -> Outcome;
    /// Lets a moment pass, in which news get around. `false` if there was time enough.
    fn wait(&mut self, waited: usize) -> bool;
}

/// What was played.
#[derive(Debug, Default)]
pub struct Played {
    /// Names of the scenarios that came to what is expected.
    pub held: Vec<&'static str>,
    /// Those that this ground lacks something for, and why.
    pub skipped: Vec<(&'static str, &'static str)>,
    /// Questions that were asked.
    pub asked: usize,
}

/// Plays all [`scenarios`] in their order, as each begins where the last ended.
///
/// Where nothing has changed, who is not to be answered must not be at the first attempt: news that are slow are no excuse. Anything else may take
/// a while.
///
/// # Panics
/// If something comes to anything else.
#[expect(clippy::panic, reason = "a test kit tells a test that it failed")]
pub fn play(ground: &mut impl Ground) -> Played {
    let mut played = Played::default();
    for scenario in scenarios() {
        if let Some(why) = scenario.needs.and_then(|need| ground.lacks(need)) {
            played.skipped.push((scenario.name, why));
            continue;
        }
        if let Some(change) = scenario.change {
            ground.change(change);
        }
        for ask in &scenario.asks {
            let may_wait = scenario.change.is_some()
                || matches!(ask.expected, Outcome::Answered { .. } | Outcome::Pong | Outcome::Has(_));
            let mut waited = 0;
            loop {
                let found = (0..ask.times).map(|_| ground.ask(ask)).reduce(Outcome::and).unwrap_or(Outcome::Unanswered);
                played.asked += ask.times;
                if found == ask.expected {
                    break;
                }
                waited += 1;
                if !may_wait || !ground.wait(waited) {
                    panic!("{}: {ask}: {found:?}, and not {:?}", scenario.name, ask.expected);
                }
            }
        }
        played.held.push(scenario.name);
    }
    played
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asks {:?} by {:?}", self.from, self.to, self.by)
    }
}

#[cfg(test)]
mod tests;
