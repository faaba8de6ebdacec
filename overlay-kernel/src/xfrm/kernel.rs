//! The kernel as the holder of associations and policies.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nix::libc::{EEXIST, EINVAL, ENOENT, ENOSYS, EPROTONOSUPPORT, ESRCH};
use overlay_core::{
    Applied, Backend, BackendError, ErrorKind, IpFamily, Lower, Meter, Refusal, StepError, StepOf, Witness,
};

use super::key::Unused;
use super::wire::{self, FoundPolicy, FoundSa};
use super::{Aead, Policy, PolicyKey, Sa, SaId, State, Step};
use crate::Namespace;
use crate::netlink::{Drained, Family, NetlinkError, Notices, Requests, Socket};

/// Which of a namespace's associations and policies are a state's. All others are foreign: they are neither seen nor touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The first and last request id of its associations, which nobody else uses in the namespace.
    pub reqids: (u32, u32),
    /// The first and last priority of its policies, which nobody else uses in the namespace.
    pub priorities: (u32, u32),
}

impl Claim {
    pub(super) const fn has_reqid(&self, reqid: u32) -> bool {
        self.reqids.0 <= reqid && reqid <= self.reqids.1
    }

    const fn has_priority(&self, priority: u32) -> bool {
        self.priorities.0 <= priority && priority <= self.priorities.1
    }
}

/// Holds a [`State`] in the kernel: what is [claimed](Claim) in XFRM of one namespace.
///
/// Each step is a request of its own. Keys go to the kernel in [`Step::AddSa`] only, and each [`Key`](super::Key) once; what is read
/// back is parameters, as a kernel in lockdown hides keys. An association that is there with other parameters is not replaced, and one
/// that is gone is not put back under its key: both are [`ErrorKind::Conflict`], and need another SPI. It needs `CAP_NET_ADMIN`.
///
/// A dump holds keys where the kernel does not hide them. The socket's buffers through which keys go are freed after each request, not wiped.
///
/// ```no_run
/// use overlay_core::reconcile;
/// use overlay_kernel::Namespace;
/// use overlay_kernel::xfrm::{Claim, State, Xfrm};
///
/// let claim = Claim { reqids: (4000, 4999), priorities: (4000, 4999) };
/// let mut xfrm = Xfrm::open(Namespace::open("/run/netns/host")?, claim)?;
/// print!("{}", reconcile(&mut xfrm, &State::default())?); // takes away what is claimed
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Xfrm {
    namespace: Namespace,
    socket: Socket,
    claim: Claim,
    notices: Option<Notices>,
}

/// What was counted of an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Bytes that were sealed or opened.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// The last sequence number that was sent.
    pub sent: u64,
    /// The highest that was received.
    pub received: u64,
    /// Packets refused as older than the window.
    pub late: u32,
    /// Packets refused as received before.
    pub replayed: u32,
    /// Packets refused as not by the key's holder.
    pub forged: u32,
}

/// What a kernel lacks that an association needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missing {
    /// ESP in that family (`CONFIG_INET_ESP`, `CONFIG_INET6_ESP`).
    Esp,
    /// The AEAD, which is looked for first: there may be no ESP either.
    Aead,
}

/// What was counted, by association.
pub type Readings = BTreeMap<SaId, Reading>;

impl Xfrm {
    /// Works in this namespace, on what is claimed.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the kernel has no XFRM, [`ErrorKind::Permission`] if the namespace may not be entered,
    /// [`ErrorKind::Invalid`] if the claim has request id 0 or priority 0, which objects have whose maker chose none.
    pub fn open(namespace: Namespace, claim: Claim) -> Result<Self, BackendError> {
        let Claim { reqids, priorities } = claim;
        if [reqids, priorities].iter().any(|(first, last)| *first == 0 || last < first) {
            return Err(BackendError::new(ErrorKind::Invalid, format!("claim {claim:?}, from 1 up")));
        }
        let socket = namespace.netlink(Family::Xfrm)?;
        Ok(Self { namespace, socket, claim, notices: None })
    }

    /// What this kernel lacks for associations of a family with an AEAD; it loads what it has as modules. Nothing is made: it
    /// is asked for one that is right but for having no window, and says first what it does not know at all.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] without `CAP_NET_ADMIN`.
    pub fn missing(&mut self, family: IpFamily, aead: Aead) -> Result<Option<Missing>, BackendError> {
        let asked = self.ask(wire::add_impossible_sa(family, aead));
        match asked.as_ref().map_err(NetlinkError::errno) {
            Err(Some(EINVAL)) => Ok(None),
            Err(Some(EPROTONOSUPPORT)) => Ok(Some(Missing::Esp)),
            Err(Some(ENOENT | ENOSYS)) => Ok(Some(Missing::Aead)),
            _ => asked.map(|()| None).map_err(|error| error.during("ask what ESP the kernel has")),
        }
    }

    fn sas(&mut self) -> Result<Vec<FoundSa>, BackendError> {
        let claim = self.claim;
        let ours = |found: &FoundSa| claim.has_reqid(found.reqid);
        let found = self.socket.dump(&wire::sas(), |message| Ok(wire::parse_sa(message)?.filter(ours)));
        found.map_err(|error| error.during("read SAs"))
    }

    fn policies(&mut self) -> Result<Vec<FoundPolicy>, BackendError> {
        let claim = self.claim;
        let ours = |found: &FoundPolicy| claim.has_priority(found.priority);
        let found = self.socket.dump(&wire::policies(), |message| Ok(wire::parse_policy(message)?.filter(ours)));
        found.map_err(|error| error.during("read policies"))
    }

    /// Asks for a change, which the kernel's notices will say was ours.
    fn ask(&mut self, request: Requests) -> Result<(), NetlinkError> {
        let port = self.socket.port();
        self.socket.request(&request.with_port(port))
    }

    fn step(&mut self, step: &Step) -> Result<(), BackendError> {
        match step {
            Step::PutPolicy(key, policy) => self.put_policy(step, key, policy),
            Step::AddSa(id, sa) => self.add_sa(step, id, sa),
            Step::RemovePolicy(key, _) => self.remove_policy(step, key),
            Step::RemoveSa(id) => self.remove_sa(step, id),
        }
    }

    fn put_policy(&mut self, step: &Step, key: &PolicyKey, policy: &Policy) -> Result<(), BackendError> {
        if !self.claim.has_priority(policy.priority) {
            return Err(unclaimed(step));
        }
        match self.ask(wire::put_policy(key, policy, false)) {
            Err(error) if error.errno() == Some(EEXIST) => match self.policy(step, key)? {
                Some(there) if self.claim.has_priority(there.priority) => {
                    let replaced = self.ask(wire::put_policy(key, policy, true));
                    replaced.map_err(|error| error.during(step.to_string()))
                }
                _ => Err(error.during(format!("{step}, where a foreign policy is"))),
            },
            done => done.map_err(|error| error.during(step.to_string())),
        }
    }

    fn policy(&mut self, step: &Step, key: &PolicyKey) -> Result<Option<FoundPolicy>, BackendError> {
        let found = self.socket.ask(&wire::get_policy(key), wire::parse_policy);
        found_or_gone(found).map_err(|error| error.during(step.to_string()))
    }

    fn sa(&mut self, step: &Step, id: &SaId) -> Result<Option<FoundSa>, BackendError> {
        let found = self.socket.ask(&wire::get_sa(id), wire::parse_sa);
        found_or_gone(found).map_err(|error| error.during(step.to_string()))
    }

    fn add_sa(&mut self, step: &Step, id: &SaId, sa: &Sa) -> Result<(), BackendError> {
        if !self.claim.has_reqid(sa.reqid) {
            return Err(unclaimed(step));
        }
        if let Some(there) = self.sa(step, id)? {
            let same = there.sa.is_some_and(|there| there == *sa);
            let taken = || BackendError::new(ErrorKind::Conflict, format!("{step}: {}", super::SpiTaken(*id)));
            return same.then_some(()).ok_or_else(taken);
        }
        let missing = |what| BackendError::new(ErrorKind::Conflict, format!("{step}: {what}, so it needs another SPI"));
        let key = sa.key.as_ref().ok_or_else(|| missing("its key is not known any more"))?;
        let done = key.put_to_work(|bytes| {
            let done = self.ask(wire::add_sa(id, sa, bytes));
            let unused = Unused(done.as_ref().is_err_and(|error| !error.leaves_doubt()));
            (done, unused)
        });
        done.ok_or_else(|| missing("its key was put to work before"))?.map_err(|error| error.during(step.to_string()))
    }

    fn remove_policy(&mut self, step: &Step, key: &PolicyKey) -> Result<(), BackendError> {
        match self.policy(step, key)? {
            Some(there) if self.claim.has_priority(there.priority) => {
                gone(self.ask(wire::remove_policy(key))).map_err(|error| error.during(step.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn remove_sa(&mut self, step: &Step, id: &SaId) -> Result<(), BackendError> {
        match self.sa(step, id)? {
            Some(there) if self.claim.has_reqid(there.reqid) => {
                gone(self.ask(wire::remove_sa(id))).map_err(|error| error.during(step.to_string()))
            }
            _ => Ok(()),
        }
    }
}

fn unclaimed(step: &Step) -> BackendError {
    BackendError::new(ErrorKind::Invalid, format!("{step}, which is not claimed"))
}

/// What is gone already is as good as removed.
fn gone(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(error) if matches!(error.errno(), Some(ESRCH | ENOENT)) => Ok(()),
        done => done,
    }
}

fn found_or_gone<T>(found: Result<Vec<T>, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match found {
        Err(error) if matches!(error.errno(), Some(ESRCH | ENOENT)) => Ok(None),
        found => Ok(found?.into_iter().next()),
    }
}

impl Backend for Xfrm {
    type State = State;

    /// Two dumps. A claimed object of a kind that no state has is an error: it is somebody else's.
    fn observe(&mut self) -> Result<State, BackendError> {
        let foreign = |what| BackendError::new(ErrorKind::Conflict, format!("read {what}, which is none of ours"));
        let mut state = State::default();
        for found in self.sas()? {
            let sa = found.sa.ok_or_else(|| foreign(format!("SA {}", found.id)))?;
            state.sas.insert(found.id, sa);
        }
        for found in self.policies()? {
            let place = || foreign(format!("a policy of priority {}", found.priority));
            let (key, policy) = found.known.ok_or_else(place)?;
            state.policies.insert(key, policy);
        }
        Ok(state)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        for (at, step) in steps.iter().enumerate() {
            let applied = if at == 0 { Applied::Nothing } else { Applied::Before };
            self.step(step).map_err(|source| {
                let doubt = matches!(source.kind(), ErrorKind::Timeout | ErrorKind::Interrupted | ErrorKind::Protocol);
                StepError { at, applied: if doubt { Applied::Unknown } else { applied }, source }
            })?;
        }
        Ok(())
    }
}

/// Its own requests are told from others' by the port that they say they are from; an association that expires is a change too.
impl Witness for Xfrm {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.notices = None;
        let failed = |error: NetlinkError| error.during("hear what changes in XFRM");
        let opened = self.namespace.run(|| Notices::open(Family::Xfrm, &GROUPS, NOTICES))?.map_err(failed)?;
        opened.ignore(self.socket.port()).map_err(failed)?;
        self.notices = Some(opened);
        Ok(())
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        let Some(notices) = &mut self.notices else { return Ok(false) };
        let drained = notices.drain(|_| {}).map_err(|error| error.during("hear what changed in XFRM"))?;
        Ok(drained == Drained::Quiet)
    }
}

impl Meter for Xfrm {
    type Reading = Readings;

    fn read(&mut self) -> Result<Readings, BackendError> {
        Ok(self.sas()?.into_iter().map(|found| (found.id, found.reading)).collect())
    }
}

impl Lower<State> for Xfrm {
    type Native = State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, State>, Refusal> {
        let reason = "it is not claimed, so it could not be told from foreign ones";
        if let Some((id, sa)) = desired.sas.iter().find(|(_, sa)| !self.claim.has_reqid(sa.reqid)) {
            return Err(Refusal::new(format!("SA {id}"), format!("request id {}", sa.reqid), reason));
        }
        if let Some((key, it)) = desired.policies.iter().find(|(_, it)| !self.claim.has_priority(it.priority)) {
            return Err(Refusal::new(format!("policy {key}"), format!("priority {}", it.priority), reason));
        }
        Ok(Cow::Borrowed(desired))
    }
}

const GROUPS: [u32; 3] = [2, 3, 4]; // XFRMNLGRP_EXPIRE, _SA, _POLICY
const NOTICES: usize = 1 << 20;
