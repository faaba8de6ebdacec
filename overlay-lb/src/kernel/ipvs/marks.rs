//! Marks by which IPVS knows what goes to a VIP at whatever port.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::net::IpAddr;

use overlay_core::{Backend, BackendError, Lower, Owner, Refusal, StepError, StepOf, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::nft::{self, Nft, Writers};
use siphasher::sip::SipHasher13;

use crate::State;
use crate::kernel::lower::{self, at_all_ports};
use crate::kernel::owner_of;

/// Rules of nf_tables that mark what goes to VIPs of which *all ports* are served. IPVS has a service at one port, or for all packets of one
/// mark; so a service at all ports is one of a mark, and something must give it to packets.
///
/// A VIP's mark is [`of`](Self::of) it alone, so it stays the same whatever other services come and go. All packets to it have it, the packet's mark
/// before is lost: those that begin here (`own`, at the output hook) and those that come to be balanced (`arriving`, at the prerouting hook), at priority -150.
///
/// Useful alone to whoever runs IPVS by other means; [`Ipvs::marked_by`](super::Ipvs::marked_by) takes them in.
///
/// ```no_run
/// use overlay_core::{Owner, reconcile};
/// use overlay_kernel::Namespace;
/// use overlay_lb::kernel::Marks;
/// use overlay_lb::{Service, State};
///
/// let owner = Owner::new("demo".parse()?, "client".parse()?);
/// let mut marks = Marks::open(&owner, &Namespace::open("/run/netns/client")?)?;
/// let web = Service::new(["10.0.9.100".parse()?]); // at all ports
/// let wanted = State { services: [("web".parse()?, web)].into_iter().collect(), ..State::default() };
/// print!("{}", reconcile(&mut marks, &wanted)?);
/// assert_eq!(Marks::of("10.0.9.100".parse()?), 0x0a00_0964);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Marks(Nft);

impl Marks {
    /// Works in this namespace. Its table is that of an owner of its own, whose instance is that of `owner` with `-marks` behind it.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if the namespace may not be entered, [`Invalid`](overlay_core::ErrorKind::Invalid) if the instance's name is longer than 57
    /// bytes, [`Unsupported`](overlay_core::ErrorKind::Unsupported) if the kernel has no nf_tables.
    pub fn open(owner: &Owner, namespace: &Namespace) -> Result<Self, BackendError> {
        Ok(Self(Nft::open(&owner_of(owner, "marks")?, namespace)?))
    }

    /// The same beside others that write tables of the namespace: what they do is no disturbance, see [`Writers`].
    #[must_use]
    pub fn among(self, writers: &Writers) -> Self {
        Self(self.0.among(writers))
    }

    /// The mark of what goes to a VIP, never 0: an IPv4 address itself, so no two are alike; of an IPv6 address 32 bits that are drawn by all of it
    /// (SipHash-1-3). Of those two may be alike, once in four billion: then a [`State`] with both is refused.
    pub fn of(vip: IpAddr) -> u32 {
        let mark = match vip {
            IpAddr::V4(vip) => u32::from(vip),
            IpAddr::V6(vip) => {
                let mut hasher = SipHasher13::new();
                hasher.write(&vip.octets());
                hasher.finish() as u32
            }
        };
        mark.max(1)
    }
}

/// Refuses two VIPs of one mark.
pub(super) fn check(state: &State) -> Result<(), Refusal> {
    let mut seen: BTreeMap<(bool, u32), IpAddr> = BTreeMap::new();
    for vip in at_all_ports(state) {
        if let Some(other) = seen.insert((vip.is_ipv4(), Marks::of(vip)), vip) {
            let reason =
                format!("IPVS would know it by the same mark as {other}: take another address for one of them");
            return Err(Refusal::new("VIP", vip.to_string(), reason));
        }
    }
    Ok(())
}

impl Backend for Marks {
    type State = nft::State;

    fn observe(&mut self) -> Result<nft::State, BackendError> {
        self.0.observe()
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        self.0.apply(steps)
    }
}

impl Witness for Marks {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.0.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.0.undisturbed()
    }
}

impl Lower<State> for Marks {
    type Native = nft::State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, nft::State>, Refusal> {
        overlay_core::State::check(desired)?;
        check(desired)?;
        lower::marks(desired).map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vips_mark_is_its_own_and_never_none() {
        let of = |text: &str| Marks::of(text.parse().unwrap());
        assert_eq!(of("10.0.9.100"), 0x0a00_0964);
        assert_eq!(of("0.0.0.0"), 1);
        let v6: std::collections::BTreeSet<u32> = (0..1000).map(|it| of(&format!("fd00:{it}::64"))).collect();
        assert_eq!(v6.len(), 1000);
        assert!(!v6.contains(&0));
        assert_eq!(of("fd00::64"), of("fd00:0::0:64"));
    }
}
