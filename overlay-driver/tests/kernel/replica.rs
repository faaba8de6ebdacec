//! Containers that serve, and who asks them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use overlay_core::{EndpointId, Port, Protocol};
use overlay_driver::Attach;
use overlay_driver::testing::Container;
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_node::{PublishMode, PublishedPort, Service};

use crate::world::World;

pub(crate) const PATIENCE: Duration = Duration::from_millis(700);

/// A container that tells who asks its name, and from where it was asked, over TCP and UDP of both families; a UDP socket is bound to no address. Over
/// TCP it says so when it is connected to, and again for whatever it hears.
pub(crate) struct Replica {
    pub(crate) container: Container,
    pub(crate) endpoints: Vec<EndpointId>,
    end: Arc<AtomicBool>,
    served: Vec<JoinHandle<()>>,
}

pub(crate) const TARGET: u16 = 8080;

impl Replica {
    pub(crate) fn new(world: &World, host: usize, name: &str, service: &Service, networks: &[&str]) -> Self {
        let container = world.hosts().lab.container(name).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let attach = |network: &&str| {
            let attach = Attach::new(container.name.clone(), container.source.clone(), *network);
            let attached = world.wait(world.driver(host).attach(Attach { service: Some(service.id), ..attach }));
            attached.unwrap().endpoint.id
        };
        let endpoints = networks.iter().map(attach).collect();
        judge(&container.namespace, "sh", &["-c", STRICT]);
        let served = serve(&container.namespace, name, &end);
        Self { container, endpoints, end, served }
    }
}

/// Packets whose source has another way back are dropped.
pub(crate) const STRICT: &str = "for f in all default; do echo 1 > /proc/sys/net/ipv4/conf/$f/rp_filter; done";

impl Drop for Replica {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.served.drain(..).for_each(|served| drop(served.join()));
    }
}

pub(crate) fn serve(namespace: &Namespace, name: &str, end: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let tcp = namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, TARGET))).unwrap().unwrap();
    tcp.set_nonblocking(true).unwrap();
    let all = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, TARGET))).unwrap().unwrap();
    all.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let says = |name: &str, from: SocketAddr| format!("{name} {}\n", from.ip().to_canonical());
    let [(one, ended), (other, over)] = [(); 2].map(|()| (name.to_owned(), Arc::clone(end)));
    let streams = std::thread::spawn(move || {
        let mut held: Vec<(TcpStream, SocketAddr)> = Vec::new(); // a connection stays until its client ends it
        while !ended.load(Ordering::Relaxed) {
            match tcp.accept() {
                Ok((mut stream, from)) => {
                    let _ = stream.write_all(says(&one, from).as_bytes());
                    stream.set_nonblocking(true).unwrap();
                    held.push((stream, from));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            held.retain_mut(|(stream, from)| match stream.read(&mut [0; 64]) {
                Ok(0) => false,
                Ok(_) => stream.write_all(says(&one, *from).as_bytes()).is_ok(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
            if held.len() > 512 {
                held.drain(..256);
            }
        }
    });
    let datagrams = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while !over.load(Ordering::Relaxed) {
            if let Ok((_, from)) = all.recv_from(&mut buffer) {
                let _ = all.send_to(says(&other, from).as_bytes(), from);
            }
        }
    });
    vec![streams, datagrams]
}

/// Who answered, and from where that was asked.
pub(crate) type Answer = Result<(String, IpAddr), ErrorKind>;

pub(crate) fn heard(line: &str) -> Answer {
    let (name, seen) = line.trim().split_once(' ').ok_or(ErrorKind::UnexpectedEof)?;
    Ok((name.to_owned(), seen.parse().map_err(|_| ErrorKind::InvalidData)?))
}

pub(crate) fn asks_over_tcp(from: &Namespace, to: SocketAddr) -> Answer {
    let connected = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    let mut stream = connected.map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).map_err(|error| error.kind())?;
    heard(str::from_utf8(&buffer[..length]).unwrap())
}

pub(crate) fn asks_over_udp(from: &Namespace, to: SocketAddr) -> Answer {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = from.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = socket.connect(to).and_then(|()| socket.send(b"who?"));
    let mut buffer = [0; 64];
    let length = asked.and_then(|_| socket.recv(&mut buffer)).map_err(|error| error.kind())?;
    heard(str::from_utf8(&buffer[..length]).unwrap())
}

pub(crate) fn publishes(mode: PublishMode, ports: &[(Protocol, u16)]) -> Vec<PublishedPort> {
    let port = |(protocol, published): &(Protocol, u16)| PublishedPort {
        published: Some(Port::new(*published).unwrap()),
        mode,
        ..PublishedPort::new(*protocol, Port::new(TARGET).unwrap())
    };
    ports.iter().map(port).collect()
}
