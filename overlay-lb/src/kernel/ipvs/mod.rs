//! IPVS as the holder of services.

mod marks;
mod native;

use std::borrow::Cow;
use std::net::IpAddr;

use overlay_core::{Backend, BackendError, IpFamily, Lower, Meter, Protocol, Refusal, StepError};
use overlay_kernel::ipvs::{self, Key};
use overlay_kernel::link::KernelLocals;
use overlay_kernel::{Namespace, nft};

use super::{in_runs, lower};
use crate::{Capabilities, Readings, State};

pub use self::marks::Marks;
pub use self::native::{IpvsNative, IpvsStep};

/// Holds a [`State`] in a Linux kernel: IPVS of one namespace, which must be its alone.
///
/// It has what nf_tables lacks: schedulers that count connections, and idle timeouts (the same for all services). It lacks what
/// nf_tables has: refusal of ports that nothing serves: these are left to whoever listens there in the client's namespace. A service at all ports is one of marked
/// packets: who marks them is said by [`marked_by`](Self::marked_by) or [`marked_by_senders`](Self::marked_by_senders), without which such a service is refused. A replica that drains has weight 0. When one goes, or is down, its connections are forgotten with
/// their next packet, which is lost (`expire_nodest_conn`): UDP's go to another replica with the one after, TCP's are reset by the client's
/// own kernel, which knows no such connection. Affinity is of each port by itself, of all together where all are served, and lasts for as
/// long as the source has connections, besides. Its [`Meter`] counts replicas' connections.
///
/// IPVS tells nobody of changes: each reconcile reads it back, with a request for each port of a VIP.
///
/// It needs `CAP_NET_ADMIN` of the first user namespace, on kernels up to 6.1 at least.
///
/// ```no_run
/// use overlay_core::reconcile;
/// use overlay_kernel::Namespace;
/// use overlay_lb::State;
/// use overlay_lb::kernel::Ipvs;
///
/// let mut container = Ipvs::open(Namespace::open("/run/netns/client")?)?;
/// print!("{}", reconcile(&mut container, &State::default())?); // takes all away
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Ipvs {
    ipvs: ipvs::Ipvs,
    locals: KernelLocals,
    marking: Option<Marking>,
}

/// Who marks what goes to VIPs at all ports.
#[derive(Debug)]
enum Marking {
    Rules(Marks),
    Senders,
}

impl Ipvs {
    /// Works in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](overlay_core::ErrorKind::Unsupported) if the kernel has no IPVS,
    /// [`Permission`](overlay_core::ErrorKind::Permission) if the namespace may not be entered.
    pub fn open(namespace: Namespace) -> Result<Self, BackendError> {
        let ipvs = ipvs::Ipvs::open(namespace.try_clone()?)?;
        Ok(Self { ipvs, locals: KernelLocals::open(namespace)?, marking: None })
    }

    /// The same with services at all ports, for which these rules mark packets. They are of the same namespace.
    #[must_use]
    pub fn marked_by(self, rules: Marks) -> Self {
        Self { marking: Some(Marking::Rules(rules)), ..self }
    }

    /// The same with services at all ports, of which whoever sends to a VIP gives its packets the mark that is [of it](Marks::of): by `SO_MARK`, or rules of
    /// his own. What has none goes to nobody that is served.
    #[must_use]
    pub fn marked_by_senders(self) -> Self {
        Self { marking: Some(Marking::Senders), ..self }
    }

    /// What it can express: services at all ports, if somebody marks what goes there.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities { all_ports: self.marking.is_some(), ..Capabilities::ipvs() }
    }

    /// Carries out the steps from here on that are of one kind.
    fn some(&mut self, steps: &[IpvsStep]) -> Result<usize, StepError> {
        let done = match steps {
            [] => return Ok(0),
            [IpvsStep::Ipvs(step), ..] => self.ipvs.apply(std::slice::from_ref(step)),
            [IpvsStep::Local(step), ..] => self.locals.apply(std::slice::from_ref(step)),
            [IpvsStep::Marks(_), ..] => {
                let these: Vec<_> = steps.iter().map_while(IpvsStep::of_marks).cloned().collect();
                return match &mut self.marking {
                    Some(Marking::Rules(rules)) => rules.apply(&these).map(|()| these.len()),
                    _ => Ok(these.len()), // nobody's: they are in no state that was lowered here
                };
            }
        };
        done.map(|()| 1)
    }
}

impl Backend for Ipvs {
    type State = IpvsNative;

    fn observe(&mut self) -> Result<IpvsNative, BackendError> {
        let marks = match &mut self.marking {
            Some(Marking::Rules(rules)) => rules.observe()?,
            _ => nft::State::default(),
        };
        Ok(IpvsNative { ipvs: self.ipvs.observe()?, marks, locals: self.locals.observe()? })
    }

    fn apply(&mut self, steps: &[IpvsStep]) -> Result<(), StepError> {
        in_runs(steps, |rest| self.some(rest))
    }
}

impl Lower<State> for Ipvs {
    type Native = IpvsNative;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, IpvsNative>, Refusal> {
        overlay_core::State::check(desired)?;
        self.capabilities().permit(desired)?;
        marks::check(desired)?;
        let marks = match &self.marking {
            Some(Marking::Rules(_)) => lower::marks(desired)?,
            _ => nft::State::default(),
        };
        Ok(Cow::Owned(IpvsNative { ipvs: native::services(desired), marks, locals: lower::locals(desired) }))
    }
}

impl Meter for Ipvs {
    type Reading = Readings;

    /// One request for each port of a VIP. Of a service at all ports, TCP's and SCTP's connections count until IPVS has forgotten them, minutes after they ended:
    /// it says of them only together with UDP's, of which none ever stands. A VIP of IPv6 at all ports that is not the namespace's own is not counted.
    fn read(&mut self) -> Result<Readings, BackendError> {
        let mut readings = Readings::default();
        let own = self.locals.observe()?;
        for (key, (_, replicas)) in self.ipvs.read()? {
            let (vip, all) = match key {
                Key::At { protocol, at } => (Some(at.ip()), protocol == Protocol::Udp),
                Key::Mark { mark, family: IpFamily::V4 } => (Some(IpAddr::from(mark.to_be_bytes())), true),
                Key::Mark { mark, .. } => {
                    (own.0.keys().copied().find(|vip| vip.is_ipv6() && Marks::of(*vip) == mark), true)
                }
            };
            let Some(vip) = vip else { continue };
            for (replica, reading) in replicas {
                // Of TCP and SCTP, what does not stand has ended; of UDP, nothing stands.
                let idle = if all { reading.inactive } else { 0 };
                readings.add(vip, replica.ip(), u64::from(reading.active) + u64::from(idle));
            }
        }
        Ok(readings)
    }
}
