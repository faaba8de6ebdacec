//! Packets in user space: taps and sockets around an [`overlay_datapath::Datapath`].
//!
//! A [`Carrier`] is a thread that reads frames from taps, has a datapath decide, and sends them on: as datagrams to other nodes, or to a tap here. It
//! needs of the kernel TAPs and UDP, and neither VXLAN nor ESP nor IPVS.
//!
//! What the kernel hands over in one piece stays in few: frames of up to 64 KiB (`virtio_net_hdr`) are cut once, leave in one send
//! (`UDP_SEGMENT`), come in trains (`UDP_GRO`), and are gathered again before they are given to the tap. The outer checksum of UDP is the kernel's, which leaves
//! it to the network device where that can: whatever is sent has one, which is more than [`udp_checksum`](overlay_vxlan::Vtep::udp_checksum) asks for; what comes needs none.
//!
//! # Waiting
//!
//! A thread that has nothing more to do looks again for [`CarrierConfig::spin`] before it sleeps, and lets others have its core between looks. An answer that comes soon
//! finds it awake: for a ping from container to container between two nodes that is 31 us instead of 56 (two cores of a virtual machine, `datapath/rtt-p50`). Where
//! nothing comes soon it looks but now and then, so a node at rest costs nothing.
//!
//! # Several queues
//!
//! With [`CarrierConfig::queues`] there is a thread for each queue of the taps and for each of sockets that are bound alike ([`Namespace::udp_queues`](overlay_kernel::Namespace::udp_queues)).
//! They read, cut, gather, send and write at once. What they do *not* have each of its own is the datapath: batches of up to 64 packets are decided one after another, by
//! one table of flows. For a flow does not keep to one queue: its answers come where the kernel hashes them to, a service's client and its replica are two pairs of ends
//! of one flow, and what is sealed comes by the few flows of the underlay that ESP has. So a policy, a balancer and an association's
//! sequence of numbers see all packets, whichever queue they meet, and no two queues seal by one number. Sealing is part of what is decided: it has one core's speed.
//! What comes from one node is spread only if it leaves there from several ports ([`Carrier::start_spread`]); else nodes are spread over queues.
//! A flow's packets stay in order as far as the kernel keeps the flow at one queue, which it does for taps and for sockets.
//! Queues that have less than a core each may send what was sealed late by more than a
//! [window](overlay_crypto::WindowSize) of others' numbers: then it is lost.
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
mod line;
mod port;
mod queue;
mod shared;
mod spin;
mod train;
mod underlay;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use overlay_core::{BackendError, EndpointId, ErrorKind};
use overlay_crypto::{SaId, Usage};
use overlay_datapath::offload::Merging;
use overlay_datapath::{Counts, Tables};
use overlay_kernel::{EspSocket, Offloads, TapQueue, failed};

pub use self::counts::CarrierCounts;
pub use self::ended::CarrierEnded;
use self::ended::Epitaph;
use self::line::Line;
use self::port::never_wait;
use self::shared::Shared;
use self::underlay::Underlay;

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
    /// The core that its thread stays on, if on one. Each queue's but the first is on the next one.
    pub core: Option<usize>,
    /// How many threads carry at once, from 1: 1.
    pub queues: usize,
    /// For how long a thread looks again for more before it sleeps, while that pays: 50 us. Round trips are shorter by it, for some more of a core's time; zero for never.
    pub spin: Duration,
}

impl Default for CarrierConfig {
    fn default() -> Self {
        let (datapath, merging) = (overlay_datapath::Config::default(), Merging::default());
        Self { datapath, longest: 2_048, merging, room: 8 << 20, core: None, queues: 1, spin: SPIN }
    }
}

/// Threads that carry the packets of a node's taps. They end when this is dropped; the taps stay where they are, and say that nobody has them open.
pub struct Carrier {
    /// A thread for each queue, and never none.
    lines: Vec<Line>,
    epitaph: Epitaph,
    /// Which queue reads the next tap that has one.
    turn: AtomicUsize,
    room: usize,
}

const SPIN: Duration = Duration::from_micros(50);

/// What a thread is told, in order.
enum Letter {
    Tables(Arc<Tables>),
    Plug(EndpointId, TapQueue, Reads),
    Unplug(EndpointId),
    Esp(EspSocket, Reads),
    Counts(SyncSender<CarrierCounts>),
    Decided(SyncSender<Counts>),
    Usage(SyncSender<BTreeMap<SaId, Usage>>),
    #[cfg(feature = "testing")]
    Fail,
    End,
}

/// Who reads a tap or a socket; all queues write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Here,
    Elsewhere,
}

impl Carrier {
    /// Starts it, with sockets of the host: each bound to the address of a VTEP, and to the port of VXLAN or of ESP in UDP. The seed keys what is hashed of strangers' packets.
    ///
    /// Of sockets that are bound alike, each queue reads one.
    ///
    /// # Errors
    /// If a socket is bound to no address of its own, there are more that are bound alike than queues, or the kernel refuses it something.
    pub fn start(config: &CarrierConfig, seed: [u8; 32], underlay: Vec<UdpSocket>) -> io::Result<Self> {
        Self::start_spread(config, seed, underlay, Vec::new())
    }

    /// As [`start`](Self::start), with sockets more that only send, bound to VTEPs' addresses and any other ports. VXLAN leaves by one of them, by its flow, instead of by the
    /// one that is bound to its port: so that the underlay and the other node's queues tell flows apart by their source ports (RFC 7348 §5), as far as there are sockets. Each queue has
    /// its share of those of each address.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_spread(
        config: &CarrierConfig,
        seed: [u8; 32],
        underlay: Vec<UdpSocket>,
        sources: Vec<UdpSocket>,
    ) -> io::Result<Self> {
        let (shared, epitaph) = (Arc::new(Shared::new(config.datapath, seed)), Epitaph::default());
        let mut underlays = Underlay::of_queues(underlay, config.queues.max(1), config.room)?;
        Underlay::spread(&mut underlays, sources)?;
        let lines = underlays.into_iter().enumerate();
        let lines = lines.map(|(number, underlay)| Line::start(config, number, (&shared, &epitaph), underlay));
        Ok(Self { lines: lines.collect::<io::Result<_>>()?, epitaph, turn: AtomicUsize::new(0), room: config.room })
    }

    /// Why it carries no more, or a queue of its does not, if so: to be asked now and then, as nothing else tells of it but [`plug`](Self::plug).
    pub fn ended(&self) -> Option<CarrierEnded> {
        self.epitaph.read()
    }

    /// Carries by these tables from the next batch on.
    pub fn publish(&self, tables: Arc<Tables>) {
        self.tell_first(Letter::Tables(tables));
    }

    /// Carries the frames of an endpoint's tap, in place of any that it had. The tap was opened with
    /// [`vnet_hdr`](overlay_kernel::QueueFlags::vnet_hdr). Where there are several queues, one reads it; each such tap has the next one's turn.
    ///
    /// # Errors
    /// If the kernel leaves none of a tap's work to its user, and [`ErrorKind::Gone`] if the carrier has [ended](Self::ended).
    pub fn plug(&self, endpoint: EndpointId, tap: TapQueue) -> Result<(), BackendError> {
        self.plug_queues(endpoint, vec![tap])
    }

    /// As [`plug`](Self::plug), of a tap that was opened several times, with [`multi_queue`](overlay_kernel::QueueFlags::multi_queue): each queue reads one.
    ///
    /// # Errors
    /// As [`plug`](Self::plug), and [`ErrorKind::Invalid`] for none, or more than there are queues.
    pub fn plug_queues(&self, endpoint: EndpointId, taps: Vec<TapQueue>) -> Result<(), BackendError> {
        if let Some(ended) = self.ended() {
            return Err(BackendError::new(ErrorKind::Gone, PLUG).caused_by(ended));
        }
        let (count, queues) = (taps.len(), self.lines.len());
        let Some(first) = taps.first().filter(|_| count <= queues) else {
            let why = format!("it is open {count} times, and {queues} queues read one each: give 1 to {queues}");
            return Err(BackendError::new(ErrorKind::Invalid, PLUG).caused_by(why));
        };
        first.offload(Offloads::ALL).or_else(|_| first.offload(Offloads { udp: false, ..Offloads::ALL }))?;
        let refused = |error| failed(PLUG, error);
        taps.iter().try_for_each(never_wait).map_err(refused)?;
        let others = (count..queues).zip(taps.iter().cycle()).map(|(_, tap)| tap.try_clone().map_err(refused));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let begin = if count == queues { 0 } else { self.turn.fetch_add(count, Ordering::Relaxed) };
        let each =
            taps.into_iter().map(|tap| (tap, Reads::Here)).chain(others.into_iter().map(|tap| (tap, Reads::Elsewhere)));
        for ((tap, reads), number) in each.zip(begin..) {
            if let Some(line) = self.lines.get(number % queues) {
                line.tell(Letter::Plug(endpoint, tap, reads));
            }
        }
        Ok(())
    }

    /// Carries ESP that is in no UDP, as kernels have it, by this socket: for associations without [`udp`](overlay_crypto::Sa::udp) of its address, which have
    /// nothing to leave by until then. It takes the place of one of the same address. Each packet is read and sent by itself; ESP in UDP goes many at a time.
    ///
    /// # Errors
    /// If the process has as many files open as it may, and [`ErrorKind::Gone`] if the carrier has [ended](Self::ended).
    pub fn carry_esp(&self, socket: EspSocket) -> Result<(), BackendError> {
        if let Some(ended) = self.ended() {
            return Err(BackendError::new(ErrorKind::Gone, CARRY_ESP).caused_by(ended));
        }
        socket.set_room(self.room);
        let others = self.lines.iter().skip(1).map(|line| socket.try_clone().map(|socket| (line, socket)));
        let others = others.collect::<io::Result<Vec<_>>>().map_err(|error| failed(CARRY_ESP, error))?;
        others.into_iter().for_each(|(line, socket)| line.tell(Letter::Esp(socket, Reads::Elsewhere)));
        self.tell_first(Letter::Esp(socket, Reads::Here));
        Ok(())
    }

    /// Carries them no more.
    pub fn unplug(&self, endpoint: EndpointId) {
        self.lines.iter().for_each(|line| line.tell(Letter::Unplug(endpoint)));
    }

    /// What it has done.
    pub fn counts(&self) -> CarrierCounts {
        let datapath = self.ask_first(Letter::Decided).unwrap_or_default();
        self.counts_by_queue().iter().fold(CarrierCounts { datapath, ..CarrierCounts::default() }, CarrierCounts::and)
    }

    /// What each queue has done, but for what is decided, which they decide together: whether the work is spread.
    pub fn counts_by_queue(&self) -> Vec<CarrierCounts> {
        self.lines.iter().map(|line| line.ask(Letter::Counts).unwrap_or_default()).collect()
    }

    /// How much each association has sealed, as [`overlay_datapath::Datapath::usage`].
    pub fn usage(&self) -> BTreeMap<SaId, Usage> {
        self.ask_first(Letter::Usage).unwrap_or_default()
    }

    /// Whether an association was put to work, or nobody can say: of one that has ended, even if nobody has [said](Self::ended) so yet.
    pub(crate) fn may_have_sealed(&self) -> bool {
        let usage = self.ask_first(Letter::Usage);
        self.ended().is_some() || usage.is_none_or(|usage| !usage.is_empty())
    }

    /// Has the first queue's thread end as if by itself.
    #[cfg(feature = "testing")]
    pub(crate) fn fail(&self) {
        self.tell_first(Letter::Fail);
    }

    fn tell_first(&self, letter: Letter) {
        if let Some(line) = self.lines.first() {
            line.tell(letter);
        }
    }

    fn ask_first<T>(&self, letter: impl FnOnce(SyncSender<T>) -> Letter) -> Option<T> {
        self.lines.first()?.ask(letter)
    }
}

const CARRY_ESP: &str = "carry ESP";
const PLUG: &str = "carry a tap's frames";

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").field("queues", &self.lines.len()).finish_non_exhaustive()
    }
}
