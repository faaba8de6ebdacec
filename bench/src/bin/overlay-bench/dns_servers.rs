//! DNS servers as processes, each on the first core, in a namespace of their own: ours and its peers, with the same names.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use overlay_dns::{Config, Given, Here, Limits, Listen, Policy, Resolver, Server, Upstreams, View, Zone};
use overlay_kernel::Namespace;

use crate::dns::must;

/// The domain that all names are in.
pub(crate) const DOMAIN: &str = "bench.test";
/// Tells this program to be a server, and which.
const SERVE: &str = "OVERLAY_BENCH_SERVE";

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// So many names, from its own knowledge.
    Names(usize),
    /// It asks the server at this port, and keeps nothing.
    Forward(u16),
    /// So many names, and it asks the server at this port for others.
    Both(u16, u16),
}

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Unbound,
    Knot,
    Dnsmasq,
    /// Sends every query back as an answer.
    Echo,
}

/// A running server.
pub(crate) struct Running {
    child: Child,
    pub(crate) port: u16,
    folder: PathBuf,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Unbound => "unbound",
            Self::Knot => "knot",
            Self::Dnsmasq => "dnsmasq",
            Self::Echo => "bare echo",
        }
    }

    /// Starts it; `None`, and a word, if it is not installed.
    pub(crate) fn start(self, namespace: &Namespace, duty: Duty, port: u16) -> Option<Running> {
        let folder = std::env::temp_dir().join(format!("overlay-bench-{}-{port}", std::process::id()));
        must(fs::create_dir_all(&folder));
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
        match self {
            Self::Ours | Self::Echo => {
                let what = if self == Self::Echo { "echo" } else { "dns" };
                command.arg(must(std::env::current_exe())).env(SERVE, format!("{what} {port} {}", duty.text()));
            }
            Self::Unbound => {
                command.args(["unbound", "-d", "-c"]).arg(write(&folder, "unbound.conf", &unbound(port, duty)));
            }
            Self::Knot => {
                write(&folder, "zone", &zone_file(duty));
                command.args(["knotd", "-c"]).arg(write(&folder, "knot.conf", &knot(port, &folder)));
            }
            Self::Dnsmasq => {
                command.args(["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--user=root", "--no-resolv"]);
                command.args(["--bind-interfaces", "--listen-address=127.0.0.1", "--no-hosts", "--pid-file="]);
                command.arg(format!("--port={port}"));
                match duty {
                    Duty::Names(_) => {
                        command.arg(format!("--local=/{DOMAIN}/")).arg("--local-ttl=5");
                        command.arg(format!("--addn-hosts={}", write(&folder, "hosts", &hosts(duty)).display()));
                    }
                    Duty::Forward(to) | Duty::Both(_, to) => {
                        command.args(["--cache-size=0", "--dns-forward-max=10000"]);
                        command.arg(format!("--server=127.0.0.1#{to}"));
                    }
                }
            }
        }
        let child = must(must(namespace.run(|| command.spawn())));
        let mut running = Running { child, port, folder };
        let answers = running.awaits_answer(namespace, &name(0));
        if !answers {
            eprintln!("SKIPPED {}: it does not answer; is it installed?", self.name());
        }
        answers.then_some(running)
    }
}

impl Duty {
    fn text(self) -> String {
        match self {
            Self::Names(count) => format!("{count} 0"),
            Self::Forward(to) => format!("0 {to}"),
            Self::Both(count, to) => format!("{count} {to}"),
        }
    }

    const fn names(self) -> usize {
        match self {
            Self::Names(count) => count,
            Self::Forward(_) => 0,
            Self::Both(count, _) => count as usize,
        }
    }
}

impl Running {
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Processor time that it has spent, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = must(fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())));
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let spent = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
        let nanos = |text: &str| text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0);
        spent.map(|text| nanos(&text)).sum::<f64>().max(nanos(&stat)) / 1e9
    }

    /// Asks until there is an answer, for 15 s at most.
    fn awaits_answer(&mut self, namespace: &Namespace, name: &str) -> bool {
        let socket = must(namespace.udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        must(socket.set_read_timeout(Some(Duration::from_millis(100))));
        let start = now();
        while start.elapsed() < Duration::from_secs(15) && matches!(self.child.try_wait(), Ok(None)) {
            let _ = socket.send_to(&query(1, name), (Ipv4Addr::LOCALHOST, self.port));
            let mut reply = [0; 512];
            match socket.recv(&mut reply) {
                Ok(12..) if reply[3] & 0x0f == 0 => return true,
                Ok(_) => std::thread::park_timeout(Duration::from_millis(50)),
                Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
            }
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A query for a name's IPv4 addresses.
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut query = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// The name of a number.
pub(crate) fn name(number: usize) -> String {
    format!("svc{number:05}.{DOMAIN}")
}

/// Is a server, if the environment says so.
pub(crate) fn serve_if_asked() -> Option<ExitCode> {
    #[expect(clippy::disallowed_methods, reason = "a benchmark tells itself by the environment what to be")]
    let asked = std::env::var(SERVE).ok()?;
    let words: Vec<&str> = asked.split(' ').collect();
    let [what, port, names, upstream] = words[..] else { return Some(ExitCode::FAILURE) };
    let (port, names, upstream) = (must(port.parse()), must(names.parse()), must(upstream.parse()));
    let duty = if upstream == 0 { Duty::Names(names) } else { Duty::Both(names as u16, upstream) };
    if what == "echo" {
        must(echo(port));
    } else {
        let runtime = must(tokio::runtime::Builder::new_current_thread().enable_all().build());
        runtime.block_on(ours(port, duty));
    }
    Some(ExitCode::SUCCESS)
}

async fn ours(port: u16, duty: Duty) {
    let mut zone = Zone::new(must("bench".parse()), Policy::default());
    for number in 0..duty.names() {
        let given = Given { addresses: [address(number).into()].into(), ..Given::default() };
        zone.put_records(&must(format!("svc{number:05}").parse()), given);
    }
    let suffixes = if duty.names() > 0 { vec![must(DOMAIN.parse())] } else { Vec::new() };
    let view = View { networks: vec![zone], suffixes };
    let mut resolver = must(Resolver::new(view, Config { cache_bytes: 0, ..Config::default() }, [7; 32]));
    if let Duty::Both(_, to) = duty {
        let servers = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, to))];
        resolver.set_upstreams(&Upstreams { servers, ourselves: Vec::new() });
    }
    let udp = vec![must(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)))];
    let tcp = vec![must(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))];
    let _server = must(Server::start(Listen { udp, tcp }, resolver, Here, Limits::default()));
    std::future::pending::<()>().await;
}

fn echo(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        buffer[2] |= 0x80;
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn address(number: usize) -> Ipv4Addr {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    Ipv4Addr::new(10, high, middle, low)
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    must(fs::write(&path, text));
    path
}

fn unbound(port: u16, duty: Duty) -> String {
    let data: String = (0..duty.names())
        .map(|number| format!("  local-data: \"{}. 5 IN A {}\"\n", name(number), address(number)))
        .collect();
    format!(
        "server:\n  interface: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  directory: \"/\"\n  \
         use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n  module-config: \"iterator\"\n  \
         local-zone: \"{DOMAIN}.\" static\n{data}remote-control:\n  control-enable: no\n"
    )
}

fn knot(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "server:\n  listen: 127.0.0.1@{port}\n  rundir: \"{folder}\"\n  user: root:root\n  udp-workers: 1\n  \
         tcp-workers: 1\n  background-workers: 1\ndatabase:\n  storage: \"{folder}\"\nlog:\n  - target: stderr\n    \
         any: error\nzone:\n  - domain: {DOMAIN}\n    file: \"{folder}/zone\"\n    zonefile-sync: -1\n"
    )
}

fn zone_file(duty: Duty) -> String {
    let head =
        format!("{DOMAIN}. 5 IN SOA ns.{DOMAIN}. root.{DOMAIN}. 1 3600 600 86400 5\n{DOMAIN}. 5 IN NS ns.{DOMAIN}.\n");
    let line = |number| format!("{}. 5 IN A {}\n", name(number), address(number));
    (0..duty.names()).map(line).fold(head, |text, line| text + &line)
}

fn hosts(duty: Duty) -> String {
    (0..duty.names()).map(|number| format!("{} {}\n", address(number), name(number))).collect()
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    Instant::now()
}
