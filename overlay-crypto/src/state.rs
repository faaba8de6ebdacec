//! The area value: which tunnels are protected, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use overlay_core::{Change, Phase, Port, Refusal, keyed_diff};

use crate::{Sa, SaId, Spi, check};

/// The protection of a node's tunnels: ports that are guarded, security associations, and tunnels that use them.
///
/// A guarded port carries nothing in the clear, in or out, whatever else there is or is not; ports are guarded first and unguarded last.
/// What happens to a packet is told by [`outgoing`](Self::outgoing), [`incoming`](Self::incoming), [`sealed`](Self::sealed) and
/// [`opened`](Self::opened).
///
/// It has secrets, so it cannot be serialised; what is printed of it has none.
///
/// ```
/// use overlay_core::{Memory, Port, reconcile};
/// use overlay_crypto::{State, Tunnel};
///
/// let port = Port::new(4790)?;
/// let tunnel = Tunnel { port, local: [192, 0, 2, 1].into(), peer: [192, 0, 2, 2].into() };
/// let wanted = State { ports: [port].into(), tunnels: [(tunnel, vec![])].into(), ..State::default() };
/// let done = reconcile(&mut Memory::<State>::default(), &wanted)?;
/// assert_eq!(
///     done.to_string(),
///     "guard      guard port 4790\n\
///      open       port 4790 from 192.0.2.1 to 192.0.2.2: receive only\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The UDP ports whose datagrams pass in ESP only. Those of encrypted networks, which share them with no other.
    pub ports: BTreeSet<Port>,
    /// The associations; [`add`](Self::add) notices when an SPI comes twice.
    pub sas: BTreeMap<SaId, Sa>,
    /// The tunnels, with the SPI that each lane sends by: none, to receive only, or as many as there can be [`Lanes`](crate::Lanes).
    /// What arrives by any association of a tunnel's is taken.
    pub tunnels: BTreeMap<Tunnel, Vec<Spi>>,
}

/// A tunnel: datagrams to one UDP port between this node and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// The destination port, both ways.
    pub port: Port,
    /// This node's address.
    pub local: IpAddr,
    /// The peer's.
    pub peer: IpAddr,
}

/// One change of a [`State`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A port carries nothing in the clear from now on.
    Guard(Port),
    /// An association comes into being, in place of any of the same name. The one step that has a key: a backend takes it.
    PutSa(SaId, Sa),
    /// A tunnel takes what arrives, and sends by these associations from now on.
    Open(Tunnel, Vec<Spi>),
    /// A tunnel neither sends nor takes what arrives.
    Close(Tunnel),
    /// An association goes.
    RemoveSa(SaId),
    /// A port is anybody's again.
    Unguard(Port),
}

/// Another association has the name already: an SPI is by chance. The receiver needs a new epoch, whose SPI is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SA {0} is there with another key; its receiver needs a new epoch")]
pub struct SpiTaken(pub SaId);

impl State {
    /// Adds an association; or changes what is not its key, if it is there.
    ///
    /// # Errors
    /// [`SpiTaken`], and nothing changed, if there is one of that name with another key.
    pub fn add(&mut self, id: SaId, sa: Sa) -> Result<(), SpiTaken> {
        if self.sas.get(&id).is_some_and(|there| there.key != sa.key) {
            return Err(SpiTaken(id));
        }
        self.sas.insert(id, sa);
        Ok(())
    }
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n ports, associations and tunnels, whatever changed.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps: Vec<Step> = desired.ports.difference(&self.ports).copied().map(Step::Guard).collect();
        let mut gone = Vec::new();
        for change in keyed_diff(&self.sas, &desired.sas) {
            match change {
                Change::Add(id, sa) | Change::Replace(id, _, sa) => steps.push(Step::PutSa(*id, sa.clone())),
                Change::Remove(id, _) => gone.push(Step::RemoveSa(*id)),
            }
        }
        let mut closed = Vec::new();
        for change in keyed_diff(&self.tunnels, &desired.tunnels) {
            match change {
                Change::Add(tunnel, lanes) | Change::Replace(tunnel, _, lanes) => {
                    steps.push(Step::Open(*tunnel, lanes.clone()));
                }
                Change::Remove(tunnel, _) => closed.push(Step::Close(*tunnel)),
            }
        }
        let unguarded = self.ports.difference(&desired.ports).copied().map(Step::Unguard);
        steps.extend(closed);
        steps.extend(gone);
        steps.extend(unguarded);
        steps
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Guard(port) => drop(self.ports.insert(*port)),
            Step::PutSa(id, sa) => drop(self.sas.insert(*id, sa.clone())),
            Step::Open(tunnel, lanes) => drop(self.tunnels.insert(*tunnel, lanes.clone())),
            Step::Close(tunnel) => drop(self.tunnels.remove(tunnel)),
            Step::RemoveSa(id) => drop(self.sas.remove(id)),
            Step::Unguard(port) => drop(self.ports.remove(port)),
        }
    }

    fn phase(step: &Step) -> Phase {
        match step {
            Step::Guard(_) => Phase::Guard,
            Step::PutSa(..) => Phase::Build,
            Step::Open(..) => Phase::Open,
            Step::Close(_) => Phase::Close,
            Step::RemoveSa(_) => Phase::Dismantle,
            Step::Unguard(_) => Phase::Unguard,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        check::state(self)
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} from {} to {}", self.port, self.local, self.peer)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard(port) => write!(f, "guard port {port}"),
            Self::PutSa(id, sa) => write!(f, "put SA {id}: {sa}"),
            Self::Open(tunnel, lanes) => match lanes.split_first() {
                None => write!(f, "{tunnel}: receive only"),
                Some((first, rest)) => {
                    write!(f, "{tunnel}: send by {first}")?;
                    rest.iter().try_for_each(|spi| write!(f, ", {spi}"))
                }
            },
            Self::Close(tunnel) => write!(f, "{tunnel}: neither send nor receive"),
            Self::RemoveSa(id) => write!(f, "remove SA {id}"),
            Self::Unguard(port) => write!(f, "unguard port {port}"),
        }
    }
}
