//! An etcd of one's own.
#![expect(clippy::expect_used, reason = "a test that cannot have its server fails")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An etcd server of the machine's own (Debian: `etcd-server`), on loopback ports and in a folder that were nobody's; gone
/// with the value.
///
/// ```
/// use overlay_store::testing::EtcdServer;
///
/// let Some(mut server) = EtcdServer::start("store::example") else {
///     return Ok(()); // there is none here, and it was said so
/// };
/// assert!(server.endpoint().starts_with("127.0.0.1:"));
/// server.kill(); // as a power cut would
/// server.restart(); // the same data, the same ports
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct EtcdServer {
    folder: PathBuf,
    host: IpAddr,
    ports: [u16; 3], // for clients, for peers, for health
    certificates: Option<ServerCertificates>,
    child: Option<Child>,
}

/// Files with what a server shows and asks for, PEM.
#[derive(Debug, Clone)]
pub struct ServerCertificates {
    /// Of the authority that signs its clients' certificates.
    pub authority: PathBuf,
    /// Of the server, for 127.0.0.1.
    pub certificate: PathBuf,
    /// The private key of that.
    pub key: PathBuf,
}

impl EtcdServer {
    /// Starts one without protection. Where there is no etcd, it says so loudly and gives none; with `OVERLAY_REQUIRE_ETCD=1` or in CI
    /// (`CI=true`) that is a failure. `name` is the crate's and the test's: `store::the_test`.
    ///
    /// # Panics
    /// If it is required and not there, or does not start.
    pub fn start(name: &str) -> Option<Self> {
        is_there(name).then(|| Self::begin(LOOPBACK, None))
    }

    /// The same with TLS, and clients that have to show certificates.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_tls(name: &str, certificates: &ServerCertificates) -> Option<Self> {
        is_there(name).then(|| Self::begin(LOOPBACK, Some(certificates)))
    }

    /// The same at another address of this machine's, or of the namespace that the calling thread is in: for which the server's certificate is to be.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_tls_at(name: &str, host: IpAddr, certificates: &ServerCertificates) -> Option<Self> {
        is_there(name).then(|| Self::begin(host, Some(certificates)))
    }

    fn begin(host: IpAddr, certificates: Option<&ServerCertificates>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("overlay-etcd-{}-{number}", std::process::id()));
        for _ in 0..5 {
            std::fs::create_dir_all(&folder).expect("a folder for etcd");
            let (ports, certificates) = (free_ports(host), certificates.cloned());
            let mut server = Self { folder: folder.clone(), host, ports, certificates, child: None };
            if server.launch() {
                return server;
            } // else somebody was faster to take a port
        }
        panic!("etcd does not start");
    }

    /// `HOST:PORT`, where clients are served.
    pub fn endpoint(&self) -> String {
        self.address(self.ports[0]).to_string()
    }

    /// Ends it at once, as a power cut would: SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same ports, with the data it had.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "etcd does not start again");
    }

    /// Stops it where it is, so that it takes requests and answers none, until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Makes it forget history up to `revision`. Only where it is without TLS.
    ///
    /// # Panics
    /// If it does not answer that it did.
    pub fn compact(&self, revision: u64) {
        let body = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
        let answer = http(self.address(self.ports[0]), "POST /v3/kv/compaction", &body).expect("compaction");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().map(|child| child.id().to_string());
        let sent = id.map(|id| Command::new("kill").args([signal, &id]).status());
        assert!(sent.is_some_and(|sent| sent.is_ok_and(|status| status.success())), "kill {signal}");
    }

    /// Whether it is in good health within 20 s.
    fn launch(&mut self) -> bool {
        let log = std::fs::File::create(self.folder.join("log")).expect("a log for etcd");
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        let [clients, peers, health] = self.ports.map(|port| self.address(port));
        let mut command = Command::new(PROGRAM);
        command.args(["--name", "test", "--data-dir"]).arg(self.folder.join("data"));
        command.args(["--listen-client-urls", &format!("{scheme}://{clients}")]);
        command.args(["--advertise-client-urls", &format!("{scheme}://{clients}")]);
        command.args(["--listen-peer-urls", &format!("http://{peers}")]);
        command.args(["--initial-advertise-peer-urls", &format!("http://{peers}")]);
        command.args(["--initial-cluster", &format!("test=http://{peers}")]);
        command.args(["--listen-metrics-urls", &format!("http://{health}")]);
        if let Some(ServerCertificates { authority, certificate, key }) = &self.certificates {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(authority);
            command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
        }
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("etcd"));
        (0..400).any(|_| {
            pause();
            http(health, "GET /health", "").is_ok_and(|answer| answer.contains("\"health\":\"true\""))
        })
    }

    const fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.host, port)
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

const PROGRAM: &str = "etcd";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[expect(clippy::disallowed_methods, reason = "a test gate is told by the environment")]
fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file()) {
        return true;
    }
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|found| found == value);
    let required = is("OVERLAY_REQUIRE_ETCD", "1") || is("CI", "true");
    assert!(!required, "{name} needs etcd (Debian: etcd-server), which CI or OVERLAY_REQUIRE_ETCD forbids to skip");
    let _ = writeln!(io::stderr(), "SKIPPED {name}: needs etcd (Debian: etcd-server)");
    false
}

fn free_ports(host: IpAddr) -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind((host, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a port").port())
}

/// One request and its whole answer.
fn http(to: SocketAddr, request: &str, body: &str) -> io::Result<String> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[expect(clippy::disallowed_methods, reason = "etcd has no event for its good health")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
