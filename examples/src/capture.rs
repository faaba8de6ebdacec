//! What goes over a host's cable, and the file format of `tcpdump` for it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_kernel::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// A frame, and when it was seen since 1970.
pub type Seen = (Duration, Vec<u8>);

/// A thread that hears.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<Seen>>>,
}

impl Capture {
    /// Hears all frames of a namespace from now on.
    ///
    /// # Errors
    /// Without the privilege for it.
    #[expect(clippy::disallowed_methods, reason = "a program has threads of its own")]
    pub fn start(namespace: &Namespace) -> io::Result<Self> {
        let all = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket =
            namespace.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all))).map_err(io::Error::other)??;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || hear(socket, &stopped));
        Ok(Self { stop, thread })
    }

    /// All that was heard.
    ///
    /// # Errors
    /// If the socket failed.
    pub fn stop(self) -> io::Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the capture panicked"))?
    }
}

/// Until it was stopped and nothing is left.
#[expect(clippy::disallowed_methods, reason = "a capture says when")]
fn hear(mut socket: Socket, stopped: &AtomicBool) -> io::Result<Vec<Seen>> {
    let (mut seen, mut buffer) = (Vec::new(), vec![0; 65536]);
    loop {
        match socket.read(&mut buffer) {
            Ok(len) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                seen.push((now, buffer[..len].to_vec()));
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if stopped.load(Ordering::Relaxed) => return Ok(seen),
            Err(_) => {}
        }
    }
}

/// The frames as a capture file (draft-ietf-opsawg-pcap): version 2.4, microseconds, Ethernet.
pub fn pcap(seen: &[Seen]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    for word in [0, 0, 65536, 1_u32] {
        file.extend(word.to_le_bytes()); // two reserved, the longest frame, LINKTYPE_ETHERNET
    }
    for (when, frame) in seen {
        let len = frame.len() as u32;
        for word in [when.as_secs() as u32, when.subsec_micros(), len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

const ETH_P_ALL: u16 = 0x0003; // linux/if_ether.h
