//! A DNS server for one zone file: `overlay-dns-server --listen ADDRESS:PORT --zone FILE [OPTION…]`.
//!
//! ```text
//! overlay-dns-server --listen 127.0.0.1:5300 --zone zone.txt --upstream 192.0.2.53:53
//! ```
//!
//! The file has a record on each line: `NAME [SECONDS] [IN] TYPE DATA`, of type A, AAAA, PTR, SRV or TXT; what follows a
//! `;` is a comment. The names are those of one network, as a container on it sees them. It ends at SIGTERM or SIGINT, when
//! those who wait have their answers.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "what goes wrong is for the terminal")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::str::FromStr;

use overlay_core::Port;
use overlay_dns::{
    Config, DnsName, Given, Here, Limits, Listen, Policy, RecordTtl, Resolver, Server, Srv, Txt, Upstreams, View, Zone,
};
use overlay_examples::process;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: overlay-dns-server --listen ADDRESS:PORT --zone FILE [OPTION...]

  --listen ADDRESS:PORT    where it answers, by UDP and TCP; may be given more than once
  --zone FILE              the names it knows, a record on each line: NAME [SECONDS] [IN] TYPE DATA
  --network NAME           the network they belong to, under which they are found too (default: overlay)
  --suffix DOMAIN          a domain under which they are found too, and all others are not there
  --upstream ADDRESS:PORT  a server for other names; may be given more than once
  --single-labels          let names of one label go there, too";

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let outcome = Options::read(std::env::args().skip(1)).and_then(|options| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(options))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay-dns-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Failure> {
    let text = fs::read_to_string(&options.zone).map_err(|error| format!("{}: {error}", options.zone))?;
    let mut zone = Zone::new(options.network.parse()?, Policy::default());
    for (name, records) in records(&text)? {
        zone.put_records(&name, records);
    }
    eprintln!("overlay-dns-server: {} names", zone.len());
    let view = View { networks: vec![zone], suffixes: options.suffixes };
    let config = Config { forward_single_labels: options.single_labels, ..Config::default() };
    let mut seed = [0; 32];
    process::random(&mut seed)?;
    let mut resolver = Resolver::new(view, config, seed)?;
    resolver.set_upstreams(&Upstreams { servers: options.upstreams, ourselves: options.listen.clone() });

    let listen = Listen {
        udp: options.listen.iter().map(UdpSocket::bind).collect::<Result<_, _>>()?,
        tcp: options.listen.iter().map(TcpListener::bind).collect::<Result<_, _>>()?,
    };
    let server = Server::start(listen, resolver, Here, Limits::default())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut ends = [Box::pin(terminate.recv()), Box::pin(interrupt.recv())];
    std::future::poll_fn(|context| {
        let is_over = ends.iter_mut().any(|end| end.as_mut().poll(context).is_ready());
        if is_over { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    let metrics = server.metrics();
    let stopped = server.stop().await;
    eprintln!("overlay-dns-server: {} queries, {} unanswered at the end", metrics.queries.total(), stopped.unanswered);
    Ok(())
}

/// The command line.
#[derive(Default)]
struct Options {
    listen: Vec<SocketAddr>,
    zone: String,
    network: String,
    suffixes: Vec<DnsName>,
    upstreams: Vec<SocketAddr>,
    single_labels: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self { network: "overlay".to_owned(), ..Self::default() };
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value\n\n{USAGE}"));
            match option.as_str() {
                "--listen" => options.listen.push(value()?.parse()?),
                "--zone" => options.zone = value()?,
                "--network" => options.network = value()?,
                "--suffix" => options.suffixes.push(value()?.parse()?),
                "--upstream" => options.upstreams.push(value()?.parse()?),
                "--single-labels" => options.single_labels = true,
                _ => return Err(format!("unknown option {option}\n\n{USAGE}").into()),
            }
        }
        if options.listen.is_empty() || options.zone.is_empty() {
            return Err(USAGE.into());
        }
        Ok(options)
    }
}

/// The records of a file, by name.
fn records(text: &str) -> Result<BTreeMap<DnsName, Given>, Failure> {
    let mut all = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(';').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { continue };
        record(name, words, &mut all).map_err(|error| format!("line {}: {error}", number + 1))?;
    }
    Ok(all)
}

fn record<'l>(
    name: &str,
    words: impl Iterator<Item = &'l str>,
    all: &mut BTreeMap<DnsName, Given>,
) -> Result<(), Failure> {
    let given: &mut Given = all.entry(name.parse()?).or_default();
    let mut words = words.filter(|word| !word.eq_ignore_ascii_case("IN")).peekable();
    if let Some(seconds) = words.next_if(|word| word.bytes().all(|byte| byte.is_ascii_digit())) {
        given.ttl = Some(RecordTtl::from_secs(seconds.parse()?));
    }
    let kind = words.next().ok_or("a type and data are missing")?.to_ascii_uppercase();
    match kind.as_str() {
        "A" | "AAAA" => drop(given.addresses.insert(next(&mut words)?)),
        "PTR" => drop(given.ptr.insert(next(&mut words)?)),
        "SRV" => {
            let (priority, weight) = (next(&mut words)?, next(&mut words)?);
            let (port, target) = (Port::new(next(&mut words)?)?, next(&mut words)?);
            given.srv.insert(Srv { priority, weight, port, target });
        }
        "TXT" => drop(given.txt.insert(Txt::new(words.map(|word| word.trim_matches('"')))?)),
        other => return Err(format!("type {other}; A, AAAA, PTR, SRV and TXT are known").into()),
    }
    Ok(())
}

fn next<'l, T: FromStr<Err: Error + 'static>>(words: &mut impl Iterator<Item = &'l str>) -> Result<T, Failure> {
    Ok(words.next().ok_or("data are missing")?.parse()?)
}
