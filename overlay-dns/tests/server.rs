//! The server on real sockets, on loopback: what clients do wrong, and what goes on meanwhile.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use overlay_dns::{
    Config, Here, Limits, Listen, Mode, Policy, Resolver, Server, Service, Stopped, Upstreams, View, Zone,
};

const PATIENCE: Duration = Duration::from_secs(20); // for what must come, however busy the machine is
const SHORT: Limits = Limits {
    connections: 4,
    idle: Duration::from_millis(300),
    pipelined: 2,
    upstream_connections: 256,
    grace: Duration::from_secs(4),
};

fn view(last: u8) -> View {
    let mut zone = Zone::new("net".parse().unwrap(), Policy::default());
    zone.put_service(Service::new("web".parse().unwrap(), Mode::Vip([[10, 0, 9, last].into()].into())));
    View::from(zone)
}

/// A server at both kinds of sockets, its address, and a thread with the runtime.
struct Running {
    address: SocketAddr,
    server: Arc<Mutex<Option<Server>>>,
    runtime: tokio::runtime::Handle,
    ends: Arc<tokio::sync::Notify>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Sockets of both kinds at one port that is free for both: another program may have the one that UDP was given by TCP.
fn both() -> (UdpSocket, TcpListener, SocketAddr) {
    let one = || {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        Some((udp, TcpListener::bind(address).ok()?, address))
    };
    (0..32).find_map(|_| one()).unwrap()
}

impl Running {
    #[expect(clippy::disallowed_methods, reason = "a runtime of its own, so that clients may block")]
    fn new(limits: Limits, upstreams: Vec<SocketAddr>) -> Self {
        let (udp, tcp, address) = both();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let mut resolver = Resolver::new(view(2), Config::default(), [7; 32]).unwrap();
        resolver.set_upstreams(&Upstreams { servers: upstreams, ourselves: vec![address] });
        let server = {
            let _guard = handle.enter();
            Server::start(Listen { udp: vec![udp], tcp: vec![tcp] }, resolver, Here, limits).unwrap()
        };
        let ends = Arc::new(tokio::sync::Notify::new());
        let until = Arc::clone(&ends);
        let thread = thread::spawn(move || runtime.block_on(until.notified()));
        Self { address, server: Arc::new(Mutex::new(Some(server))), runtime: handle, ends, thread: Some(thread) }
    }

    fn with<T>(&self, call: impl FnOnce(&Server) -> T) -> T {
        call(self.server.lock().unwrap().as_ref().unwrap())
    }

    fn stop(&self) -> Stopped {
        let server = self.server.lock().unwrap().take().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        self.runtime.spawn(async move { sender.send(server.stop().await).unwrap() });
        receiver.recv_timeout(PATIENCE).unwrap()
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn tcp_from(&self, address: [u8; 4]) -> TcpStream {
        let (sender, receiver) = std::sync::mpsc::channel();
        let to = self.address;
        self.runtime.spawn(async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((address, 0).into()).unwrap();
            sender.send(socket.connect(to).await.unwrap().into_std().unwrap()).unwrap();
        });
        let stream = receiver.recv_timeout(PATIENCE).unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, name: &str) -> Message {
        let socket = self.udp();
        socket.send(&question(7, name)).unwrap();
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.server.lock().unwrap().take());
        self.ends.notify_one();
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// An upstream server that answers each query when it is let to.
struct Outside {
    address: SocketAddr,
    may_answer: Arc<AtomicBool>,
}

impl Outside {
    #[expect(clippy::disallowed_methods, reason = "a server of its own, so that clients may block")]
    fn new(may_answer: bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let may_answer = Arc::new(AtomicBool::new(may_answer));
        let may = Arc::clone(&may_answer);
        thread::spawn(move || {
            let mut held = Vec::new();
            let mut buffer = [0; 1500];
            socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            while Arc::strong_count(&may) > 1 {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    held.push((buffer[..length].to_vec(), from));
                }
                if may.load(Ordering::Relaxed) {
                    for (query, from) in held.drain(..) {
                        let mut reply = Message::from_vec(&query).unwrap();
                        reply.metadata.message_type = MessageType::Response;
                        let name = reply.queries[0].name.clone();
                        reply.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(203, 0, 113, 1)))));
                        let _ = socket.send_to(&reply.to_vec().unwrap(), from);
                    }
                }
            }
        });
        Self { address, may_answer }
    }
}

/// An upstream server that cuts everything by UDP, and by TCP takes connections and says nothing.
struct Cuts {
    address: SocketAddr,
    _listener: Arc<TcpListener>,
}

impl Cuts {
    #[expect(clippy::disallowed_methods, reason = "a server of its own, so that clients may block")]
    fn new() -> Self {
        let (socket, listener, address) = both();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let listener = Arc::new(listener);
        let open = Arc::clone(&listener);
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while Arc::strong_count(&open) > 1 {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let mut reply = Message::from_vec(&buffer[..length]).unwrap();
                reply.metadata.message_type = MessageType::Response;
                reply.metadata.truncation = true;
                socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
            }
        });
        Self { address, _listener: listener }
    }
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(Message::from_vec(&message).unwrap())
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

#[test]
fn a_batch_of_datagrams_is_answered_each_to_its_sender() {
    let running = Running::new(Limits::default(), Vec::new());
    let sockets: Vec<UdpSocket> = (0..8).map(|_| running.udp()).collect();
    for round in 0..20_u16 {
        for (number, socket) in sockets.iter().enumerate() {
            socket.send(&question(round * 100 + number as u16, "web.")).unwrap();
        }
    }
    for (number, socket) in sockets.iter().enumerate() {
        let mut ids: Vec<u16> = (0..20)
            .map(|_| {
                let mut buffer = [0; 512];
                let length = socket.recv(&mut buffer).unwrap();
                let message = Message::from_vec(&buffer[..length]).unwrap();
                assert_eq!(message.answers.len(), 1);
                message.metadata.id
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..20).map(|round| round * 100 + number as u16).collect::<Vec<_>>());
    }
    assert_eq!(running.with(Server::metrics).queries.a, 160);
}

/// CVE-2024-8418 of another resolver: one idle TCP client kept all others waiting.
#[test]
fn an_idle_tcp_client_does_not_block_others() {
    let running = Running::new(Limits { connections: 4, ..Limits::default() }, Vec::new());
    let idle: Vec<TcpStream> = (0..12).map(|_| running.tcp()).collect();
    let mut half = running.tcp();
    half.write_all(&[0, 40, 1, 2, 3]).unwrap(); // a length and the beginning of what it announces
    assert_eq!(running.ask("web.").answers.len(), 1);
    let mut busy = running.tcp();
    for id in 0..5 {
        busy.write_all(&framed(&question(id, "web."))).unwrap();
        assert_eq!(receive(&mut busy).unwrap().metadata.id, id);
    }
    drop(idle);
}

#[test]
fn a_client_that_opens_connections_without_end_throws_out_its_own_and_nobody_elses() {
    let running = Running::new(Limits { connections: 4, ..Limits::default() }, Vec::new());
    let mut mine = running.tcp();
    let mut theirs = running.tcp_from([127, 0, 0, 2]);
    for id in 0..40 {
        mine = running.tcp();
        mine.write_all(&framed(&question(id, "web."))).unwrap();
        assert_eq!(receive(&mut mine).unwrap().metadata.id, id);
    }
    theirs.write_all(&framed(&question(77, "web."))).unwrap();
    assert_eq!(receive(&mut theirs).unwrap().metadata.id, 77);
    drop(mine);
}

#[test]
fn what_is_cut_opens_no_more_connections_to_upstream_servers_than_may_be() {
    let outside = Cuts::new();
    let running = Running::new(Limits { upstream_connections: 3, ..Limits::default() }, vec![outside.address]);
    let socket = running.udp();
    for id in 0..20 {
        socket.send(&question(id, &format!("a{id}.example.org."))).unwrap();
    }
    let codes: Vec<ResponseCode> = (0..17)
        .map(|_| {
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).unwrap();
            Message::from_vec(&buffer[..length]).unwrap().metadata.response_code
        })
        .collect();
    assert_eq!(codes, [ResponseCode::ServFail; 17], "three wait for connections, the others do not");
    assert_eq!(running.with(|server| server.metrics().results.failed), 17);
    assert_eq!(running.ask("web.").answers.len(), 1);
}

/// CVE-2026-35406 of another resolver: a TCP message that was shorter than its length made it spin.
#[test]
fn a_malformed_tcp_length_does_not_spin() {
    let running = Running::new(SHORT, Vec::new());
    for bytes in [&[0, 0][..], &[0xff, 0xff, 1, 2, 3], &[0, 1], &[0], &[0, 12, 0, 0]] {
        let mut stream = running.tcp();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_closed(&mut stream), "{bytes:?}");
        let mut open = running.tcp();
        open.write_all(bytes).unwrap();
        assert!(is_closed(&mut open), "{bytes:?} and then nothing: it is closed when it was idle for long enough");
    }
    let (before, cpu) = (running.with(Server::metrics).queries.total(), cpu());
    let mut stream = running.tcp();
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
    assert!(is_closed(&mut stream));
    assert_eq!(running.with(Server::metrics).queries.total(), before);
    let spent = self::cpu() - cpu;
    assert!(spent < 25, "{spent} ticks of processor time for a connection that waits for 0.3 s: it spins");
    assert_eq!(running.ask("web.").answers.len(), 1);
}

/// Processor time of this process, in ticks of 10 ms.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn queries_in_one_stream_are_answered_as_they_can_be() {
    let outside = Outside::new(false);
    let running = Running::new(Limits::default(), vec![outside.address]);
    let mut stream = running.tcp();
    let queries = [question(1, "www.example.org."), question(2, "web."), question(3, "web.net.")];
    stream.write_all(&queries.map(|query| framed(&query)).concat()).unwrap();
    assert_eq!([receive(&mut stream).unwrap().metadata.id, receive(&mut stream).unwrap().metadata.id], [2, 3]);
    outside.may_answer.store(true, Ordering::Relaxed);
    let last = receive(&mut stream).unwrap();
    assert_eq!((last.metadata.id, last.answers.len()), (1, 1));
}

#[test]
fn who_closes_only_the_sending_side_still_gets_what_waits() {
    let outside = Outside::new(false);
    let running = Running::new(Limits::default(), vec![outside.address]);
    let mut stream = running.tcp();
    stream.write_all(&framed(&question(1, "www.example.org."))).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    while running.with(Server::metrics).forwards.sent == 0 {
        thread::yield_now();
    }
    outside.may_answer.store(true, Ordering::Relaxed);
    assert_eq!(receive(&mut stream).unwrap().answers.len(), 1);
    assert!(is_closed(&mut stream));
}

#[test]
fn many_queries_in_one_stream_are_all_answered_in_order() {
    let running = Running::new(Limits::default(), Vec::new());
    let mut stream = running.tcp();
    let queries: Vec<u8> = (0..5_000).flat_map(|id| framed(&question(id, "web."))).collect();
    let mut sender = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&queries).unwrap());
        for id in 0..5_000 {
            assert_eq!(receive(&mut stream).unwrap().metadata.id, id);
        }
    });
}

#[test]
fn a_stream_with_more_that_waits_than_may_wait_is_read_on_later() {
    let outside = Outside::new(false);
    let running = Running::new(Limits { idle: PATIENCE, ..SHORT }, vec![outside.address]);
    let mut stream = running.tcp();
    for id in 0..10 {
        stream.write_all(&framed(&question(id, &format!("a{id}.example.org.")))).unwrap();
    }
    outside.may_answer.store(true, Ordering::Relaxed);
    let mut ids: Vec<u16> = (0..10).map(|_| receive(&mut stream).unwrap().metadata.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..10).collect::<Vec<_>>());
}

#[test]
fn zones_and_upstream_servers_change_under_the_same_sockets() {
    let outside = Outside::new(true);
    let running = Running::new(Limits::default(), Vec::new());
    let mut stream = running.tcp();
    assert_eq!(running.ask("web.").answers[0].data.to_string(), "10.0.9.2");
    assert_eq!(running.ask("www.example.org.").metadata.response_code, ResponseCode::Refused);
    running.with(|server| server.set_source(view(3)));
    running.with(|server| server.set_upstreams(&Upstreams { servers: vec![outside.address], ourselves: Vec::new() }));
    assert_eq!(running.ask("web.").answers[0].data.to_string(), "10.0.9.3");
    assert_eq!(running.ask("www.example.org.").answers[0].data.to_string(), "203.0.113.1");
    stream.write_all(&framed(&question(1, "web."))).unwrap();
    assert_eq!(receive(&mut stream).unwrap().answers[0].data.to_string(), "10.0.9.3");
    assert_eq!(running.with(Server::metrics).results.forwarded, 1);
}

#[test]
fn a_server_that_stops_lets_those_who_wait_have_their_answers() {
    let outside = Outside::new(false);
    let running = Running::new(Limits::default(), vec![outside.address]);
    let (socket, mut stream) = (running.udp(), running.tcp());
    socket.send(&question(1, "a.example.org.")).unwrap();
    stream.write_all(&framed(&question(2, "b.example.org."))).unwrap();
    while running.with(Server::metrics).forwards.sent < 2 {
        thread::yield_now();
    }
    outside.may_answer.store(true, Ordering::Relaxed);
    assert_eq!(running.stop().unanswered, 0);
    let mut buffer = [0; 512];
    assert!(socket.recv(&mut buffer).is_ok());
    assert_eq!(receive(&mut stream).unwrap().metadata.id, 2);
    assert!(is_closed(&mut stream));
}

#[test]
fn a_query_of_the_same_process_needs_no_socket() {
    let outside = Outside::new(true);
    let running = Running::new(Limits::default(), vec![outside.address]);
    let server = running.server.lock().unwrap().take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = SocketAddr::from(([10, 0, 9, 9], 0));
    running.runtime.spawn(async move {
        let mut answers = Vec::new();
        for name in ["web.", "www.example.org."] {
            answers.push(server.ask(address, &question(9, name)).await.unwrap());
        }
        answers.push(server.ask(address, b"noise").await.unwrap_or_default());
        sender.send(answers).unwrap();
    });
    let answers = receiver.recv_timeout(PATIENCE).unwrap();
    let data = |bytes: &[u8]| Message::from_vec(bytes).unwrap().answers[0].data.to_string();
    assert_eq!((data(&answers[0]), data(&answers[1])), ("10.0.9.2".into(), "203.0.113.1".into()));
    assert!(answers[2].is_empty());
}
