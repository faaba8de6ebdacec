//! Taps by `/dev/net/tun` (`linux/if_tun.h`): rtnetlink shows and removes them, but does not make them.

#![expect(unsafe_code, reason = "of these requests to a device, ioctl(2), there is no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, Ioctl, c_uint, c_ulong};
use overlay_core::{BackendError, ErrorKind, IfName};

use crate::link::Tap;
use crate::{Namespace, failed};

/// A tap, held open: a file from which the frames are read that the tap's port is sent, and to which those are written
/// that shall arrive there; one at each call, whole, as Ethernet has them.
///
/// It is what a virtual machine monitor opens. One without privileges, or in another namespace, can be handed this file
/// instead: it stays with its tap wherever it is used. It reads and writes as a [`File`], blocking:
///
/// ```no_run
/// use std::fs::File;
/// use std::io::Read;
/// use std::os::fd::OwnedFd;
///
/// use overlay_kernel::{Namespace, QueueFlags, TapQueue};
///
/// let sandbox = Namespace::open("/run/netns/blue")?;
/// let queue = TapQueue::open(&sandbox, "tap0".parse()?, QueueFlags::default())?;
/// let mut frames = File::from(OwnedFd::from(queue));
/// let mut frame = [0; 9_018];
/// let len = frames.read(&mut frame)?;
/// println!("{:02x?}", &frame[..len]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The tap has a carrier, and its port of a bridge forwards, only while somebody holds it open.
#[derive(Debug)]
pub struct TapQueue {
    file: File,
}

/// How a tap is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFlags {
    /// As one of several: as the tap is, [`Tap::multi_queue`].
    pub multi_queue: bool,
    /// Each frame has a `struct virtio_net_hdr` of 10 bytes before it, by which checksums and segmentation are offloaded.
    pub vnet_hdr: bool,
}

impl QueueFlags {
    const fn bits(self) -> u16 {
        let multi_queue = if self.multi_queue { IFF_MULTI_QUEUE } else { 0 };
        let vnet_hdr = if self.vnet_hdr { IFF_VNET_HDR } else { 0 };
        IFF_TAP | IFF_NO_PI | multi_queue | vnet_hdr
    }
}

impl TapQueue {
    /// Whether this process may open `/dev/net/tun`, without which it has no taps. Nothing is made.
    ///
    /// # Errors
    /// - [`ErrorKind::Permission`] if this user may not read and write it,
    /// - [`ErrorKind::Unsupported`] without it.
    pub fn probe() -> Result<(), BackendError> {
        device(|| "have taps".to_owned()).map(drop)
    }

    /// Opens the tap `name` of a namespace, which stays when it is closed.
    ///
    /// # Errors
    /// - [`ErrorKind::Gone`] if there is no such tap, or one only that goes with the file of whoever made it,
    /// - [`ErrorKind::Conflict`] if somebody has it open already, and it is none of several queues,
    /// - [`ErrorKind::Invalid`] if the name is another device's, or only one of the tap and `flags` is of several queues,
    /// - [`ErrorKind::Permission`] if the namespace may not be entered, or the tap is another's ([`Tap::owner`]),
    /// - [`ErrorKind::Unsupported`] without `/dev/net/tun`.
    pub fn open(namespace: &Namespace, name: IfName, flags: QueueFlags) -> Result<Self, BackendError> {
        namespace.run(|| Self::open_here(name, flags))?
    }

    /// The request for a tap that is not there makes one, which goes as soon as its file is closed.
    fn open_here(name: IfName, flags: QueueFlags) -> Result<Self, BackendError> {
        let doing = || format!("open tap {name}");
        let gone = || BackendError::new(ErrorKind::Gone, doing());
        if nix::net::if_::if_nametoindex(name.as_str()).is_err() {
            return Err(gone());
        }
        let file = device(doing)?;
        attach(&file, name, flags.bits()).map_err(|error| failed(doing(), error))?;
        match flags_of(&file) {
            Ok(flags) if flags & IFF_PERSIST == 0 => Err(gone()),
            Ok(_) => Ok(Self { file }),
            Err(error) => Err(failed(doing(), error)),
        }
    }
}

/// What a user of a tap's frames does by itself, so that its kernel need not: known by `struct virtio_net_hdr`, so only of a tap with
/// [`vnet_hdr`](QueueFlags::vnet_hdr).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Transport checksums are completed.
    pub checksum: bool,
    /// Frames of TCP of up to 64 KiB are cut; with checksums alone.
    pub tcp: bool,
    /// Datagrams of one flow that come as one are cut; with checksums alone, from Linux 6.2 on.
    pub udp: bool,
}

impl Offloads {
    /// All there are.
    pub const ALL: Self = Self { checksum: true, tcp: true, udp: true };

    const fn bits(self) -> u32 {
        let checksum = if self.checksum { TUN_F_CSUM } else { 0 };
        let tcp = if self.tcp { TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN } else { 0 };
        let udp = if self.udp { TUN_F_USO4 | TUN_F_USO6 } else { 0 };
        checksum | tcp | udp
    }
}

impl TapQueue {
    /// Says what of the tap's frames is left to whoever reads them. It is the tap's, of all its queues, and stays until it is said anew or
    /// nobody has the tap open.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the kernel does not know one of them, or one is asked for without checksums. Nothing was changed.
    pub fn offload(&self, offloads: Offloads) -> Result<(), BackendError> {
        tell(&self.file, TUNSETOFFLOAD, offloads.bits()).map_err(|error| failed("offload work to a tap's user", error))
    }
}

impl TapQueue {
    /// Another handle of the same queue: a frame that comes is read by one of them.
    ///
    /// # Errors
    /// If the process has as many files open as it may.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<TapQueue> for OwnedFd {
    fn from(queue: TapQueue) -> Self {
        queue.file.into()
    }
}

/// A tap that was made and goes with this value, or the process, unless it is [kept](Self::keep).
#[derive(Debug)]
pub(crate) struct NewTap {
    file: File,
    name: IfName,
}

impl NewTap {
    /// Makes a tap in the calling thread's namespace; never takes one that is there.
    pub(crate) fn create(name: IfName, multi_queue: bool) -> Result<Self, BackendError> {
        let file = device(|| format!("make link {name}"))?;
        let flags = QueueFlags { multi_queue, vnet_hdr: false };
        attach(&file, name, flags.bits() | IFF_TUN_EXCL).map_err(|error| failed(format!("make link {name}"), error))?;
        Ok(Self { file, name })
    }

    /// Says who may open it, and then that it stays.
    pub(crate) fn keep(self, tap: Tap) -> Result<(), BackendError> {
        for (request, value, what) in [
            (TUNSETOWNER, tap.owner, "give it to its owner"),
            (TUNSETGROUP, tap.group, "give it to its group"),
            (TUNSETPERSIST, Some(1), "let it stay"),
        ] {
            let Some(value) = value else { continue };
            tell(&self.file, request, value)
                .map_err(|error| failed(format!("make link {}: {what}", self.name), error))?;
        }
        Ok(())
    }
}

/// The device by which taps are made and opened, at the calling thread's namespace.
fn device(doing: impl Fn() -> String) -> Result<File, BackendError> {
    let opened = File::options().read(true).write(true).open(DEVICE);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => BackendError::new(ErrorKind::Unsupported, doing())
            .caused_by(format!("{DEVICE}: {error}; load the module `tun`, and let this container have the device")),
        Some(libc::EACCES | libc::EPERM) => BackendError::new(ErrorKind::Permission, doing())
            .caused_by(format!("{DEVICE}: {error}; let this user, and this container, read and write the device")),
        _ => failed(format!("{}: open {DEVICE}", doing()), error),
    })
}

const DEVICE: &str = "/dev/net/tun";

/// Makes the file one of a tap's.
fn attach(file: &File, name: IfName, flags: u16) -> io::Result<()> {
    let mut request = Request { flags, ..Request::default() };
    for (to, from) in request.name.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    exchange(file, TUNSETIFF, &mut request)
}

fn flags_of(file: &File) -> io::Result<u16> {
    let mut request = Request::default();
    exchange(file, TUNGETIFF, &mut request)?;
    Ok(request.flags)
}

/// A `struct ifreq`: as long as where it is longest, and with flags where all have them.
#[repr(C)]
#[derive(Debug, Default)]
struct Request {
    name: [u8; 16], // a zero at its end
    flags: u16,
    rest: [u8; 22],
}

/// One of the two requests that read and write a [`Request`].
fn exchange(file: &File, number: Ioctl, request: &mut Request) -> io::Result<()> {
    // SAFETY: the file is open while it is borrowed, and the kernel reads and writes one `struct ifreq` at the pointer, which
    // is to at least as many bytes that are ours alone, of which all values are valid.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), number, std::ptr::from_mut(request)) };
    Ok(Errno::result(result).map(drop)?)
}

/// One of the requests whose argument is a number.
fn tell(file: &File, number: Ioctl, value: u32) -> io::Result<()> {
    // SAFETY: the file is open while it is borrowed, and the kernel takes the argument of these requests for no pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), number, c_ulong::from(value)) };
    Ok(Errno::result(result).map(drop)?)
}

const TUNSETIFF: Ioctl = nix::request_code_write!(b'T', 202, size_of::<c_uint>());
const TUNSETPERSIST: Ioctl = nix::request_code_write!(b'T', 203, size_of::<c_uint>());
const TUNSETOWNER: Ioctl = nix::request_code_write!(b'T', 204, size_of::<c_uint>());
const TUNSETGROUP: Ioctl = nix::request_code_write!(b'T', 206, size_of::<c_uint>());
const TUNSETOFFLOAD: Ioctl = nix::request_code_write!(b'T', 208, size_of::<c_uint>());
const TUNGETIFF: Ioctl = nix::request_code_read!(b'T', 210, size_of::<c_uint>());

const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_PERSIST: u16 = 0x0800;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;

const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;
