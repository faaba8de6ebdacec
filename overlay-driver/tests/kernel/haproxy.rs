//! Debian's haproxy follows a service by the node's resolver.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test_judged_by};
use overlay_core::{Port, Protocol, ServiceId};
use overlay_dns::Health;
use overlay_driver::testing::{Container, date};
use overlay_driver::{Attach, Attached};
use overlay_lb::Weight;
use overlay_node::{EndpointMode, PublishedPort, Service, ServiceSpec};

use crate::world::World;

const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(3);
const PORT: u16 = 8080;
/// Where haproxy listens, one for each way to follow: SRV by UDP, SRV by TCP, A.
const WAYS: [u16; 3] = [8000, 8001, 8002];

/// A container that answers each request with its name, and counts them.
struct Replica {
    attached: Attached,
    asked: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    serves: Option<JoinHandle<()>>,
}

impl Replica {
    fn new(world: &World, host: usize, name: &str, (service, weight): (&Service, u16)) -> Self {
        let container = world.hosts().lab.container(name).unwrap();
        let any = (Ipv4Addr::UNSPECIFIED, PORT);
        let listener = container.namespace.run(|| TcpListener::bind(any)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (end, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ended, count, own) = (Arc::clone(&end), Arc::clone(&asked), name.to_owned());
        let serves = Some(std::thread::spawn(move || serve(&listener, &own, (&count, &ended))));
        let attach = Attach {
            service: Some(service.id),
            weight: Weight::new(weight).unwrap(),
            ..Attach::new(container.name.clone(), container.source, "front")
        };
        let attached = world.wait(world.driver(host).attach(attach)).unwrap();
        Self { attached, asked, end, serves }
    }

    fn set_health(&self, world: &World, host: usize, health: Health) {
        world.wait(world.driver(host).set_health(self.attached.endpoint.id, health)).unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.serves.take().into_iter().for_each(|serves| drop(serves.join()));
    }
}

fn serve(listener: &TcpListener, name: &str, (count, end): (&AtomicUsize, &AtomicBool)) {
    while !end.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => respond(stream, name, count),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn respond(mut stream: TcpStream, name: &str, count: &AtomicUsize) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => head.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    if head.starts_with(b"GET /who ") {
        count.fetch_add(1, Ordering::Relaxed); // what is not one of haproxy's own checks
    }
    let length = name.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
}

/// haproxy, in a container's namespace, with a file of settings; both go with this.
struct Haproxy {
    process: Child,
    settings: PathBuf,
}

impl Haproxy {
    fn start(container: &Container) -> Self {
        let settings = std::env::temp_dir().join(format!("overlay-haproxy-{}.cfg", std::process::id()));
        std::fs::write(&settings, SETTINGS).unwrap();
        let process = container.namespace.run(|| {
            let mut haproxy = Command::new("haproxy");
            haproxy.arg("-db").arg("-f").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        });
        Self { process: process.unwrap().unwrap(), settings }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.settings);
    }
}

const SETTINGS: &str = "
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    option redispatch
    option httpchk GET /health
    default-server check inter 200ms fastinter 200ms init-addr none resolve-prefer ipv4

resolvers overlay
    nameserver node 127.0.0.11:53
    timeout resolve 200ms
    timeout retry 200ms
    hold valid 200ms

resolvers overlay-tcp
    nameserver node tcp@127.0.0.11:53
    timeout resolve 200ms
    timeout retry 200ms
    hold valid 200ms

listen srv
    bind 127.0.0.1:8000
    server-template web 8 _http._tcp.tasks.web.front resolvers overlay

listen srv-by-tcp
    bind 127.0.0.1:8001
    server-template web 8 _http._tcp.tasks.web.front resolvers overlay-tcp

listen a
    bind 127.0.0.1:8002
    server-template web 8 tasks.web.front:8080 resolvers overlay
";

/// Who answers a request to haproxy, if it says that all is well.
fn asks(proxy: &Container, way: u16) -> Option<String> {
    let connect = || TcpStream::connect_timeout(&(IpAddr::from(Ipv4Addr::LOCALHOST), way).into(), PATIENCE);
    let mut stream = proxy.namespace.run(connect).unwrap().ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /who HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
}

/// Who answers how often.
fn answers(proxy: &Container, way: u16, times: usize) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for _ in 0..times {
        *all.entry(asks(proxy, way).unwrap_or_else(|| "nobody".to_owned())).or_default() += 1;
    }
    all
}

/// Waits until these share the work by every way. Nobody is turned away meanwhile.
#[track_caller]
fn until_shared_by(world: &World, proxy: &Container, names: &[&str]) {
    for way in WAYS {
        world.until(SOON, |_| {
            let shares = answers(proxy, way, 8);
            assert!(!shares.contains_key("nobody"), "{way}: {shares:?}");
            shares.keys().map(String::as_str).eq(names.iter().copied())
        });
    }
}

fn service(world: &World) -> Service {
    let network = world.wait(world.hosts().network("front")).unwrap();
    let http = PublishedPort {
        name: Some("http".parse().unwrap()),
        ..PublishedPort::new(Protocol::Tcp, Port::new(PORT).unwrap())
    };
    let spec = ServiceSpec {
        mode: EndpointMode::Vip,
        ports: vec![http],
        ..ServiceSpec::new("web".parse().unwrap(), [network.id])
    };
    world.wait(world.manager().create_service(ServiceId::from_bytes([7; 16]), spec, date())).unwrap()
}

#[test]
fn haproxy_follows_a_service_by_srv_and_a_and_one_that_drains_gets_no_new_request() {
    kernel_test_judged_by(&["haproxy"], Kernel::Host, "driver::haproxy_follows_a_service_by_srv_and_a", || {
        let world = World::new(2);
        let web = service(&world);
        let (proxy, _) = world.run(0, "proxy", "front");
        let mut replicas =
            vec![Replica::new(&world, 0, "web-0", (&web, 3)), Replica::new(&world, 1, "web-1", (&web, 1))];
        let _haproxy = Haproxy::start(&proxy);
        for way in WAYS {
            world.until(SOON, |_| answers(&proxy, way, 8).keys().eq(["web-0", "web-1"]));
        }
        for way in [WAYS[0], WAYS[1]] {
            let shares = answers(&proxy, way, 80);
            let (heavy, light) = (shares["web-0"], shares["web-1"]);
            assert!(heavy + light == 80 && (18..=22).contains(&light), "SRV tells weights: {shares:?}");
        }

        // One comes.
        replicas.push(Replica::new(&world, 1, "web-2", (&web, 1)));
        until_shared_by(&world, &proxy, &["web-0", "web-1", "web-2"]);

        // One drains, with nobody turned away, and gets nothing more once haproxy knows.
        replicas[1].set_health(&world, 1, Health::Draining);
        until_shared_by(&world, &proxy, &["web-0", "web-2"]);
        let had = replicas[1].asked.load(Ordering::Relaxed);
        for way in WAYS {
            assert_eq!(answers(&proxy, way, 60).keys().collect::<Vec<_>>(), ["web-0", "web-2"], "{way}");
        }
        assert_eq!(replicas[1].asked.load(Ordering::Relaxed), had);

        // It is well again; the one that came drains and goes.
        replicas[1].set_health(&world, 1, Health::Healthy);
        until_shared_by(&world, &proxy, &["web-0", "web-1", "web-2"]);
        replicas[2].set_health(&world, 1, Health::Draining);
        until_shared_by(&world, &proxy, &["web-0", "web-1"]);
        world.wait(world.driver(1).detach(replicas[2].attached.endpoint.id)).unwrap();
        until_shared_by(&world, &proxy, &["web-0", "web-1"]);
    });
}
