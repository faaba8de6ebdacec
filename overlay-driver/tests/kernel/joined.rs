//! Hosts that come together by join tokens, over TLS, on a wire that somebody taps.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{ClusterId, Port};
use overlay_crypto::pki::{Algorithm, Authority, Grant, Identity, JoinToken, Life, Role, Serial, SigningKey};
use overlay_crypto::pki::{SigningRequest, Trust, VerifyError};
use overlay_driver::control::{
    ClusterError, ControlClient, Credentials, JoinError, Managers, RefusalKind, RemoteError, join,
};
use overlay_driver::testing::{date, node};
use overlay_kernel::Namespace;
use overlay_node::{Control, ControlError};
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{World, attachable};

/// The longest that names and ways take.
const SOON: Duration = Duration::from_secs(20);
/// What of the protocol, of tokens and of names would be seen in the clear.
const CLEAR: &[&[u8]] =
    &[b"\"hello\"", b"\"call\"", b"\"welcome\"", b"\"answer\"", b"SWMTKN", b"secretplan", b"\"told\"", b"attach"];

/// Hears all that goes over a host's cable.
struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Tap {
    fn on(host: &Namespace) -> Self {
        const ALL: u16 = 3; // ETH_P_ALL: what leaves as well
        let kind = Protocol::from(i32::from(ALL.to_be()));
        let socket = host.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(kind))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut frames, mut frame) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                match (&socket).read(&mut frame) {
                    Ok(size) => frames.push(frame[..size].to_vec()),
                    Err(_) if stopped.load(Ordering::Relaxed) => return frames,
                    Err(_) => {}
                }
            }
        });
        Self { stop, thread }
    }

    fn heard(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The payloads of TCP from or to the control port.
fn control(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    let of = |frame: &'_ Vec<u8>| -> Option<usize> {
        let ip = 14; // after Ethernet's header, of IPv4 without options
        let is_tcp = frame.get(12..14)? == [8, 0] && *frame.get(ip)? == 0x45 && *frame.get(ip + 9)? == 6;
        let ports = frame.get(ip + 20..ip + 24)?;
        let port = Port::CONTROL.get().to_be_bytes();
        let header = usize::from(*frame.get(ip + 32)? >> 4) * 4;
        (is_tcp && (ports[..2] == port || ports[2..] == port)).then_some(ip + 20 + header)
    };
    frames.iter().filter_map(|frame| frame.get(of(frame)?..)).filter(|payload| !payload.is_empty()).collect()
}

#[test]
fn three_hosts_form_a_cluster_by_a_token_and_a_tap_sees_nothing_of_it_in_the_clear() {
    kernel_test(Kernel::Host, "driver::three_hosts_form_a_cluster_by_a_token", || {
        let mut world = World::founded(3);
        let taps = [0, 1].map(|host| Tap::on(world.hosts().lab.host(host)));
        let token = world.wait(world.hosts().token(Role::Worker)).unwrap();
        for host in [1, 2] {
            world.join(host, &token).unwrap();
        }
        world.until(SOON, |world| (0..3).all(|host| world.status(host).members.len() == 3));
        assert!(world.status(2).seal.is_some(), "gossip is sealed by the key that came with the answer");

        world.network(attachable("secretplan"));
        let (web, _) = world.run(1, "web", "secretplan");
        let (_db, at_db) = world.run(2, "db", "secretplan");
        world.until(SOON, |world| world.reaches(&web, "db"));
        world.wait(world.driver(2).detach(at_db.endpoint.id)).unwrap().unwrap();

        for tap in taps {
            let frames = tap.heard();
            let control = control(&frames);
            let records = control.iter().filter(|payload| matches!(payload, [0x17, 3, 3, ..])).count();
            assert!(records > 20, "{records} records of {} frames", frames.len());
            for frame in &frames {
                let seen = CLEAR.iter().find(|clear| frame.windows(clear.len()).any(|part| part == **clear));
                assert_eq!(seen, None, "in the clear: {}", frame.escape_ascii());
            }
        }
        refused(&world, &token);
    });
}

/// A wrong token and another cluster's certificate are refused by name, and the cluster goes on.
fn refused(world: &World, right: &JoinToken) {
    let (host, address) = (namespace(world, 2), world.hosts().control_address().unwrap());
    let attempt =
        |token: &JoinToken| world.wait(join([address], token, None, Some(Arc::clone(&host)))).map(drop).unwrap_err();
    let guessed = JoinToken::generate(right.root(), |bytes| bytes.fill(9));
    let wrong = attempt(&guessed);
    assert!(
        matches!(&wrong, JoinError::Cluster(error) if error.kind() == Some(RefusalKind::TokenUnknown)),
        "{wrong:?}"
    );

    let (authority, credentials) = foreign();
    let other = attempt(&JoinToken::generate(authority.certificate().key(), |bytes| bytes.fill(9)));
    let untrusted = |error: &RemoteError| matches!(error, RemoteError::Untrusted(VerifyError::Foreign { .. }));
    assert!(matches!(&other, JoinError::Cluster(ClusterError::Unreachable(error)) if untrusted(error)), "{other:?}");
    let managers = Managers::new([address], &credentials).unwrap().from_host(host);
    let error = world.wait(ControlClient::of_managers(managers).nodes()).unwrap_err();
    let ControlError::Unreachable(source) = &error else { panic!("{error:?}") };
    assert!(source.downcast_ref().is_some_and(untrusted), "{error:?}");
    assert_eq!(world.wait(world.manager().nodes()).unwrap().len(), 3);
}

/// Another cluster's root, and a node of it.
fn foreign() -> (Authority, Credentials) {
    let (cluster, key) = (ClusterId::from_bytes([9; 16]), || SigningKey::generate(Algorithm::EcdsaP256).unwrap());
    let root = Authority::create(cluster, key(), &Serial::generate(|bytes| bytes.fill(1)), date()).unwrap();
    let (own, identity) = (key(), Identity { node: node(9), role: Role::Manager, cluster });
    let grant = Grant { identity, life: Life::default(), serial: Serial::generate(|bytes| bytes.fill(2)) };
    let certificate = root.issue(&SigningRequest::create(&own).unwrap(), &grant, date()).unwrap();
    let trust = Trust::new([root.certificate().clone()]).unwrap();
    let credentials = Credentials::new(vec![certificate], &own, trust).unwrap();
    (root, credentials)
}

fn namespace(world: &World, host: usize) -> Arc<Namespace> {
    Arc::new(world.hosts().lab.host(host).try_clone().unwrap())
}

#[test]
fn a_host_that_has_joined_goes_on_when_the_manager_is_cut_off_and_hears_of_it_when_it_is_back() {
    kernel_test(Kernel::Host, "driver::a_host_that_has_joined_goes_on_when_the_manager_is_cut_off", || {
        let mut world = World::founded(3);
        let token = world.wait(world.hosts().token(Role::Worker)).unwrap();
        for host in [1, 2] {
            world.join(host, &token).unwrap();
        }
        world.network(attachable("front"));
        let ((web, _), (_db, at_db)) = (world.run(1, "web", "front"), world.run(2, "db", "front"));
        let db: IpAddr = at_db.endpoint.addresses.first().unwrap().addr();
        world.until(SOON, |world| world.reaches(&web, "db"));
        world.hosts_mut().lab.cut(0).unwrap();
        assert!(crate::world::pings(&web, db), "what is there goes on");
        let late = world.wait(world.hosts().membership(1).unwrap().client().clone().with_deadline(SOON / 10).nodes());
        assert!(late.is_err());
        world.hosts_mut().lab.mend(0).unwrap();
        world.until(SOON, |world| world.wait(world.hosts().membership(1).unwrap().client().nodes()).is_ok());
        let _: SocketAddr = world.hosts().control_address().unwrap();
        world.until(SOON, |world| world.status(1).catalogue.is_none());
    });
}
