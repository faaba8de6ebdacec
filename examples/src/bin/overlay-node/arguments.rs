//! What is typed after the program's name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};
use overlay_core::{EndpointId, Name, Port};
use overlay_node::{Balancing, EndpointMode, NetworkSpec, PublishedPort};

use crate::completion::Shell;
use crate::members::{self, Member};
use crate::metrics;
use crate::question::NodeQuestion;
use crate::verbs::{HelpAsked, Verb};
use crate::words::{Words, value};

/// How it is called.
pub(crate) const USAGE: &str = "\
usage: overlay-node node init --address IP [--state DIR] [--etcd HOST:PORT]...
       overlay-node node join --token TOKEN [--state DIR] [--etcd HOST:PORT]... IP[:PORT]...
       overlay-node run --name NAME --address IP[:PORT] [--manager | --manager-socket PATH]
                        [--join IP:PORT]... [--gossip-key FILE]... [--dir DIR] [--state DIR] [--backend kernel|userspace]
                        [--metrics PORT|IP:PORT]
       overlay-node completion bash|zsh|fish
       overlay-node [--socket PATH] [--json] COMMAND

  network create [-d overlay|bridge|macvlan] [--attachable] [--internal] [--ingress]
                 [--subnet NET]... [--ip-range NET]... [--gateway IP]... [--aux-address NAME=IP]...
                 [--opt encrypted[=own]] [--opt parent=INTERFACE] [--opt macvlan_mode=MODE] NAME
  network ls
  network inspect NETWORK
  network rm [--yes] NETWORK
  service create --name NAME [--network NETWORK]... [--endpoint-mode vip|dnsrr] [--replicas N]
                 [--scheduler NAME] [--affinity SECONDS] [--idle SECONDS[,SECONDS,SECONDS]]
                 [-p [PUBLISHED:]TARGET[/PROTOCOL]]...
                 [-p target=PORT[,published=PORT][,protocol=tcp|udp|sctp][,mode=ingress|host|local]
                     [,source=client|masquerade][,name=NAME][,host_ip=IP]...[,interface=NAME]...[,node=ID]...[,allow=NET]...]...
  service ls
  service inspect SERVICE
  service rm SERVICE
  service watch SERVICE   tells its endpoints as this node knows them, and every change of them, until it is ended
  attach NETWORK --name CONTAINER (--netns PATH | --pid PID | --tap) [--interface NAME] [--ip IP]... [--mac MAC]
                 [--service SERVICE] [--weight N]
  drain ENDPOINT [--deadline SECONDS]
  resume ENDPOINT
  detach ENDPOINT
  explain ENDPOINT NAME|IP
  explain published PORT[/PROTOCOL] --client IP --at IP [--interface NAME]
  node ls
  node rotate-keys
  node leave [--force]    as teardown, and the node forgets that it was in the cluster
  node promote|demote NODE
  node rm NODE [--rotate] it is let in no more; says what it knew, and with --rotate both join tokens are changed
  node token [--manager] [rotate]
  node ca [rotate]        how far a change of the root is
  node lock [off]         the node's keys are locked on its disk, with an unlock key that is shown; or not any more
  node unlock             says that key, from its input, to a node that waits for it after its start
  node unlock-key [rotate]
  gossip-key rotate [--without NODE-ID]...
  status
  teardown [--force]      removes all that the node has made, takes it from the cluster, and ends it; the last manager with --force alone

  node init, join   write down that the node is in a cluster from now on: run it without --manager then. It speaks with managers over mutual TLS at port 2377
  --etcd HOST:PORT      the catalogue is there, which several managers share; by TLS with --etcd-ca, --etcd-cert and --etcd-key FILE each, which only servers on this machine's
                    loopback go without. --etcd-prefix PREFIX sets it apart: overlay/. A worker that may be promoted is told it when it joins
  --gossip-key FILE     what the nodes say to each other is sealed with the first key, and opened with any: 64 hexadecimal digits that only the file's
                    owner may read, the same on all nodes. `od -An -tx1 -N32 /dev/urandom | tr -d ' \n'` makes one
                    FILE is what a node begins with: it writes later ones to DIR/gossip-keys of --state, and what was retired does not come back by FILE
  gossip-key rotate all nodes change to a new key, without one lost; the nodes of --without do not get it. Who is away meanwhile, or new, needs it in a
                    file: the digits of a key in the gossip-keys of another node
  --dir DIR         what the node has in its kernel is named here, and its socket is here: /run/overlay
  --state DIR       the node's id is here, and a manager's catalogue: /var/lib/overlay
  --socket PATH     of the node that is spoken with: /run/overlay/control.sock
  --json            answers for programs, and errors too: docs/CLI.md says how they look
  completion        a script by which a shell completes commands, flags and names that the node knows: source <(overlay-node completion bash)
  --metrics PORT    the node's counts for Prometheus, at http://127.0.0.1:PORT/metrics; or IP:PORT, for whoever can reach that: docs/METRICS.md
  -p                a port of the containers that is reached from outside: in mode ingress at every node, in mode local at nodes with a container of the
                    service and by those, in mode host the same without the mesh. Containers see who asks, or with source=masquerade the node that is
                    asked: for virtual machines, and containers with marks and routes of their own. What allow= says is of who asks all the same
  attach            what it gives names to asks for them at 127.0.0.11: the container's resolv.conf has to say so, which is its runtime's to write
  attach            of a container of a service that publishes in mode ingress or local: to the ingress network too, by an endpoint of its own there,
                    which goes with this one, and is drained with it: see network inspect, and status
  drain             names, VIPs and published ports lead elsewhere from now on, on all nodes; waits until what the endpoint has is done, for
                    30 seconds if nothing else is said, and tells what a detach would cut. It gets nothing new after either, until resume
  explain           how an endpoint of this node reaches a name or an address, or what becomes of a client that asks for a published port at an
                    address of this node, and comes in by an interface, or is on the node itself; what is in the way, and what mends it
  rotate-keys       this node's keys of encrypted networks are changed for others now, without a packet lost, as they are from time to time and after
                    much use: see status
  --backend userspace   this process carries the containers' packets, in place of the kernel: none while it is away
  --replicas N      waits until so many containers that are attached with --service are ready
  --scheduler NAME  round-robin, weighted-round-robin, source-hash, maglev; least-connection, weighted-least-connection
                    where all nodes can
  --affinity SECONDS    a client comes back to the replica that it had last, within so long
  --idle SECONDS[,SECONDS,SECONDS]  how long flows may be idle: connections that stand, that open or close, datagrams

Ended by a signal, a node leaves what it has made; the next start goes on with it.";

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    Help,
    Completion(Shell),
    /// What the last of these words may be.
    Complete(Vec<String>),
    Run(Run),
    Command {
        socket: PathBuf,
        json: bool,
        command: Command,
    },
}

/// A node.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: Name,
    pub(crate) address: SocketAddr,
    /// Whether it keeps the catalogue by itself, without a cluster that was founded.
    pub(crate) is_manager: bool,
    /// The socket of the manager; none for a manager itself.
    pub(crate) manager: Option<PathBuf>,
    pub(crate) join: Vec<SocketAddr>,
    /// Files with the keys that gossip is sealed with.
    pub(crate) keys: Vec<PathBuf>,
    pub(crate) dir: PathBuf,
    pub(crate) state: PathBuf,
    /// Whether the node carries its containers' packets itself, in place of the kernel.
    pub(crate) in_user_space: bool,
    /// Where its counts are asked for.
    pub(crate) metrics: Option<SocketAddr>,
}

/// What is asked of a running node.
#[derive(Debug)]
pub(crate) enum Command {
    Create(Box<NetworkSpec>),
    Networks,
    Inspect(String),
    Remove {
        network: String,
        yes: bool,
    },
    Serve(Serve),
    Services,
    Service(String),
    Unserve(String),
    Drain {
        endpoint: EndpointId,
        deadline: Option<Duration>,
    },
    Watch(String),
    /// What the node itself is asked.
    Node(NodeQuestion),
    /// What the cluster is asked.
    Member(Member),
}

/// A service that is to be.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) name: Name,
    pub(crate) networks: Vec<String>,
    pub(crate) mode: EndpointMode,
    pub(crate) ports: Vec<PublishedPort>,
    pub(crate) balancing: Balancing,
    /// How many of its containers are waited for.
    pub(crate) replicas: usize,
}

pub(crate) type Read<T> = Result<T, lexopt::Error>;

pub(crate) fn parse(parser: Parser) -> Read<Asked> {
    match asked(parser) {
        Err(lexopt::Error::Custom(wrong)) if wrong.is::<HelpAsked>() => Ok(Asked::Help),
        asked => asked,
    }
}

fn asked(mut parser: Parser) -> Read<Asked> {
    let (mut socket, mut json) = (PathBuf::from("/run/overlay/control.sock"), false);
    while let Some(argument) = parser.next()? {
        let command = match argument {
            Arg::Long("socket") => {
                socket = parser.value()?.into();
                continue;
            }
            Arg::Long("json") => {
                json = true;
                continue;
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Asked::Help),
            Arg::Value(word) => word.string()?,
            other => return Err(other.unexpected()),
        };
        match command.as_str() {
            "run" => return run(parser).map(Asked::Run),
            "completion" => return completion(parser).map(Asked::Completion),
            "complete" => return words_to_complete(&mut parser).map(Asked::Complete),
            _ => {}
        }
        let (command, more) = self::command(&command, parser)?;
        return Ok(Asked::Command { socket, json: json || more, command });
    }
    Err("a command is missing".into())
}

fn completion(mut parser: Parser) -> Read<Shell> {
    let word = match parser.next()? {
        Some(Arg::Value(word)) => word.string()?,
        _ => String::new(),
    };
    Shell::of(&word).ok_or_else(|| "name a shell: completion bash, zsh or fish".into())
}

/// All that stands behind the word, whatever it looks like.
fn words_to_complete(parser: &mut Parser) -> Read<Vec<String>> {
    let mut words: Vec<_> = parser.raw_args()?.map(|word| word.to_string_lossy().into_owned()).collect();
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    Ok(words)
}

fn run(mut parser: Parser) -> Read<Run> {
    let (mut name, mut address, mut manager, mut is_manager) = (None, None, None, false);
    let (mut join, mut keys) = (Vec::new(), Vec::new());
    let (mut dir, mut state) = (PathBuf::from("/run/overlay"), PathBuf::from("/var/lib/overlay"));
    let (mut in_user_space, mut metrics) = (false, None);
    let verb = verb(&["run"])?;
    while let Some(argument) = parser.next()? {
        verb.admit(&argument)?;
        match argument {
            Arg::Long("name") => name = Some(value(&mut parser)?),
            Arg::Long("address") => address = Some(parser.value()?.parse_with(address_of)?),
            Arg::Long("manager") => is_manager = true,
            Arg::Long("manager-socket") => manager = Some(parser.value()?.into()),
            Arg::Long("join") => join.push(parser.value()?.parse_with(address_of)?),
            Arg::Long("gossip-key") => keys.push(parser.value()?.into()),
            Arg::Long("dir") => dir = parser.value()?.into(),
            Arg::Long("state") => state = parser.value()?.into(),
            Arg::Long("metrics") => metrics = Some(parser.value()?.parse_with(metrics::address)?),
            Arg::Long("backend") => match value::<String>(&mut parser)?.as_str() {
                "kernel" => in_user_space = false,
                "userspace" => in_user_space = true,
                other => return Err(format!("there is no backend {other}: kernel, userspace").into()),
            },
            other => return Err(other.unexpected()),
        }
    }
    if is_manager && manager.is_some() {
        return Err("run takes either --manager or --manager-socket".into());
    }
    let name = name.ok_or("run needs --name")?;
    let address = address.ok_or("run needs --address")?;
    Ok(Run { name, address, is_manager, manager, join, keys, dir, state, in_user_space, metrics })
}

/// A command of the table.
fn verb(words: &[&str]) -> Read<&'static Verb> {
    Verb::of(words).ok_or_else(|| format!("there is no command {}: see --help", words.join(" ")).into())
}

/// A command, and whether `--json` stood behind it.
fn command(word: &str, mut parser: Parser) -> Read<(Command, bool)> {
    let mut words = Words::default();
    let second = match Verb::has_second(word) {
        true => match parser.next()? {
            Some(Arg::Value(word)) => word.string()?,
            _ => return Err(format!("{word} needs a word behind it: see --help").into()),
        },
        false => String::new(),
    };
    let both = [word, &second];
    let verb = verb(&both[..if second.is_empty() { 1 } else { 2 }])?;
    if word == "node" && second != "rotate-keys" {
        let (member, json) = members::parse(verb, &second, &mut parser)?;
        return Ok((Command::Member(member), json));
    }
    words.read(verb, &mut parser)?;
    if verb.places.is_empty() && second != "create" {
        words.nothing_else(verb)?; // `service create` says more of it
    }
    let json = words.json;
    let command = match (word, second.as_str()) {
        ("network", "create") => Command::Create(Box::new(words.network()?)),
        ("network", "ls") => Command::Networks,
        ("network", "inspect") => Command::Inspect(words.only("a network")?),
        ("network", "rm") => Command::Remove { yes: words.yes, network: words.only("a network")? },
        ("service", "create") => words.serve()?,
        ("service", "ls") => Command::Services,
        ("service", "inspect") => Command::Service(words.only("a service")?),
        ("service", "rm") => Command::Unserve(words.only("a service")?),
        ("service", "watch") => Command::Watch(words.only("a service")?),
        ("attach", _) => words.attach()?,
        ("drain", _) => Command::Drain { deadline: words.deadline, endpoint: words.endpoint()? },
        ("resume", _) => Command::Node(NodeQuestion::Resume(words.endpoint()?)),
        ("detach", _) => Command::Node(NodeQuestion::Detach(words.endpoint()?)),
        ("explain", _) => Command::Node(words.explain()?),
        ("node", "rotate-keys") => Command::Node(NodeQuestion::RotateKeys),
        ("gossip-key", "rotate") => {
            Command::Node(NodeQuestion::RotateGossipKey { without: std::mem::take(&mut words.without) })
        }
        ("status", _) => Command::Node(NodeQuestion::Status),
        ("teardown", _) => Command::Node(NodeQuestion::TearDown { force: words.force }),
        _ => return Err(format!("there is no command {word} {second}: see --help").into()),
    };
    Ok((command, json))
}

/// An address, at the usual port if none is named.
fn address_of(text: &str) -> Result<SocketAddr, String> {
    let usual = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, Port::GOSSIP.get()));
    usual.or_else(|_| text.parse()).map_err(|_| format!("{text} is no address: IP or IP:PORT"))
}

#[cfg(test)]
mod tests {
    use overlay_core::NodeId;
    use overlay_ipam::Gateway;
    use overlay_link::MacvlanMode;
    use overlay_node::{Encryption, Kind};

    use super::*;

    fn parsed(text: &str) -> Result<Asked, String> {
        let words = std::iter::once("overlay-node").chain(text.split_whitespace());
        parse(Parser::from_iter(words)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_missions_commands_are_read() {
        let text = "network create -d overlay --ingress --subnet=172.16.0.0/16 --gateway=172.16.0.1 my-ingress";
        let Ok(Asked::Command { command: Command::Create(spec), json: false, .. }) = parsed(text) else {
            panic!("{:?}", parsed(text))
        };
        assert!(spec.ingress && !spec.attachable && spec.name.as_str() == "my-ingress");
        assert_eq!(spec.subnets[0].gateway, Gateway::This([172, 16, 0, 1].into()));
        let text = "--json network create --opt encrypted --driver overlay --attachable front";
        let Ok(Asked::Command { command: Command::Create(spec), json: true, .. }) = parsed(text) else {
            panic!("{:?}", parsed(text))
        };
        assert!(spec.encryption == Encryption::Shared && spec.attachable);
        let text = "network create -d macvlan --subnet 192.0.2.0/24 --ip-range 192.0.2.64/28 --aux-address nas=192.0.2.65 \
                    --opt parent=eth0 --opt macvlan_mode=private lan";
        let Ok(Asked::Command { command: Command::Create(spec), .. }) = parsed(text) else {
            panic!("{:?}", parsed(text))
        };
        let parent = "eth0".parse().unwrap();
        assert_eq!(spec.kind, Kind::Macvlan { parent, mode: MacvlanMode::Private });
        assert_eq!((spec.subnets[0].auxiliary.len(), spec.subnets[0].endpoints.is_some()), (1, true));
        let text = "service create --name web --network front --scheduler source-hash --affinity 60 --idle 30,10,5";
        let Ok(Asked::Command { command: Command::Serve(serve), .. }) = parsed(text) else {
            panic!("{:?}", parsed(text))
        };
        let said = (serve.balancing.scheduler, serve.balancing.affinity.map(|it| it.timeout.as_secs()));
        assert_eq!(said, (overlay_lb::Scheduler::SourceHash, Some(60)));
        assert_eq!(serve.balancing.timeouts.map(|it| it.transitory.as_secs()), Some(10));
        let text = "attach front --name web-1 --tap --service web --weight 3";
        let Ok(Asked::Command { command: Command::Node(NodeQuestion::Attach { weight, .. }), .. }) = parsed(text)
        else {
            panic!("{:?}", parsed(text))
        };
        assert_eq!(weight.get(), 3);
        let text = format!("drain {} --deadline 5", EndpointId::from_bytes([7; 16]));
        let Ok(Asked::Command { command: Command::Drain { deadline, .. }, .. }) = parsed(&text) else {
            panic!("{:?}", parsed(&text))
        };
        assert_eq!(deadline, Some(Duration::from_secs(5)));
        let text = "explain published 53/udp --client 192.0.2.9 --at 192.0.2.1 --interface eth0";
        let Ok(Asked::Command {
            command: Command::Node(NodeQuestion::ExplainPublished { by, protocol, port, .. }),
            ..
        }) = parsed(text)
        else {
            panic!("{:?}", parsed(text))
        };
        assert_eq!((by, protocol, port.get()), ("eth0".parse().ok(), overlay_core::Protocol::Udp, 53));
        let text = format!("explain {} db", EndpointId::from_bytes([7; 16]));
        let Ok(Asked::Command { command: Command::Node(NodeQuestion::Explain(_, to)), .. }) = parsed(&text) else {
            panic!("{:?}", parsed(&text))
        };
        assert_eq!(to, "db");
        assert!(matches!(
            parsed("network ls --json"),
            Ok(Asked::Command { command: Command::Networks, json: true, .. })
        ));
        let Ok(Asked::Run(run)) = parsed("run --name a --address 192.0.2.1 --manager --join 192.0.2.2:1") else {
            panic!("run")
        };
        assert_eq!((run.address.port(), run.join[0].port(), run.manager), (7946, 1, None));
    }

    #[test]
    fn who_gets_no_key_is_named_by_its_id() {
        let text = format!("gossip-key rotate --without {}", NodeId::from_bytes([7; 16]));
        let Ok(Asked::Command { command: Command::Node(NodeQuestion::RotateGossipKey { without }), .. }) =
            parsed(&text)
        else {
            panic!("{:?}", parsed(&text))
        };
        assert_eq!(without, [NodeId::from_bytes([7; 16])]);
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        for text in ["--help", "-h", "network create --help", "run -h", "node join --token --help", "attach front -h"] {
            let asked = parsed(text);
            assert_eq!(matches!(asked, Ok(Asked::Help)), !text.contains("--token"), "{text}: {asked:?}");
        }
        assert!(matches!(parsed("complete -- network --help"), Ok(Asked::Complete(_))));
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        for (text, why) in [
            ("", "a command is missing"),
            ("network", "network needs a word behind it"),
            ("network fly", "there is no command network fly"),
            ("network create -d ipvlan x", "there is no driver ipvlan: overlay, bridge, macvlan"),
            ("network create -d macvlan x", "--opt parent=INTERFACE"),
            ("network create -o parent=eth0 x", "--opt parent= is for -d macvlan"),
            ("network create -d bridge -o macvlan_mode=vepa x", "is for -d macvlan"),
            ("network create -d macvlan -o parent=eth0 -o macvlan_mode=both x", "macvlan mode"),
            ("network create -o fast x", "there is no option fast"),
            ("network create --gateway 10.0.0.1 x", "10.0.0.1"),
            ("network create", "name the network, and nothing else"),
            ("service create nginx", "nginx is not understood"),
            ("run --name a --backend memory", "there is no backend memory"),
            ("service create --replicas 2", "service create needs --name"),
            ("service create --name web --endpoint-mode both", "there is no endpoint mode both"),
            ("service create --name web -p 10.0.0.1:80:80", "hostip is not supported"),
            ("service create --name web -p published=80", "missing mandatory field 'target'"),
            ("service create --name web --scheduler fair", "there is no scheduler fair"),
            ("service create --name web --affinity -1", "-1"),
            ("service create --name web --idle 1,2", "one for all, or three"),
            ("attach front --name web --tap --weight 0", "1 to 65535"),
            ("attach front --name web", "--netns, --pid or --tap"),
            ("run --name a --address 192.0.2.1 --manager --manager-socket s", "either --manager or --manager-socket"),
            ("explain published 80 --at 192.0.2.1", "explain published needs --client"),
            ("explain published 80/icmp --client 192.0.2.9 --at 192.0.2.1", "a protocol is tcp, udp or sctp"),
            ("explain db", "name an endpoint, and a name or an address"),
            ("drain", "name an endpoint, and nothing else"),
            ("gossip-key rotate now", "now is not understood behind gossip-key rotate"),
            ("teardown front", "front is not understood behind teardown"),
            ("status all", "all is not understood behind status"),
            ("network ls front", "front is not understood behind network ls"),
            ("service ls --json web", "web is not understood behind service ls"),
            ("node rotate-keys now", "now is not understood behind node rotate-keys"),
            ("run --name a --address here", "here is no address: IP or IP:PORT"),
            ("explain published 70000 --client 192.0.2.9 --at 192.0.2.1", "70000 is no port: 1 to 65535"),
            ("explain published 0 --client 192.0.2.9 --at 192.0.2.1", "0 is no port: 1 to 65535"),
            ("gossip-key rotate --without me", "me"),
            ("status --fast", "--fast"),
            ("node ls all", "all is not understood behind node ls"),
            ("node leave now", "now is not understood behind node leave"),
            ("node token show", "show is not understood behind node token"),
            ("node token rotate worker", "rotate is not understood behind node token"),
            ("node ca renew", "renew is not understood behind node ca"),
            ("node init here --address 192.0.2.1", "here is not understood behind node init"),
            ("node init --address 0.0.0.0", "nobody can call 0.0.0.0: give an address of this host"),
            ("node rm a b", "name one node, and nothing else"),
            ("node unlock SWMKEY-1-x", "SWMKEY-1-x is not understood behind node unlock"),
            ("node ls --rotate", "--rotate is not understood behind node ls"),
            ("node ls --force", "--force is not understood behind node ls"),
        ] {
            let said = parsed(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
