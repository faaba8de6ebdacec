//! The kernel as the holder of segments.

use std::borrow::Cow;

use overlay_core::{Backend, BackendError, Lower, NsKey, Owner, Refusal, StepError, StepOf, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::link::{self, Links, Tap};

use super::lower;
use crate::State;

/// Holds the segments of one network on one node: a namespace of their own with a bridge for each, between the
/// containers' namespaces and the host's.
///
/// For each segment there is a bridge `br-VNI`, which has the gateway's addresses, and as its ports the VXLAN device
/// `vx-VNI`, whose UDP socket stays in the host's namespace, and for each endpoint a veth pair `p-ID` or, for a virtual
/// machine, a tap of the name it is given. Nothing is learned and nothing flooded but broadcasts among the node's own
/// endpoints: who is where is said by static entries, and the VXLAN device answers ARP and neighbour discovery for who is
/// elsewhere. With gateways in several segments, packets are routed between them.
///
/// A machine's tap is there before the machine is, and after. Whoever opens it ([`TapQueue`](overlay_kernel::TapQueue)) is the
/// machine; who may, [`with_taps`](Self::with_taps) says. Addresses and routes inside are the machine's own to set, and its
/// Ethernet address must be the port's: frames for another do not come there.
///
/// It refuses by name: taps named as another device of the sandbox, more than 1,022 endpoints in one segment, overlapping
/// subnets of two segments, and two endpoints whose ids begin with the same 12 characters. A VNI or UDP port that another
/// program holds is a [`Conflict`](overlay_core::ErrorKind::Conflict) of the step that needs it.
///
/// It works in namespaces as [`Links`] does, and needs the same capabilities.
///
/// ```no_run
/// use overlay_core::{Mtu, Owner, Shadow, Vni, reconcile};
/// use overlay_kernel::Namespace;
/// use overlay_vxlan::{Sandbox, Segment, State, Vtep};
///
/// let owner = Owner::new("demo".parse()?, "node-1".parse()?);
/// let host = Namespace::current()?;
/// let sandbox = Sandbox::open(&owner, Namespace::create()?, (host.key("host".parse()?), host))?;
/// let segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450)?);
/// let wanted = State { segments: [(Vni::new(4096)?, segment)].into() };
/// print!("{}", reconcile(&mut Shadow::new(sandbox), &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sandbox {
    links: Links,
    underlay: NsKey,
    tap: Tap,
}

impl Sandbox {
    /// Works in `home`, which is the network's own, with the sockets of its tunnels in `underlay`, the host's namespace.
    /// Each network on a node needs an owner of its own, as containers may be in several ([`Links::open`]).
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if one may not be entered,
    /// [`ErrorKind::Invalid`](overlay_core::ErrorKind::Invalid) if the underlay is another namespace than its key says.
    pub fn open(owner: &Owner, home: Namespace, underlay: (NsKey, Namespace)) -> Result<Self, BackendError> {
        let (key, host) = underlay;
        let mut links = Links::open(owner, home)?;
        links.reach(key.clone(), host)?;
        Ok(Self { links, underlay: key, tap: Tap::new() })
    }

    /// The same with taps that are like this, where they would be of one queue and for root alone. Those that are there and
    /// unlike it are made anew, which cuts off who has them open.
    #[must_use]
    pub fn with_taps(self, tap: Tap) -> Self {
        Self { tap, ..self }
    }

    /// Works in a container's namespace too, under the name that states have for it. Of a
    /// [`Shadow`](overlay_core::Shadow), by [`inner_mut`](overlay_core::Shadow::inner_mut).
    ///
    /// # Errors
    /// As [`Links::reach`].
    pub fn reach(&mut self, key: NsKey, container: Namespace) -> Result<(), BackendError> {
        self.links.reach(key, container)
    }

    /// Works in a container's namespace no more. What is in it stays, out of sight.
    pub fn leave(&mut self, key: &NsKey) {
        if *key != self.underlay {
            self.links.leave(key);
        }
    }
}

impl Lower<State> for Sandbox {
    type Native = link::State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, link::State>, Refusal> {
        overlay_core::State::check(desired)?;
        lower::links(desired, &self.underlay, self.tap).map(Cow::Owned)
    }
}

impl Backend for Sandbox {
    type State = link::State;

    fn observe(&mut self) -> Result<link::State, BackendError> {
        self.links.observe()
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        self.links.apply(steps)
    }
}

impl Witness for Sandbox {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.links.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.links.undisturbed()
    }
}
