//! A virtual machine as small as can be: an IP stack behind a tap.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use overlay_core::{Mac, Mtu};
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use overlay_vxlan::IpNet;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::udp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

/// The port it greets from.
const PORT: u16 = 7;

/// What it is and has.
pub(crate) struct Nature {
    pub(crate) mac: Mac,
    pub(crate) mtu: Mtu,
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Whom it sends a word, again and again.
    pub(crate) greets: Vec<SocketAddr>,
}

/// Runs until it is dropped, and answers pings.
pub(crate) struct Machine {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// How many words were said to it.
    words: AtomicUsize,
    /// How many frames came that are for one station, and not for it.
    strange: AtomicUsize,
}

impl Machine {
    /// Opens the tap, as a machine monitor does, and waits until its port forwards.
    pub(crate) fn boot(home: &Namespace, tap: &str, nature: Nature) -> Self {
        let queue = TapQueue::open(home, tap.parse().unwrap(), QueueFlags::default()).unwrap();
        fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while !overlay_kernel::testing::judge(home, "bridge", &["link", "show", "dev", tap])
            .contains("state forwarding")
        {}
        let seen = Arc::new(Seen::default());
        let port = Port { file: OwnedFd::from(queue).into(), mac: nature.mac, mtu: nature.mtu, seen: seen.clone() };
        Self { seen, thread: Some(std::thread::spawn(move || live(port, &nature))) }
    }

    /// How many words were said to it.
    pub(crate) fn words(&self) -> usize {
        self.seen.words.load(Relaxed)
    }

    /// How many frames came to it that are others'.
    pub(crate) fn strange(&self) -> usize {
        self.seen.strange.load(Relaxed)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

fn live(mut port: Port, nature: &Nature) {
    let began = std::time::Instant::now();
    let now = || Instant::from_millis(began.elapsed().as_millis() as i64);
    let mut interface = Interface::new(Config::new(EthernetAddress(nature.mac.octets()).into()), &mut port, now());
    interface.update_ip_addrs(|own| {
        for net in &nature.addresses {
            own.push(IpCidr::new(net.addr().into(), net.prefix_len())).unwrap();
        }
    });
    let room = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 1024]);
    let mut socket = udp::Socket::new(room(), room());
    socket.bind(PORT).unwrap();
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(socket);
    while !port.seen.stop.load(Relaxed) {
        interface.poll(now(), &mut port, &mut sockets);
        converse(&port.seen, sockets.get_mut::<udp::Socket<'_>>(handle), nature);
        interface.poll(now(), &mut port, &mut sockets);
        let mut readable = [PollFd::new(port.file.as_fd(), PollFlags::POLLIN)];
        poll(&mut readable, PollTimeout::from(5_u8)).unwrap();
        if readable[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
            return; // the tap is gone
        }
    }
}

fn converse(seen: &Seen, socket: &mut udp::Socket<'_>, nature: &Nature) {
    while socket.recv().is_ok() {
        seen.words.fetch_add(1, Relaxed);
    }
    for target in &nature.greets {
        let _full = socket.send_slice(b"hello", *target);
    }
}

/// The tap as the stack's device.
struct Port {
    file: File,
    mac: Mac,
    mtu: Mtu,
    seen: Arc<Seen>,
}

impl Device for Port {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Sender<'_>)> {
        let mut frame = vec![0; self.capabilities().max_transmission_unit];
        let len = self.file.read(&mut frame).ok()?;
        frame.truncate(len);
        if frame[0] & 1 == 0 && frame[..6] != self.mac.octets() {
            self.seen.strange.fetch_add(1, Relaxed);
        }
        Some((Frame(frame), Sender(&self.file)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(&self.file))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 14 + self.mtu.get() as usize;
        capabilities
    }
}

struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// What the tap does not take is lost, as on a wire.
struct Sender<'a>(&'a File);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        let _ = self.0.write(&frame);
        result
    }
}
