//! Generic netlink: families that have names (`linux/genetlink.h`).

use nix::libc;

use super::{Body, Family, Flags, Malformed, NetlinkError, Requests, Socket};

/// A family of generic netlink, found by its name.
///
/// ```no_run
/// use overlay_kernel::netlink::{Family, GenericFamily, Socket};
///
/// let mut socket = Socket::open(Family::Generic)?;
/// let ipvs = GenericFamily::find(&mut socket, "IPVS")?;
/// println!("IPVS: {}", if ipvs.is_some() { "there" } else { "not in this kernel" });
/// # Ok::<(), overlay_kernel::netlink::NetlinkError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GenericFamily {
    /// The number its messages have as their kind, on this machine until it restarts.
    pub id: u16,
    /// The version of its own that it speaks.
    pub version: u8,
}

impl GenericFamily {
    /// The family called `name`; the kernel loads its module if it has one. None if it has not.
    pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Self>, NetlinkError> {
        let controller = Self { id: CONTROLLER, version: 1 };
        let request = controller.request(GET_FAMILY, Flags::NONE, |body| {
            body.text(FAMILY_NAME, name);
        });
        let found = socket.ask(&request, |message| {
            let id = message.attributes(HEAD)?.find(FAMILY_ID)?.ok_or(Malformed::new("no family id"))?.u16()?;
            let version = message.attributes(HEAD)?.find(VERSION)?.map_or(Ok(1), |version| version.u32())?;
            Ok(Some(Self { id, version: u8::try_from(version).unwrap_or(u8::MAX) }))
        });
        match found {
            Ok(found) => Ok(found.first().copied()),
            Err(NetlinkError::Refused { errno: libc::ENOENT, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A request of this family: `command` and the attributes that `body` writes.
    pub fn request(&self, command: u8, flags: Flags, body: impl FnOnce(&mut Body<'_>)) -> Requests {
        let mut requests = Requests::default();
        self.add(&mut requests, command, flags, body);
        requests
    }

    /// The same at the end of others.
    pub fn add(&self, requests: &mut Requests, command: u8, flags: Flags, body: impl FnOnce(&mut Body<'_>)) {
        requests.add(self.id, flags, |message| body(message.raw(&[command, self.version, 0, 0])));
    }
}

impl Family {
    /// Length of the head of a generic message: command, version and two bytes of nothing.
    pub const GENERIC_HEAD: usize = HEAD;
}

const HEAD: usize = 4;
const CONTROLLER: u16 = 0x10; // GENL_ID_CTRL
const GET_FAMILY: u8 = 3; // CTRL_CMD_GETFAMILY
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const VERSION: u16 = 3;
