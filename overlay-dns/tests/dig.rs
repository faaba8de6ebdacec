//! The whole thing in a network namespace: `dig` asks by UDP and TCP, with and without EDNS, over IPv4 and IPv6, and what is
//! not ours comes from an `unbound` there.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, Port, Protocol};
use overlay_dns::{
    Config, Dial, Endpoint, Here, Limits, Listen, Metrics, Mode, Policy, Resolver, Server, Service, Upstreams, View,
    Zone,
};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;

const PORT: u16 = 5355; // 53 stays free for the container's own use
const UPSTREAM: &str = "127.0.0.1:5335";
const ALL: [&str; 8] = [
    "-4 +notcp +noedns",
    "-4 +notcp +edns=0",
    "-4 +tcp +noedns",
    "-4 +tcp +edns=0",
    "-6 +notcp +noedns",
    "-6 +notcp +edns=0",
    "-6 +tcp +noedns",
    "-6 +tcp +edns=0",
];

#[test]
fn dig_is_answered_by_every_way_and_other_names_come_from_unbound() {
    if !are_there(&["dig", "unbound"]) {
        return;
    }
    kernel_test(Kernel::Host, "dns::dig_is_answered_by_every_way", || {
        let namespace = Namespace::create().unwrap();
        judge(&namespace, "ip", &["link", "set", "lo", "up"]);
        let _unbound = Unbound::start(&namespace);
        let metrics = serve(&namespace, || {
            for way in ALL {
                let said = |what: &str| dig(&namespace, way, what);
                for (asked, expected) in [
                    ("web A", "NOERROR: web. 5 IN A 10.0.9.2"),
                    ("WEB.customoverlay A", "NOERROR: WEB.customoverlay. 5 IN A 10.0.9.2"),
                    ("web AAAA", "NOERROR: web. 5 IN AAAA fd00:9::2"),
                    ("web MX", "NOERROR:"),
                    ("tasks.web A", "NOERROR: tasks.web. 0 IN A 10.0.9.3"),
                    ("_http._tcp.web SRV", "NOERROR: _http._tcp.web. 5 IN SRV 0 1 80 web.customoverlay."),
                    ("-x 10.0.9.2", "NOERROR: 2.9.0.10.in-addr.arpa. 5 IN PTR web.customoverlay."),
                    ("-x 10.0.9.77", "NXDOMAIN:"),
                    ("nobody A", "NXDOMAIN:"),
                    ("www.example.org A", "NOERROR: www.example.org. … IN A 203.0.113.80"),
                    ("nobody.example.org A", "NXDOMAIN:"),
                    ("web AXFR", "REFUSED:"),
                ] {
                    if !asked.ends_with("AXFR") || way.contains("+tcp") {
                        assert_eq!(said(asked), expected, "dig {way} {asked}");
                    }
                }
                assert_eq!(said("big.example.org TXT").matches(" TXT ").count(), 40, "{way}: dig comes back by TCP");
            }
        });
        assert!(
            metrics.forwards.by_tcp > 0 && metrics.results.forwarded > 0 && metrics.results.cached > 0,
            "{metrics:?}"
        );
        assert_eq!(metrics.queries.total(), metrics.results.total());
    });
}

#[test]
fn names_of_ours_are_answered_under_a_flood_for_names_that_nobody_answers() {
    if !are_there(&["dig"]) {
        return;
    }
    kernel_test(Kernel::Host, "dns::names_of_ours_are_answered_under_dead_upstreams", || {
        let namespace = Namespace::create().unwrap();
        judge(&namespace, "ip", &["link", "set", "lo", "up"]);
        let dead = namespace.udp(UPSTREAM.parse().unwrap()).unwrap(); // hears, and says nothing
        let metrics = serve(&namespace, || {
            let flood = namespace.udp("127.0.0.1:0".parse().unwrap()).unwrap();
            for number in 0..20_000_u32 {
                let name = format!("x{number:06}");
                let query =
                    [b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x07", name.as_bytes(), b"\x07example\0\0\x01\0\x01"].concat();
                let _ = flood.send_to(&query, ("127.0.0.11", PORT));
                if number % 2_000 == 0 {
                    assert_eq!(dig(&namespace, ALL[0], "web A"), "NOERROR: web. 5 IN A 10.0.9.2");
                }
            }
        });
        assert!(metrics.results.overloaded > 0 && metrics.results.records >= 10, "{metrics:?}");
        drop(dead);
    });
}

/// Serves a network's names in the namespace while `body` runs.
#[expect(clippy::disallowed_methods, reason = "a runtime of its own, so that dig may block")]
fn serve(namespace: &Namespace, body: impl FnOnce()) -> Metrics {
    let listen = ["127.0.0.11", "::1"].map(|address| SocketAddr::new(address.parse().unwrap(), PORT));
    let sockets = Listen {
        udp: listen.iter().map(|at| namespace.udp(*at).unwrap()).collect(),
        tcp: listen.iter().map(|at| namespace.listen(*at).unwrap()).collect(),
    };
    let mut resolver = Resolver::new(view(), Config::default(), [7; 32]).unwrap();
    let servers = vec![SocketAddr::from(([127, 0, 0, 11], PORT)), UPSTREAM.parse().unwrap()];
    resolver.set_upstreams(&Upstreams { servers, ourselves: listen.to_vec() });
    let dial = Inside(namespace.try_clone().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        runtime.block_on(async {
            let server = Server::start(sockets, resolver, dial, Limits::default()).unwrap();
            let _ = ended.await;
            let metrics = server.metrics();
            server.stop().await;
            metrics
        })
    });
    let _guard = handle.enter();
    body();
    end.send(()).unwrap();
    thread.join().unwrap()
}

fn view() -> View {
    let policy = Policy { subnets: vec!["10.0.9.0/24".parse().unwrap()], ..Policy::default() };
    let mut zone = Zone::new("customoverlay".parse().unwrap(), policy);
    let vips = ["10.0.9.2", "fd00:9::2"].map(|vip| vip.parse().unwrap());
    let mut web = Service::new("web".parse().unwrap(), Mode::Vip(vips.into()));
    web.ports.insert(("http".parse().unwrap(), Protocol::Tcp), Port::new(80).unwrap());
    zone.put_service(web);
    let mut task = Endpoint::new(EndpointId::from_bytes([7; 16]), [[10, 0, 9, 3].into()]);
    task.service = Some("web".parse().unwrap());
    zone.put_endpoint(task);
    View::from(zone)
}

/// The code, and the answers.
fn dig(namespace: &Namespace, way: &str, what: &str) -> String {
    let server = if way.contains("-6") { "@::1" } else { "@127.0.0.11" };
    let line = format!("{server} -p {PORT} {way} +time=2 +tries=6 +nocookie +noall +comments +answer {what}");
    let printed = judge(namespace, "dig", &line.split(' ').collect::<Vec<_>>());
    let code = printed.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
    let failed = printed.contains("Transfer failed");
    let code = code.unwrap_or(if failed { "REFUSED" } else { "none" });
    let answers = printed.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let answers: Vec<String> = answers.map(answer).collect();
    format!("{code}: {}", answers.join("; ")).trim_end().to_owned()
}

/// An answer's words; of those from outside, which count down, without the TTL.
fn answer(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if line.contains("example.org") {
        words.splice(1..2, ["…"]);
    }
    words.join(" ")
}

/// Sockets to upstream servers, in a namespace.
struct Inside(Namespace);

impl Dial for Inside {
    fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        self.0.run(move || Here.udp(to)).map_err(io::Error::other)?
    }

    fn tcp(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        self.0.run(move || Here.tcp(to)).map_err(io::Error::other)?
    }
}

/// An unbound with a few names, in a namespace.
struct Unbound {
    child: Child,
    config: PathBuf,
}

impl Unbound {
    fn start(namespace: &Namespace) -> Self {
        let config = std::env::temp_dir().join(format!("overlay-dns-unbound-{}.conf", std::process::id()));
        let texts: String = (0..40)
            .map(|number| {
                let text = format!("{number:02}{}", "x".repeat(100));
                format!("  local-data: 'big.example.org. 300 IN TXT \"{text}\"'\n")
            })
            .collect();
        let text = format!(
            "server:\n  interface: 127.0.0.1@5335\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  directory: \"/\"\n  \
             use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n  module-config: \"iterator\"\n  \
             local-zone: \"example.org.\" static\n  \
             local-data: \"example.org. 300 IN SOA ns.example.org. root.example.org. 1 3600 600 86400 60\"\n  \
             local-data: \"www.example.org. 300 IN A 203.0.113.80\"\n{texts}remote-control:\n  control-enable: no\n"
        );
        fs::write(&config, text).unwrap();
        let path = config.clone();
        let start = move || Command::new("unbound").args(["-d", "-c"]).arg(path).stderr(Stdio::null()).spawn();
        let child = namespace.run(start).unwrap().unwrap();
        let unbound = Self { child, config };
        for _ in 0..100 {
            let args = "@127.0.0.1 -p 5335 +time=1 +tries=1 +short www.example.org";
            let asked = namespace.run(|| Command::new("dig").args(args.split(' ')).output()).unwrap().unwrap();
            if asked.stdout.starts_with(b"203") {
                return unbound;
            }
            thread::park_timeout(Duration::from_millis(100));
        }
        panic!("unbound does not answer");
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

/// Whether these programs are installed; if not, says so loudly, and fails where nothing may be skipped.
#[expect(clippy::disallowed_methods, reason = "a test gate is told by the environment")]
fn are_there(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&&str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let Some(missing) = tools.iter().find(|tool| !is_there(tool)) else { return true };
    let required = std::env::var("OVERLAY_REQUIRE_KERNEL").is_ok_and(|value| value == "1");
    assert!(!required, "{missing} is missing, and OVERLAY_REQUIRE_KERNEL forbids to skip the test");
    let _ = writeln!(io::stderr(), "SKIPPED a test of overlay-dns: needs {missing}");
    false
}
