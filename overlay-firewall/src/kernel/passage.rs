//! A way through Docker's chains, for those who ask for it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use overlay_core::{Applied, Backend, BackendError, ErrorKind, IfName, Lower, Owner, Phase, Refusal, StepError};
use overlay_kernel::Namespace;
use overlay_kernel::nft::{Family, HostChain, Nft, Rule, Verdict, meta};

use crate::State;

/// Lets the gateways of a [`State`] through Docker's chains: by rules of ours at the beginning of `DOCKER-USER`, the
/// chain that Docker leaves to others.
///
/// With Docker on a host, what is forwarded and is not Docker's is dropped ([`Firewall::obstacles`](super::Firewall::obstacles)
/// says so). Nobody else's chains are touched unless this is used: it is a table of its own, reconciled with the host's state
/// as the [`Firewall`](super::Firewall) is, and with `State::default()` to take its rules back. The rules are known by their
/// comment, the owner's mark. What goes to Docker's own bridges (`docker0`, `br-…`) is left for Docker to judge; what
/// is forbidden here never comes so far.
///
/// There is none for firewalld: its table is made anew at each reload, and belongs to its process since version 2.3
/// (`NftablesTableOwner`), which has the kernel refuse everybody else. Its zones are asked for with its own tool, by the
/// commands of the obstacle.
///
/// `iptables` lists the rules as its own kind. If Docker is not there, whatever wants a gateway through fails with
/// [`ErrorKind::Gone`]. Docker of the older iptables is not seen.
///
/// ```no_run
/// use overlay_core::{Owner, reconcile};
/// use overlay_firewall::kernel::Passage;
/// use overlay_firewall::{Gateway, State};
/// use overlay_kernel::Namespace;
///
/// let owner = Owner::new("demo".parse()?, "node-1".parse()?);
/// let mut host = State::default();
/// host.gateways.insert("ovgw0".parse()?, Gateway::new(["172.18.0.0/24".parse()?]));
/// let mut passage = Passage::through_docker(&owner, &Namespace::current()?)?;
/// print!("{}", reconcile(&mut passage, &host)?); // open       let ovgw0 through DOCKER-USER
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Passage {
    nft: Nft,
}

/// Who is let through: the native state of a [`Passage`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passing {
    /// Devices of gateways.
    pub devices: BTreeSet<IfName>,
    /// Whether the rules are not what they should be for these: observed only.
    pub disarranged: bool,
}

/// The one change of a [`Passing`]: these and no others are let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Let(pub BTreeSet<IfName>);

impl Passage {
    /// Works in the host's namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if it may not be entered.
    pub fn through_docker(owner: &Owner, namespace: &Namespace) -> Result<Self, BackendError> {
        Ok(Self { nft: Nft::open(owner, namespace)? })
    }
}

/// Docker's chains for others, one for each version of IP.
fn chains() -> [HostChain; 2] {
    [Family::Ip, Family::Ip6].map(|family| HostChain { family, table: "filter".into(), chain: USERS.into() })
}

const USERS: &str = "DOCKER-USER";

/// The rules that let devices through, in their order.
fn rules(devices: &BTreeSet<IfName>) -> Result<Vec<Rule>, Refusal> {
    let mut rules = Vec::new();
    let bridges = ["docker0", "br-"].map(|name| name.parse::<IfName>());
    for device in devices {
        for bridge in bridges.iter().flatten() {
            let to = Rule::new(format!("passage/docker/{device}"))?.eq(&meta::IIFNAME, *device);
            rules.push(to.begins(&meta::OIFNAME, *bridge).verdict(Verdict::Return));
        }
        rules.push(Rule::new(format!("passage/out/{device}"))?.eq(&meta::IIFNAME, *device).accept());
        rules.push(Rule::new(format!("passage/in/{device}"))?.eq(&meta::OIFNAME, *device).accept());
    }
    Ok(rules)
}

/// Whom rules are about.
fn devices(rules: &[Rule]) -> BTreeSet<IfName> {
    rules.iter().filter_map(|rule| rule.id().strip_prefix("passage/in/")?.parse().ok()).collect()
}

impl Backend for Passage {
    type State = Passing;

    fn observe(&mut self) -> Result<Passing, BackendError> {
        let mut found = Vec::new();
        for chain in chains() {
            found.extend(self.nft.guests(&chain)?);
        }
        let devices: BTreeSet<IfName> = found.iter().flat_map(|rules| devices(rules)).collect();
        let right = rules(&devices).ok();
        let disarranged = found.iter().any(|rules| Some(rules) != right.as_ref());
        Ok(Passing { devices, disarranged })
    }

    fn apply(&mut self, steps: &[Let]) -> Result<(), StepError> {
        for (at, Let(devices)) in steps.iter().enumerate() {
            self.set(devices).map_err(|(applied, source)| StepError { at, applied, source })?;
        }
        Ok(())
    }
}

impl Passage {
    fn set(&mut self, devices: &BTreeSet<IfName>) -> Result<(), (Applied, BackendError)> {
        let nothing = |error| (Applied::Nothing, error);
        let invalid = |refusal: Refusal| BackendError::new(ErrorKind::Invalid, USERS).caused_by(refusal);
        let rules = rules(devices).map_err(|refusal| nothing(invalid(refusal)))?;
        let mut there = Vec::new();
        for chain in chains() {
            if self.nft.guests(&chain).map_err(nothing)?.is_some() {
                there.push(chain);
            }
        }
        if there.is_empty() && !devices.is_empty() {
            let doing = format!("put rules into {USERS}, where Docker is");
            return Err(nothing(BackendError::new(ErrorKind::Gone, doing)));
        }
        for (number, chain) in there.iter().enumerate() {
            let applied = if number == 0 { Applied::Nothing } else { Applied::Unknown };
            self.nft.set_guests(chain, &rules).map_err(|error| (applied, error))?;
        }
        Ok(())
    }
}

impl overlay_core::State for Passing {
    type Step = Let;

    fn plan(&self, desired: &Self) -> Vec<Let> {
        if self == desired { Vec::new() } else { vec![Let(desired.devices.clone())] }
    }

    fn apply(&mut self, Let(devices): &Let) {
        *self = Self { devices: devices.clone(), disarranged: false };
    }

    fn phase(Let(devices): &Let) -> Phase {
        if devices.is_empty() { Phase::Close } else { Phase::Open }
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.disarranged {
            true => Err(Refusal::new(USERS, "rules out of order", "that is only observed")),
            false => Ok(()),
        }
    }
}

impl Lower<State> for Passage {
    type Native = Passing;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, Passing>, Refusal> {
        overlay_core::State::check(desired)?;
        Ok(Cow::Owned(Passing { devices: desired.gateways.keys().copied().collect(), disarranged: false }))
    }
}

impl fmt::Display for Let {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "let nobody through {USERS}");
        }
        let devices: Vec<_> = self.0.iter().map(IfName::as_str).collect();
        write!(f, "let {} through {USERS}", devices.join(", "))
    }
}
