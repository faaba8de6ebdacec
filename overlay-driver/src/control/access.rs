//! Who may call.

use std::collections::BTreeSet;

/// The process at the other end of a connection, as the kernel saw it when it connected (`SO_PEERCRED`): it cannot lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group. Its other groups are not told: give such a group the socket's file instead, see
    /// [`Access::everyone`].
    pub gid: u32,
    /// The process, if it is in a namespace that ours sees. For logs: a number is used again once a process has ended.
    pub pid: Option<i32>,
}

/// Who may call a [`ControlServer`](super::ControlServer): root and the server's own user, unless it is said otherwise.
///
/// Whoever may call may do all that the server can do.
///
/// ```
/// use overlay_driver::control::{Access, Caller};
///
/// let access = Access::default().and_uid(1000).and_gid(27);
/// let caller = |uid, gid| Caller { uid, gid, pid: None };
/// assert!(access.admits(caller(0, 0)) && access.admits(caller(1000, 1000)) && access.admits(caller(1001, 27)));
/// assert!(!access.admits(caller(54_321, 54_321)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
    is_open: bool,
}

impl Access {
    /// These users and nobody else, be it root.
    pub fn only(uids: impl IntoIterator<Item = u32>) -> Self {
        Self { uids: uids.into_iter().collect(), gids: BTreeSet::new(), is_open: false }
    }

    /// Whoever the socket's file lets connect: its mode and its group decide, and they know all groups of a caller.
    pub fn everyone() -> Self {
        Self { is_open: true, ..Self::default() }
    }

    /// And this user.
    #[must_use]
    pub fn and_uid(mut self, uid: u32) -> Self {
        self.uids.insert(uid);
        self
    }

    /// And those whose effective group is this.
    #[must_use]
    pub fn and_gid(mut self, gid: u32) -> Self {
        self.gids.insert(gid);
        self
    }

    /// Whether this one may call.
    pub fn admits(&self, caller: Caller) -> bool {
        self.is_open || self.uids.contains(&caller.uid) || self.gids.contains(&caller.gid)
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::only([0, nix::unistd::geteuid().as_raw()])
    }
}
