//! The loop that carries packets.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;
use overlay_core::{EndpointId, Instant};
use overlay_datapath::offload::{Merging, Segments, VnetHeader};
use overlay_datapath::{Buffer, Fate};
use overlay_kernel::EspSocket;
use tracing::{Level, event};

use super::counts::CarrierCounts;
use super::port::{Got, Port};
use super::shared::Shared;
use super::spin::Spin;
use super::underlay::{ROOM, Underlay};
use super::{CarrierConfig, Letter, Reads};

/// All that a thread has of its own, and what it shares with others.
pub(super) struct Queue {
    shared: Arc<Shared>,
    underlay: Underlay,
    ports: BTreeMap<EndpointId, Port>,
    /// Whose port an event is of.
    numbers: BTreeMap<u64, EndpointId>,
    /// Of which address's ESP an event tells.
    esp: BTreeMap<u64, IpAddr>,
    /// Ports for which something was gathered in this round.
    touched: Vec<EndpointId>,
    next_number: u64,
    ready: Epoll,
    spin: Spin,
    letters: Receiver<Letter>,
    bell: Arc<EventFd>,
    batch: Vec<Buffer>,
    /// Room for one frame of a tap.
    frame: Vec<u8>,
    /// Room for trains of the underlay.
    room: Vec<u8>,
    merging: Merging,
    counts: CarrierCounts,
}

/// The event of a letter; sockets follow from 1 on, and taps from [`TAPS`] on.
const BELL: u64 = 0;
const TAPS: u64 = 1 << 16;
/// Packets decided at once.
const BATCH: usize = 64;
/// How many reads in a row of as much as there can be one tap or socket has before the others have theirs; of a tap, [`BATCH`] of little.
const TURN: usize = 4;
/// Bytes that a tap may give at once: its header, Ethernet's with a tag, and 64 KiB.
const FRAME: usize = VnetHeader::LEN + 18 + (1 << 16);

impl Queue {
    pub(super) fn new(
        config: &CarrierConfig,
        shared: Arc<Shared>,
        underlay: Underlay,
        (letters, bell): (Receiver<Letter>, Arc<EventFd>),
    ) -> io::Result<Self> {
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        ready.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        for (number, socket) in underlay.read_here() {
            ready.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64 + 1))?;
        }
        Ok(Self {
            shared,
            underlay,
            ports: BTreeMap::new(),
            numbers: BTreeMap::new(),
            esp: BTreeMap::new(),
            touched: Vec::new(),
            next_number: TAPS,
            ready,
            spin: Spin::new(config.spin),
            letters,
            bell,
            batch: vec![Buffer::new(config.longest.max(1_280)); BATCH],
            frame: vec![0; FRAME],
            room: vec![0; ROOM],
            merging: config.merging,
            counts: CarrierCounts::default(),
        })
    }

    /// Carries packets until it is told to end, or the kernel does not say any more what is ready.
    pub(super) fn run(mut self, core: Option<usize>) -> io::Result<()> {
        if let Some(core) = core {
            let mut cores = CpuSet::new();
            // Without a core of its own it is slower, no more.
            let _ = cores.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
        }
        let mut events = [EpollEvent::empty(); 64];
        let (mut next, mut looks) = (None, false);
        loop {
            let wait = if looks { EpollTimeout::ZERO } else { self.wait(next) };
            let came = match self.ready.wait(&mut events, wait) {
                Ok(came) => came,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            let looked = std::mem::replace(&mut looks, self.spin.again(came > 0, self.shared.now()));
            if looked && came == 0 {
                thread::yield_now(); // to those whose answer it waits for, where cores are few
                continue;
            }
            self.counts.wakes += 1;
            for event in events.iter().take(came) {
                if self.take(event.data()).is_break() {
                    return Ok(());
                }
            }
            next = self.finish();
        }
    }

    fn wait(&self, next: Option<Instant>) -> EpollTimeout {
        let Some(at) = next else { return EpollTimeout::NONE };
        let left = at - self.shared.now();
        let millis = left.as_millis() + u128::from(!left.subsec_nanos().is_multiple_of(1_000_000)); // never too early
        u16::try_from(millis).unwrap_or(u16::MAX).into()
    }

    fn take(&mut self, event: u64) -> ControlFlow<()> {
        match event {
            BELL => return self.read_letters(),
            socket @ 1..TAPS => self.receive(socket as usize - 1),
            tap => {
                if let Some(endpoint) = self.numbers.get(&tap).copied() {
                    self.read_frames(endpoint);
                } else if let Some(local) = self.esp.get(&tap).copied() {
                    self.receive_esp(local);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn read_letters(&mut self) -> ControlFlow<()> {
        let _ = self.bell.read();
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Tables(tables) => self.shared.decide(|datapath, now| datapath.handle_tables(tables, now)),
                Letter::Plug(endpoint, tap, Reads::Elsewhere) => {
                    self.unplug(endpoint);
                    self.ports.insert(endpoint, Port::new(tap, self.merging));
                }
                Letter::Plug(endpoint, tap, Reads::Here) => {
                    self.unplug(endpoint);
                    let port = Port::new(tap, self.merging);
                    let number = self.next_number;
                    if self.ready.add(&port, EpollEvent::new(EpollFlags::EPOLLIN, number)).is_ok() {
                        self.next_number += 1;
                        self.numbers.insert(number, endpoint);
                        self.ports.insert(endpoint, port);
                    }
                }
                Letter::Esp(socket, reads) => self.add_esp(socket, reads),
                Letter::Unplug(endpoint) => self.unplug(endpoint),
                // Whoever asked may have gone.
                Letter::Counts(answer) => drop(answer.send(self.counts.clone())),
                Letter::Decided(answer) => {
                    drop(answer.send(self.shared.decide(|datapath, _| datapath.counts().clone())));
                }
                Letter::Usage(answer) => drop(answer.send(self.shared.decide(|datapath, _| datapath.usage()))),
                #[cfg(feature = "testing")]
                Letter::Fail => {
                    // Of a file that is no epoll the kernel does not say what is ready.
                    if let Ok(file) = std::fs::File::open("/dev/null") {
                        self.ready = Epoll(file.into());
                    }
                }
                Letter::End => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn add_esp(&mut self, socket: EspSocket, reads: Reads) {
        let (local, number) = (socket.local(), self.next_number);
        if reads == Reads::Here && self.ready.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number)).is_ok() {
            self.next_number += 1;
            self.esp.retain(|_, of| *of != local);
            self.esp.insert(number, local);
        }
        if let Some(before) = self.underlay.add_esp(socket) {
            let _ = self.ready.delete(&before); // which goes with its last descriptor anyway
        }
    }

    fn unplug(&mut self, endpoint: EndpointId) {
        self.numbers.retain(|_, of| *of != endpoint);
        if let Some(port) = self.ports.remove(&endpoint) {
            let _ = self.ready.delete(&port); // which goes with its last descriptor anyway
        }
    }

    /// Frames from a tap.
    fn read_frames(&mut self, endpoint: EndpointId) {
        let (mut batch, mut frame) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.frame));
        let (mut filled, mut bytes, mut read) = (0, 0, Got::Nothing);
        for _ in 0..BATCH {
            let Some(port) = self.ports.get(&endpoint) else { break };
            read = port.read(&mut frame);
            let Got::Frame(len) = read else { break };
            self.counts.frames_read += 1;
            filled = self.cut(endpoint, frame.get(..len).unwrap_or_default(), (&mut batch, filled));
            bytes += len;
            if bytes >= TURN * FRAME {
                break;
            }
        }
        self.leave(endpoint, &mut batch, filled);
        (self.batch, self.frame) = (batch, frame);
        if let Got::Gone(error) = read {
            self.unplug(endpoint);
            self.counts.taps_lost += 1;
            tell_lost(endpoint, error);
        }
    }

    /// Cuts a frame into what goes over the wire, behind so many packets that wait to be decided. Says how many then wait.
    fn cut(&mut self, endpoint: EndpointId, bytes: &[u8], (batch, mut filled): (&mut [Buffer], usize)) -> usize {
        let Ok(header) = VnetHeader::read(bytes) else {
            self.counts.malformed += 1;
            return filled;
        };
        let Ok(segments) = Segments::new(header, bytes.get(VnetHeader::LEN..).unwrap_or_default()) else {
            self.counts.malformed += 1;
            return filled;
        };
        for at in 0..segments.len() {
            if filled == batch.len() {
                self.leave(endpoint, batch, std::mem::take(&mut filled));
            }
            let Some(buffer) = batch.get_mut(filled) else { break };
            let written = segments.write(at, buffer.room());
            match written.is_some_and(|len| buffer.filled(len).is_ok()) {
                true => filled += 1,
                false => self.counts.too_long += 1,
            }
        }
        filled
    }

    /// Has it decided what becomes of an endpoint's packets.
    fn leave(&mut self, endpoint: EndpointId, batch: &mut [Buffer], filled: usize) {
        let batch = batch.get_mut(..filled).unwrap_or_default();
        if batch.is_empty() {
            return;
        }
        self.shared.decide(|datapath, now| datapath.handle_frames(endpoint, batch, now));
        batch.iter().for_each(|buffer| self.settle(buffer));
    }

    /// Trains from the underlay.
    fn receive(&mut self, socket: usize) {
        let (mut batch, mut room) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.room));
        for _ in 0..TURN {
            let came = self.underlay.receive(socket, &mut room);
            let mut filled = 0;
            for came in came.iter().flatten() {
                for payload in came.datagrams(&room) {
                    match batch.get_mut(filled).is_some_and(|buffer| came.write(payload, buffer)) {
                        true => filled += 1,
                        false => self.counts.too_long += 1,
                    }
                    if filled == batch.len() {
                        self.arrive(&mut batch, std::mem::take(&mut filled));
                    }
                }
            }
            self.arrive(&mut batch, filled);
            if came.iter().any(Option::is_none) {
                break;
            }
        }
        (self.batch, self.room) = (batch, room);
    }

    /// Packets of ESP, as they came.
    fn receive_esp(&mut self, local: IpAddr) {
        let mut batch = std::mem::take(&mut self.batch);
        let mut filled = 0;
        for buffer in &mut batch {
            let read = self.underlay.esp(local).map(|socket| socket.receive(buffer.room()));
            let Some(Ok(len)) = read else { break };
            match len < buffer.room().len() && buffer.filled(len).is_ok() {
                true => filled += 1,
                // It may have been cut; the next packet has to wait for its turn.
                false => {
                    self.counts.too_long += 1;
                    break;
                }
            }
        }
        self.arrive(&mut batch, filled);
        self.batch = batch;
    }

    fn arrive(&mut self, batch: &mut [Buffer], filled: usize) {
        let batch = batch.get_mut(..filled).unwrap_or_default();
        if batch.is_empty() {
            return;
        }
        self.shared.decide(|datapath, now| datapath.handle_packets(batch, now));
        batch.iter().for_each(|buffer| self.settle(buffer));
    }

    fn settle(&mut self, buffer: &Buffer) {
        match buffer.fate() {
            Fate::Underlay { .. } => self.underlay.push(buffer.packet(), &mut self.counts),
            Fate::Port(endpoint) => {
                let Some(port) = self.ports.get_mut(&endpoint) else {
                    self.counts.unwritten += 1;
                    return;
                };
                if port.push(buffer.packet(), &mut self.counts) {
                    self.touched.push(endpoint);
                }
            }
            Fate::Waiting | Fate::Copied | Fate::Drop(_) => {}
        }
    }

    /// What a round leaves behind: copies, and all that waits for more. Says when there is something to do, whatever comes. O(what was touched).
    fn finish(&mut self) -> Option<Instant> {
        let (mut buffer, mut next) = (self.batch.pop(), None);
        while let Some(buffer) = &mut buffer {
            let more = self.shared.decide(|datapath, now| {
                if datapath.poll_timeout().is_some_and(|at| at <= now) {
                    datapath.handle_timeout(now);
                }
                next = datapath.poll_timeout();
                datapath.poll_transmit(buffer, now)
            });
            if !more {
                break;
            }
            self.settle(buffer);
        }
        self.batch.extend(buffer);
        self.underlay.flush(&mut self.counts);
        while let Some(endpoint) = self.touched.pop() {
            if let Some(port) = self.ports.get_mut(&endpoint) {
                port.flush(&mut self.counts);
            }
        }
        next
    }
}

/// A tap that was deleted is nothing unusual: its container has ended, or another is made in its place.
fn tell_lost(endpoint: EndpointId, error: Errno) {
    let endpoint = tracing::field::display(endpoint);
    match error {
        Errno::EBADFD => event!(
            target: "overlay_driver", Level::INFO, kind = "tap_lost", endpoint,
            "the tap of {endpoint} was deleted: what it had is carried no more"
        ),
        error => event!(
            target: "overlay_driver", Level::WARN, kind = "tap_lost", endpoint, reason = error.desc(),
            "the tap of {endpoint} cannot be read any more ({error}): what it sends is lost until it is plugged in again"
        ),
    }
}
