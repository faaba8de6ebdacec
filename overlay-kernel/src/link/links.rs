//! The kernel as the holder of native links.

use std::borrow::Cow;
use std::collections::BTreeMap;

use overlay_core::{Backend, BackendError, ErrorKind, Lower, NsKey, Owner, Refusal, StepError, StepOf, Witness};

use super::door::Door;
use super::watch::Watch;
use super::{Site, State, carry, observe};
use crate::Namespace;

/// Holds a [`State`] in the kernel: one place's namespace, and those that the other ends of its objects are in.
///
/// What it makes carries the mark of its [`Owner`] (KERNEL.md lists how), and it touches nothing else. It needs
/// `CAP_NET_ADMIN` over all its namespaces, and `CAP_SYS_ADMIN` to enter them.
///
/// ```no_run
/// use overlay_core::{Mac, Mtu, Owner, Shadow, reconcile};
/// use overlay_kernel::Namespace;
/// use overlay_kernel::link::{Dev, Kind, Link, Links, State};
///
/// let owner = Owner::new("demo".parse()?, "a".parse()?);
/// let mut links = Shadow::new(Links::open(&owner, Namespace::create()?)?);
/// let bridge = Link::new(Kind::Bridge { multicast_snooping: false }, Mtu::ETHERNET, Mac::new([2, 0, 0, 0, 0, 1]));
/// let mut wanted = State::default();
/// wanted.links.insert(Dev::home("br0".parse()?), bridge);
/// print!("{}", reconcile(&mut links, &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Links {
    pub(super) mark: Mark,
    pub(super) doors: BTreeMap<Site, Door>,
    pub(super) watch: Watch,
}

impl Links {
    /// Works in `home`, which is ours whole: settings of the namespace are held there too.
    ///
    /// Each home needs an owner of its own, `NODE-NETWORK` as its instance say: two with one owner that reach the same
    /// container would take each other's devices there for their own.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if `home` may not be entered.
    pub fn open(owner: &Owner, home: Namespace) -> Result<Self, BackendError> {
        let mark = Mark::of(owner);
        let doors = BTreeMap::from([(Site::Home, Door::open(home, mark)?)]);
        Ok(Self { mark, doors, watch: Watch::default() })
    }

    /// Works in `namespace` too, under the name that states have for it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is another one than the key says, or one that is home or was reached under another
    /// name: its devices would be there twice. [`ErrorKind::Permission`] if it may not be entered.
    pub fn reach(&mut self, key: NsKey, namespace: Namespace) -> Result<(), BackendError> {
        if namespace.id() != key.id {
            let cause = format!("this is {}", namespace.id());
            return Err(BackendError::new(ErrorKind::Invalid, format!("reach namespace {key}")).caused_by(cause));
        }
        let site = Site::far(key);
        if let Some((other, _)) =
            self.doors.iter().find(|(at, door)| **at != site && door.namespace.id() == namespace.id())
        {
            let cause = format!("it is the namespace of {other} already: use that name");
            return Err(BackendError::new(ErrorKind::Invalid, format!("reach namespace {site}")).caused_by(cause));
        }
        self.doors.insert(site, Door::open(namespace, self.mark)?);
        self.watch.stop();
        Ok(())
    }

    /// Works in a namespace no more. What is in it stays, out of sight.
    pub fn leave(&mut self, key: &NsKey) {
        self.doors.remove(&Site::far(key.clone()));
        self.watch.stop();
    }

    pub(super) fn door(&mut self, site: &Site) -> Result<&mut Door, BackendError> {
        self.doors.get_mut(site).ok_or_else(|| {
            BackendError::new(ErrorKind::Gone, format!("work in namespace {site}")).caused_by("it was never reached")
        })
    }
}

impl Backend for Links {
    type State = State;

    fn observe(&mut self) -> Result<State, BackendError> {
        observe::state(self)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        carry::out(self, steps)
    }
}

impl Witness for Links {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.watch.stop();
        self.doors.values_mut().try_for_each(Door::watch)?;
        self.door(&Site::Home)?.hold_settings()?;
        self.watch.start();
        Ok(())
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.watch.quiet(&mut self.doors)
    }
}

impl Lower<State> for Links {
    type Native = State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, State>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}

/// How devices of an owner are known: a group from their first moment, and an altname once they are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    tag: u64,
}

impl Mark {
    pub(super) fn of(owner: &Owner) -> Self {
        Self { tag: owner.tag() }
    }

    /// The device group: 31 bits of the tag, never 0, the group of all that nobody put into one.
    pub(super) const fn group(self) -> u32 {
        (self.tag as u32 & 0x7fff_ffff) | 1 << 30
    }

    /// The altname of a device: the tag whole, and its name, as an altname is one device's only.
    pub(super) fn altname(self, name: impl std::fmt::Display) -> String {
        format!("ov-{:016x}-{name}", self.tag)
    }

    /// Whether a device with this group and these altnames is ours.
    pub(super) fn is_on(self, group: u32, altnames: &[String]) -> bool {
        let prefix = self.altname("");
        group == self.group() || altnames.iter().any(|name| name.starts_with(&prefix))
    }
}
