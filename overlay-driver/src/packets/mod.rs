//! Packets in user space: taps and sockets around an [`overlay_datapath::Datapath`].
//!
//! A [`Carrier`] is a thread that reads frames from taps, has a datapath decide, and sends them on: as datagrams to other nodes, or to a tap here. It
//! needs of the kernel TAPs and UDP, and neither VXLAN nor ESP nor IPVS.
//!
//! What the kernel hands over in one piece stays in few: frames of up to 64 KiB (`virtio_net_hdr`) are cut once, leave in one send
//! (`UDP_SEGMENT`), come in trains (`UDP_GRO`), and are gathered again before they are given to the tap. The outer checksum of UDP is the kernel's, which leaves
//! it to the network device where that can.
//!
//! ```no_run
//! use std::net::UdpSocket;
//! use std::sync::Arc;
//!
//! use overlay_core::EndpointId;
//! use overlay_datapath::{Tables, Wanted};
//! use overlay_driver::packets::{Carrier, CarrierConfig};
//! use overlay_kernel::{Namespace, QueueFlags, TapQueue};
//!
//! let (host, sandbox) = (Namespace::current()?, Namespace::open("/run/netns/blue")?);
//! let socket = host.run(|| UdpSocket::bind("192.0.2.1:4789"))??;
//! let carrier = Carrier::start(&CarrierConfig::default(), [7; 32], vec![socket])?; // 32 bytes of chance
//!
//! let flags = QueueFlags { vnet_hdr: true, ..QueueFlags::default() };
//! let tap = TapQueue::open(&sandbox, "eth0".parse()?, flags)?;
//! carrier.plug(EndpointId::from_bytes([1; 16]), tap)?;
//! carrier.publish(Arc::new(Tables::new(&Wanted::default())?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod counts;
mod ended;
mod port;
mod queue;
mod train;
mod underlay;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};
use overlay_core::{BackendError, EndpointId, ErrorKind};
use overlay_crypto::{SaId, Usage};
use overlay_datapath::Tables;
use overlay_datapath::offload::Merging;
use overlay_kernel::{Offloads, TapQueue};

pub use self::counts::CarrierCounts;
pub use self::ended::CarrierEnded;
use self::ended::Epitaph;
use self::port::never_wait;
use self::queue::Queue;

/// How a [`Carrier`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarrierConfig {
    /// Of its datapath.
    pub datapath: overlay_datapath::Config,
    /// Bytes of the longest packet of the underlay, from 1,280: 2,048. One that would be longer is dropped and counted.
    pub longest: usize,
    /// What is gathered on its way to taps.
    pub merging: Merging,
    /// Bytes that wait in the kernel for each socket, in each direction: 8 MiB. Without `CAP_NET_ADMIN` it is what `net.core.rmem_max` and `wmem_max` let it be.
    pub room: usize,
    /// The core that its thread stays on, if on one.
    pub core: Option<usize>,
}

impl Default for CarrierConfig {
    fn default() -> Self {
        let (datapath, merging) = (overlay_datapath::Config::default(), Merging::default());
        Self { datapath, longest: 2_048, merging, room: 8 << 20, core: None }
    }
}

/// A thread that carries the packets of a node's taps. It ends when this is dropped; the taps stay where they are, and say that nobody has them open.
pub struct Carrier {
    letters: Sender<Letter>,
    bell: Arc<EventFd>,
    epitaph: Epitaph,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told, in order.
enum Letter {
    Tables(Arc<Tables>),
    Plug(EndpointId, TapQueue),
    Unplug(EndpointId),
    Counts(SyncSender<CarrierCounts>),
    Usage(SyncSender<BTreeMap<SaId, Usage>>),
    End,
}

impl Carrier {
    /// Starts it, with sockets of the host: each bound to the address of a VTEP, and to the port of VXLAN or of ESP in UDP. The seed keys what is hashed of strangers' packets.
    ///
    /// # Errors
    /// If a socket is bound to no address of its own, or the kernel refuses it something.
    pub fn start(config: &CarrierConfig, seed: [u8; 32], underlay: Vec<UdpSocket>) -> io::Result<Self> {
        let (letters, told) = channel();
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (core, epitaph) = (config.core, Epitaph::default());
        let heard = epitaph.clone();
        let queue = Queue::new(config, seed, underlay, (told, Arc::clone(&bell)))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "a thread that waits for the kernel alone, and works on packets all its time"
        )]
        let thread = thread::Builder::new().name("packets".to_owned()).spawn(move || heard.of(|| queue.run(core)))?;
        Ok(Self { letters, bell, epitaph, thread: Some(thread) })
    }

    /// Why it carries no more, if it does not: to be asked now and then, as nothing else tells of it but [`plug`](Self::plug).
    pub fn ended(&self) -> Option<CarrierEnded> {
        self.epitaph.read()
    }

    /// Carries by these tables from the next batch on.
    pub fn publish(&self, tables: Arc<Tables>) {
        self.tell(Letter::Tables(tables));
    }

    /// Carries the frames of an endpoint's tap, in place of any that it had. The tap was opened with
    /// [`vnet_hdr`](overlay_kernel::QueueFlags::vnet_hdr).
    ///
    /// # Errors
    /// If the kernel leaves none of a tap's work to its user, and [`ErrorKind::Gone`] if the carrier has [ended](Self::ended).
    pub fn plug(&self, endpoint: EndpointId, tap: TapQueue) -> Result<(), BackendError> {
        const DOING: &str = "carry a tap's frames";
        if let Some(ended) = self.ended() {
            return Err(BackendError::new(ErrorKind::Gone, DOING).caused_by(ended));
        }
        never_wait(&tap).map_err(|error| BackendError::new(ErrorKind::Invalid, DOING).caused_by(error))?;
        tap.offload(Offloads::ALL).or_else(|_| tap.offload(Offloads { udp: false, ..Offloads::ALL }))?;
        self.tell(Letter::Plug(endpoint, tap));
        Ok(())
    }

    /// Carries them no more.
    pub fn unplug(&self, endpoint: EndpointId) {
        self.tell(Letter::Unplug(endpoint));
    }

    /// What it has done.
    pub fn counts(&self) -> CarrierCounts {
        self.ask(Letter::Counts)
    }

    /// How much each association has sealed, as [`overlay_datapath::Datapath::usage`].
    pub fn usage(&self) -> BTreeMap<SaId, Usage> {
        self.ask(Letter::Usage)
    }

    fn ask<T: Default>(&self, letter: impl FnOnce(SyncSender<T>) -> Letter) -> T {
        let (answer, answered) = sync_channel(1);
        self.tell(letter(answer));
        answered.recv().unwrap_or_default()
    }

    fn tell(&self, letter: Letter) {
        // A thread that is not there any more has nothing to do.
        if self.letters.send(letter).is_ok() {
            let _ = self.bell.write(1); // which fails if it rings already
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.tell(Letter::End);
        self.thread.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").finish_non_exhaustive()
    }
}
