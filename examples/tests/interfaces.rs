//! `overlay-node` as programs, shells and Prometheus see it: what `docs/METRICS.md` and `docs/CLI.md` say.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "a test measures time and waits")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::{Container, Lab, resolve};
use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_overlay-node");
const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 9464;

/// Two hosts; the second one's node carries its packets itself.
struct World {
    lab: Lab,
    nodes: [Option<Child>; 2],
}

impl World {
    fn new(name: &str) -> Self {
        let dir = format!("/run/overlay-interfaces-test-{}-{name}", std::process::id());
        Self { lab: Lab::new(2, dir).unwrap(), nodes: [None, None] }
    }

    /// A command of no node that runs, on a host.
    fn on(&self, host: usize, words: &[&str]) -> Output {
        let mut command = Command::new(NODE);
        command.args(words).arg("--state").arg(self.lab.dir(host).join("state")).stdin(Stdio::null());
        // A child is in the namespace of the thread that starts it.
        self.lab.host(host).run(|| command.output()).unwrap().unwrap()
    }

    fn start(&mut self, host: usize) {
        let mut node = Command::new(NODE);
        node.args(["run", "--name", &format!("host-{}", host + 1), "--address", &self.lab.address(host).to_string()]);
        node.arg("--dir").arg(self.lab.dir(host)).arg("--state").arg(self.lab.dir(host).join("state"));
        node.args(["--metrics", &PORT.to_string(), "--backend", ["kernel", "userspace"][host]]);
        node.stdin(Stdio::null()).stdout(Stdio::null());
        self.nodes[host] = Some(self.lab.host(host).run(|| node.spawn()).unwrap().unwrap());
        until(|| self.told(host, &["status"]).status.success());
    }

    fn socket(&self, host: usize) -> PathBuf {
        self.lab.dir(host).join("control.sock")
    }

    fn told(&self, host: usize, words: &[&str]) -> Output {
        Command::new(NODE).arg("--socket").arg(self.socket(host)).args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// What is answered to a program.
    #[track_caller]
    fn json(&self, host: usize, words: &[&str]) -> Value {
        let output = self.told(host, &[words, &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a program is told that errs.
    #[track_caller]
    fn error(&self, host: usize, words: &[&str]) -> Value {
        let output = self.told(host, &[words, &["--json"]].concat());
        assert!(!output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stderr).unwrap()
    }

    fn attach(&self, host: usize, name: &str, more: &[&str]) -> (Container, Value) {
        let container = self.lab.container(name).unwrap();
        let path = container.source.path().unwrap().to_str().unwrap().to_owned();
        let words = ["attach", "front", "--name", name, "--netns", &path];
        let said = self.json(host, &[&words[..], more].concat());
        (container, said)
    }

    /// Asks for a host's metrics, with this request.
    fn ask(&self, host: usize, request: &str) -> String {
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        let mut stream = self.lab.host(host).run(|| TcpStream::connect(at)).unwrap().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said); // a reset is an answer
        said
    }

    /// Its metrics, read as strictly as the format is.
    #[track_caller]
    fn scrape(&self, host: usize) -> BTreeMap<String, Family> {
        let said = self.ask(host, "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n");
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        read(body).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "it never came about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A family of a page.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    values: BTreeMap<String, f64>,
}

impl Family {
    fn sum(&self) -> f64 {
        self.values.values().sum()
    }
}

/// Reads text of the exposition format 0.0.4, and holds it to the conventions.
fn read(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut open: Option<(String, bool)> = None; // whose lines these are, and whether its type was told
    if !text.ends_with('\n') {
        return Err("the last line is not ended".to_owned());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(line)?;
            if help.is_empty() || !name.starts_with("overlay_") || families.contains_key(name) {
                return Err(format!("help that is none, or comes twice: {line}"));
            }
            open = Some((name.to_owned(), false));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(line)?;
            let is_fit = match kind {
                "counter" => name.ends_with("_total"),
                "gauge" => !name.ends_with("_total"),
                _ => false,
            };
            match &mut open {
                Some((of, is_typed)) if of == name && !*is_typed && is_fit => *is_typed = true,
                _ => return Err(format!("a type of nothing: {line}")),
            }
            families.insert(name.to_owned(), Family { kind: kind.to_owned(), ..Family::default() });
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or(line)?;
            let name = series.split('{').next().unwrap_or_default();
            let is_name = name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_');
            if !is_name || open.as_ref().is_none_or(|(of, is_typed)| of != name || !is_typed) {
                return Err(format!("a value out of its family: {line}"));
            }
            labels(series.strip_prefix(name).unwrap_or_default())?;
            let value: f64 = value.parse().map_err(|_| line)?;
            let family = families.get_mut(name).ok_or(line)?;
            if !value.is_finite() || value < 0.0 || family.values.insert(series.to_owned(), value).is_some() {
                return Err(format!("a value that is none, or comes twice: {line}"));
            }
        }
    }
    match families.values().all(|family| !family.values.is_empty()) {
        true => Ok(families),
        false => Err("a family without a value".to_owned()),
    }
}

/// Holds `{name="value",…}` to the format; the values here need no escapes.
fn labels(text: &str) -> Result<(), String> {
    let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
        return if text.is_empty() { Ok(()) } else { Err(text.to_owned()) };
    };
    let mut names = BTreeSet::new();
    for label in inner.split(',') {
        let (name, value) = label.split_once('=').ok_or(label)?;
        let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or(label)?;
        let is_name = name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_') && !name.is_empty();
        if !is_name || inner.contains(['"', '\\', '\n']) || !names.insert(name) {
            return Err(label.to_owned());
        }
    }
    Ok(())
}

/// The names that the page in `docs` has.
fn documented() -> BTreeSet<String> {
    let rows = include_str!("../../docs/METRICS.md").lines().filter_map(|line| line.strip_prefix("| `overlay_"));
    rows.map(|row| format!("overlay_{}", row.split('`').next().unwrap())).collect()
}

#[test]
fn a_strict_reader_takes_nothing_that_the_format_does_not_allow() {
    let good = "# HELP overlay_x X.\n# TYPE overlay_x gauge\noverlay_x{a=\"b\"} 1\n";
    assert_eq!(read(good).unwrap()["overlay_x"].sum(), 1.0);
    for bad in [
        good.trim_end().to_owned(),
        good.replace("gauge", "counter"),
        good.replace("# TYPE overlay_x gauge\n", ""),
        good.replace("# HELP overlay_x X.\n", ""),
        format!("{good}overlay_x{{a=\"b\"}} 2\n"),
        format!("{good}overlay_y 2\n"),
        good.replace("\"b\"", "b"),
        good.replace(" 1", " one"),
        format!("{good}{good}"),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
}

#[test]
fn prometheus_reads_a_running_node_and_its_counts_grow_with_what_happens() {
    kernel_test(Kernel::Host, "examples::prometheus_reads_a_running_node", || {
        let mut world = World::new("metrics");
        let manager = world.lab.address(0).to_string();
        let founded: Value =
            serde_json::from_slice(&world.on(0, &["node", "init", "--address", &manager, "--json"]).stdout).unwrap();
        let token = founded["token"].as_str().unwrap().to_owned();
        world.start(0);
        let joined = world.on(1, &["node", "join", "--json", "--token", &token, &manager]);
        assert!(joined.status.success(), "{joined:?}");
        world.start(1);
        world.json(0, &["network", "create", "--attachable", "front"]);
        until(|| world.scrape(0)["overlay_nodes"].sum() == 2.0);
        let before = [0, 1].map(|host| world.scrape(host));
        let (web, _) = world.attach(0, "web", &[]);
        let (db, _) = world.attach(1, "db", &[]);
        until(|| resolve(&web.namespace, "db", Duration::from_millis(500)).is_ok_and(|found| !found.is_empty()));
        until(|| resolve(&db.namespace, "web", Duration::from_millis(500)).is_ok_and(|found| !found.is_empty()));
        let from = resolve(&db.namespace, "web", SOON).unwrap()[0];
        let pinged = || overlay_driver::testing::ping(&db.namespace, from, Duration::from_millis(500));
        until(|| matches!(pinged(), Ok(Some(_))));
        let after = [0, 1].map(|host| world.scrape(host));
        for (host, (before, after)) in before.iter().zip(&after).enumerate() {
            for name in ["overlay_rounds_total", "overlay_place_steps_total", "overlay_dns_queries_total"] {
                assert!(after[name].sum() > before[name].sum(), "{name} of host {host}");
            }
            for (name, family) in before.iter().filter(|(_, family)| family.kind == "counter") {
                let fell = family.values.iter().find(|(series, value)| after[name].values[*series] < **value);
                assert_eq!(fell, None, "host {host}");
            }
            assert_eq!(after["overlay_endpoints"].values["overlay_endpoints{place=\"here\"}"], 1.0);
            assert_eq!(after["overlay_places_failing"].sum(), 0.0, "host {host}");
        }
        assert!(after[1]["overlay_packets_total"].sum() > 0.0);
        let told: BTreeSet<String> = after.iter().flat_map(BTreeMap::keys).cloned().collect();
        let documented = documented();
        assert_eq!(told.difference(&documented).count(), 0);
        // A host without name servers, or networks that are not encrypted, have none of these.
        let absent = documented.difference(&told).filter(|it| !it.contains("upstream") && *it != "overlay_key_epoch");
        assert_eq!(absent.collect::<Vec<_>>(), Vec::<&String>::new());

        let missing = world.ask(0, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
        let post = world.ask(0, "POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert!(post.starts_with("HTTP/1.1 405") && post.to_lowercase().contains("allow: get, head"), "{post}");
        let long = world.ask(0, &format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", "a".repeat(20_000)));
        assert!(!long.starts_with("HTTP/1.1 200"), "{long}");
        // As many as there is room for say nothing; who comes then is served once they have been sent away.
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        let idle: Vec<TcpStream> =
            (0..8).map(|_| world.lab.host(0).run(|| TcpStream::connect(at)).unwrap().unwrap()).collect();
        assert_eq!(world.scrape(0)["overlay_node_info"].sum(), 1.0);
        drop(idle);
        for host in [1, 0] {
            world.json(host, &["teardown", "--force"]);
        }
    });
}

/// What a shell offers for a line that was begun.
fn bash(world: &World, line: &[&str]) -> Vec<String> {
    let script = "source <(\"$1\" completion bash); shift\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))\n_overlay_node 2>/dev/null\nprintf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "bash", NODE, NODE, "--socket"]).arg(world.socket(0)).args(line);
    let said = shell.output().unwrap();
    String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

/// The rows of `docs/CLI.md`: what a command answers, and with which keys.
fn shapes() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = include_str!("../../docs/CLI.md").lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let keys = cells.get(2)?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), keys)))
    };
    rows.filter_map(row).collect()
}

/// Holds an answer to its row, of which it takes note.
#[track_caller]
fn has_shape(of: &str, answer: &Value, seen: &mut BTreeSet<String>) {
    let shapes = shapes();
    let of_object = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let (shape, found) = match answer {
        Value::Array(all) => ("list", of_object(&all[0])),
        value => ("object", of_object(value)),
    };
    assert_eq!(shapes.get(of), Some(&(shape.to_owned(), found)), "{of}: {answer}");
    seen.insert(of.to_owned());
}

#[test]
fn programs_and_shells_are_answered_as_the_docs_say() {
    kernel_test(Kernel::Host, "examples::programs_and_shells_are_answered_as_the_docs_say", || {
        let mut world = World::new("cli");
        let mut seen = BTreeSet::new();
        let manager = world.lab.address(0).to_string();
        let founded: Value =
            serde_json::from_slice(&world.on(0, &["node", "init", "--address", &manager, "--json"]).stdout).unwrap();
        has_shape("node init", &founded, &mut seen);
        let away = world.error(0, &["status"]);
        assert_eq!((&away["kind"], &away["changed"]), (&"unreachable".into(), &"nothing".into()), "{away}");
        assert!(away["hint"].as_str().unwrap().contains("overlay-node run"), "{away}");
        world.start(0);
        let token = founded["token"].as_str().unwrap();
        let joined = world.on(1, &["node", "join", "--json", "--token", token, &manager]);
        has_shape("node join", &serde_json::from_slice(&joined.stdout).unwrap(), &mut seen);
        world.start(1);

        let mut told = |of: &str, words: &[&str]| {
            let answer = world.json(0, words);
            has_shape(of, &answer, &mut seen);
            answer
        };
        told("network create", &["network", "create", "--attachable", "front"]);
        told("service create", &["service", "create", "--name", "web", "--network", "front"]);
        let (web, attached) = world.attach(0, "web-1", &["--service", "web"]);
        let (_db, other) = world.attach(1, "db", &[]);
        let (own, far) = (attached["endpoint"]["id"].as_str().unwrap(), other["endpoint"]["id"].as_str().unwrap());
        has_shape("attach", &attached, &mut BTreeSet::new());
        until(|| resolve(&web.namespace, "db", Duration::from_millis(500)).is_ok_and(|found| !found.is_empty()));
        has_all_that_is_shown(own, &mut told);
        has_all_that_is_kept(&world, &mut told);
        has_what_is_watched(&world);
        complete_by_name(&world, own);
        err_as_the_docs_say(&world, own, far);

        told("drain", &["drain", own, "--deadline", "5"]);
        told("resume", &["resume", own]);
        told("detach", &["detach", own]);
        world.json(1, &["detach", far]);
        told("service rm", &["service", "rm", "web"]);
        told("network rm", &["network", "rm", "front"]);
        told("node rm", &["node", "rm", "host-2"]);
        told("teardown", &["teardown", "--force"]);
        let rest = ["attach", "service watch", "node leave", "node unlock"].map(str::to_owned);
        let all: BTreeSet<String> = shapes().into_keys().collect();
        let rest: BTreeSet<String> = rest.into_iter().collect();
        assert_eq!(&all - &seen, rest);
    });
}

/// Holds an answer to its row.
type Told<'t> = &'t mut dyn FnMut(&str, &[&str]) -> Value;

fn has_all_that_is_shown(own: &str, told: Told<'_>) {
    told("network ls", &["network", "ls"]);
    told("network inspect", &["network", "inspect", "front"]);
    told("service ls", &["service", "ls"]);
    told("service inspect", &["service", "inspect", "web"]);
    told("node ls", &["node", "ls"]);
    told("status", &["status"]);
    let way = told("explain", &["explain", own, "db"]);
    let hops: Vec<&str> = way["hops"].as_array().unwrap().iter().map(|it| it["hop"].as_str().unwrap()).collect();
    assert_eq!(hops, ["from", "name", "route", "policy", "peer", "vtep", "entry"], "{way}");
    assert_eq!((&way["broken"], &way["whole"]), (&Value::Null, &true.into()));
}

fn has_all_that_is_kept(world: &World, told: Told<'_>) {
    told("node rotate-keys", &["node", "rotate-keys"]);
    told("gossip-key rotate", &["gossip-key", "rotate"]);
    told("node token", &["node", "token"]);
    told("node promote", &["node", "promote", "host-2"]);
    told("node demote", &["node", "demote", "host-2"]);
    told("node lock", &["node", "lock"]);
    told("node unlock-key", &["node", "unlock-key"]);
    assert_eq!(world.json(0, &["node", "ca"]), Value::Null, "the root is not being changed");
    told("node ca", &["node", "ca", "rotate"]);
}

fn has_what_is_watched(world: &World) {
    let mut watching = Command::new(NODE);
    watching.arg("--socket").arg(world.socket(0)).args(["service", "watch", "web", "--json"]);
    let mut watching = watching.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(watching.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let _ = watching.kill();
    let _ = watching.wait();
    has_shape("service watch", &serde_json::from_str(&first).unwrap(), &mut BTreeSet::new());
}

fn complete_by_name(world: &World, endpoint: &str) {
    for (line, wanted) in [
        (&["netw"][..], &["network"][..]),
        (&["network", "inspect", "fr"], &["front"]),
        (&["service", "inspect", ""], &["web"]),
        (&["node", "promote", "host"], &["host-1", "host-2"]),
        (&["drain", ""], &[endpoint]),
        (&["attach", "front", "--service", ""], &["web"]),
        (&["network", "create", "--driver", "=", "mac"], &["macvlan"]),
        (&["network", "create", "--int"], &["--internal"]),
        (&["status", ""], &[]),
    ] {
        let found: BTreeSet<_> = bash(world, line).into_iter().collect();
        assert_eq!(found, wanted.iter().map(|it| (*it).to_owned()).collect(), "{line:?}");
    }
}

fn err_as_the_docs_say(world: &World, own: &str, far: &str) {
    for (words, kind, hint) in [
        (&["network", "rm", "nowhere"][..], "not_found", "overlay-node network ls shows"),
        (&["network", "create", "--attachable", "front"], "name_taken", "choose another name"),
        (&["network", "rm", "ingress"], "not_confirmed", "say --yes"),
        (&["network", "rm", "front"], "network_in_use", "remove that first"),
        (&["network", "create", "--ingress", "--gateway", "x", "y"], "usage", "overlay-node --help"),
        (&["status", "--fast"], "usage", "overlay-node --help"),
        (&["drain", far], "not_here", "drain it at the node that has it"),
        (&["explain", own, "nobody"], "not_reached", "attach both to one network"),
        (&["attach", "front", "--name", "x", "--netns", "/nowhere"], "not_plugged", "status"),
    ] {
        let error = world.error(0, words);
        let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["because", "changed", "hint", "kind", "what"], "{error}");
        assert_eq!((&error["kind"], &error["changed"]), (&kind.into(), &"nothing".into()), "{error}");
        assert!(error["hint"].as_str().is_some_and(|said| said.contains(hint)), "{words:?}: {error}");
    }
}
