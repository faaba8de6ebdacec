//! Replicas that come, drain and go while clients ask.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_lb::kernel::Nftables;
use overlay_lb::{Condition, State};
use socket2::SockRef;

use crate::nftables::opened;
use crate::suite::{self, Ground as _, KINDS, at, id, service, state};
use crate::town::{PATIENCE, Place, Town, script};

const REPLICAS: [u8; 3] = [2, 3, 4];
const TURNS: usize = 90;
const ASKING: usize = 6;

/// One question by the VIP, and its answer. It stands for a moment before; its port is free again at once.
fn ask() -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&at(KINDS[0]), PATIENCE)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    std::thread::sleep(Duration::from_millis(1));
    stream.write_all(b"?")?;
    match stream.read(&mut [0; 64])? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn draining(replica: u8) -> State {
    let mut service = service(&REPLICAS);
    service.replicas.get_mut(&id(replica)).unwrap().condition = Condition::Draining;
    state(&service)
}

/// Clients take ports again that connections had to replicas that are gone: whose entries are cut must not be theirs. And each change of how many
/// replicas there are is a change of class, which a packet may meet half way through the chain.
#[test]
fn no_connection_fails_while_replicas_come_drain_and_go() {
    kernel_test(Kernel::Host, "lb::no_connection_fails_while_replicas_come_drain_and_go", || {
        let town = Town::new(3);
        script(&town.client, "echo 40000 40511 > /proc/sys/net/ipv4/ip_local_port_range");
        let mut place = Place::new(&town, opened(&town), Nftables::capabilities());
        place.settle(&state(&service(&REPLICAS)));
        let (over, asked, wrong) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let asks = || {
            while !over.load(Ordering::Relaxed) {
                asked.fetch_add(1, Ordering::Relaxed);
                ask().unwrap_or_else(|error| wrong.lock().unwrap().push(error));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..ASKING {
                scope.spawn(|| town.client.run(asks).unwrap());
            }
            for turn in 0..TURNS {
                let goes = REPLICAS[turn % REPLICAS.len()];
                place.settle(&draining(goes));
                let mut idle = 0;
                while idle < 5 {
                    place.wait(Duration::from_millis(5));
                    let flows = place.flows(suite::replica(goes).address(KINDS[0].1).unwrap());
                    idle = if flows == 0 { idle + 1 } else { 0 };
                }
                let stay: Vec<u8> = REPLICAS.into_iter().filter(|it| *it != goes).collect();
                place.settle(&state(&service(&stay)));
                place.settle(&state(&service(&REPLICAS)));
            }
            over.store(true, Ordering::Relaxed);
        });
        let (asked, wrong) = (asked.into_inner(), wrong.into_inner().unwrap());
        eprintln!("{asked} connections");
        assert!(wrong.is_empty() && asked > TURNS, "of {asked}: {wrong:?}");
    });
}
