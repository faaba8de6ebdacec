//! What is typed after the program's name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use lexopt::{Arg, Parser, ValueExt as _};
use overlay_core::{Mac, Name, Port};
use overlay_driver::Source;
use overlay_ipam::{Gateway, SubnetRequest};
use overlay_node::NetworkSpec;

use crate::question::NodeQuestion;

/// How it is called.
pub(crate) const USAGE: &str = "\
usage: overlay-node run --name NAME --address IP[:PORT] (--manager | --manager-socket PATH)
                        [--join IP:PORT]... [--dir DIR] [--state DIR]
       overlay-node [--socket PATH] [--json] COMMAND

  network create [-d overlay] [--attachable] [--internal] [--ingress] [--subnet NET]... [--gateway IP]...
                 [--opt encrypted] NAME
  network ls
  network inspect NETWORK
  network rm [--yes] NETWORK
  attach NETWORK --name CONTAINER (--netns PATH | --pid PID | --tap) [--interface NAME] [--ip IP]... [--mac MAC]
  detach ENDPOINT
  node ls
  status
  teardown          removes all that the node has made, takes it from the cluster, and ends it

  --dir DIR         what the node has in its kernel is named here, and its socket is here: /run/overlay
  --state DIR       the node's id is here, and a manager's catalogue: /var/lib/overlay
  --socket PATH     of the node that is spoken with: /run/overlay/control.sock
  --json            answers for programs

Ended by a signal, a node leaves what it has made; the next start goes on with it.";

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    Help,
    Run(Run),
    Command { socket: PathBuf, json: bool, command: Command },
}

/// A node.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: Name,
    pub(crate) address: SocketAddr,
    /// The socket of the manager; none for a manager itself.
    pub(crate) manager: Option<PathBuf>,
    pub(crate) join: Vec<SocketAddr>,
    pub(crate) dir: PathBuf,
    pub(crate) state: PathBuf,
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
    /// What the node itself is asked.
    Node(NodeQuestion),
    Nodes,
}

type Read<T> = Result<T, lexopt::Error>;

pub(crate) fn parse(mut parser: Parser) -> Read<Asked> {
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
        if command == "run" {
            return run(parser).map(Asked::Run);
        }
        let (command, more) = self::command(&command, parser)?;
        return Ok(Asked::Command { socket, json: json || more, command });
    }
    Err("a command is missing".into())
}

fn run(mut parser: Parser) -> Read<Run> {
    let (mut name, mut address, mut manager, mut is_manager) = (None, None, None, false);
    let (mut join, mut dir, mut state) = (Vec::new(), PathBuf::from("/run/overlay"), PathBuf::from("/var/lib/overlay"));
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("name") => name = Some(value(&mut parser)?),
            Arg::Long("address") => address = Some(parser.value()?.parse_with(address_of)?),
            Arg::Long("manager") => is_manager = true,
            Arg::Long("manager-socket") => manager = Some(parser.value()?.into()),
            Arg::Long("join") => join.push(parser.value()?.parse_with(address_of)?),
            Arg::Long("dir") => dir = parser.value()?.into(),
            Arg::Long("state") => state = parser.value()?.into(),
            other => return Err(other.unexpected()),
        }
    }
    if is_manager == manager.is_some() {
        return Err("run needs either --manager or --manager-socket".into());
    }
    let name = name.ok_or("run needs --name")?;
    let address = address.ok_or("run needs --address")?;
    Ok(Run { name, address, manager, join, dir, state })
}

/// A command, and whether `--json` stood behind it.
fn command(word: &str, mut parser: Parser) -> Read<(Command, bool)> {
    let mut words = Words::default();
    let second = match word {
        "network" | "node" => match parser.next()? {
            Some(Arg::Value(word)) => word.string()?,
            _ => return Err(format!("{word} needs a word behind it: see --help").into()),
        },
        _ => String::new(),
    };
    words.read(&mut parser)?;
    let json = words.json;
    let command = match (word, second.as_str()) {
        ("network", "create") => Command::Create(Box::new(words.network()?)),
        ("network", "ls") => Command::Networks,
        ("network", "inspect") => Command::Inspect(words.only("a network")?),
        ("network", "rm") => Command::Remove { yes: words.yes, network: words.only("a network")? },
        ("attach", _) => words.attach()?,
        ("detach", _) => {
            Command::Node(NodeQuestion::Detach(words.only("an endpoint")?.parse().map_err(lexopt::Error::from_any)?))
        }
        ("node", "ls") => Command::Nodes,
        ("status", _) => Command::Node(NodeQuestion::Status),
        ("teardown", _) => Command::Node(NodeQuestion::TearDown),
        _ => return Err(format!("there is no command {word} {second}: see --help").into()),
    };
    Ok((command, json))
}

/// Flags and words behind a command.
#[derive(Debug, Default)]
struct Words {
    json: bool,
    yes: bool,
    attachable: bool,
    internal: bool,
    ingress: bool,
    encrypted: bool,
    subnets: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    name: Option<Name>,
    source: Option<Source>,
    interface: Option<String>,
    ips: Vec<IpAddr>,
    mac: Option<Mac>,
    words: Vec<String>,
}

trait FromAny {
    fn from_any(error: impl std::error::Error + Send + Sync + 'static) -> Self;
}

impl FromAny for lexopt::Error {
    fn from_any(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Custom(Box::new(error))
    }
}

fn value<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(parser: &mut Parser) -> Read<T> {
    parser.value()?.parse()
}

/// An address, at the usual port if none is named.
fn address_of(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, Port::GOSSIP.get())).or_else(|_| text.parse())
}

impl Words {
    fn read(&mut self, parser: &mut Parser) -> Read<()> {
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("json") => self.json = true,
                Arg::Long("yes") | Arg::Short('y') => self.yes = true,
                Arg::Long("attachable") => self.attachable = true,
                Arg::Long("internal") => self.internal = true,
                Arg::Long("ingress") => self.ingress = true,
                Arg::Long("driver") | Arg::Short('d') => match parser.value()?.string()?.as_str() {
                    "overlay" => {}
                    other => return Err(format!("there is no driver {other}: only overlay").into()),
                },
                Arg::Long("opt") => match parser.value()?.string()?.as_str() {
                    "encrypted" => self.encrypted = true,
                    other => return Err(format!("there is no option {other}: only encrypted").into()),
                },
                Arg::Long("subnet") => self.subnets.push(value(parser)?),
                Arg::Long("gateway") => self.gateways.push(value(parser)?),
                Arg::Long("name") => self.name = Some(value(parser)?),
                Arg::Long("netns") => self.source = Some(Source::Path(parser.value()?.into())),
                Arg::Long("pid") => self.source = Some(Source::Process(value(parser)?)),
                Arg::Long("tap") => self.source = Some(Source::Tap),
                Arg::Long("interface") => self.interface = Some(parser.value()?.string()?),
                Arg::Long("ip") => self.ips.push(value(parser)?),
                Arg::Long("mac") => self.mac = Some(value(parser)?),
                Arg::Value(word) => self.words.push(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    }

    fn only(&mut self, what: &str) -> Read<String> {
        match std::mem::take(&mut self.words).as_mut_slice() {
            [word] => Ok(std::mem::take(word)),
            _ => Err(format!("name {what}, and nothing else").into()),
        }
    }

    fn network(&mut self) -> Read<NetworkSpec> {
        let name = self.only("the network")?.parse().map_err(lexopt::Error::from_any)?;
        let mut gateways = std::mem::take(&mut self.gateways);
        let subnets = std::mem::take(&mut self.subnets).into_iter().map(|net| {
            let own = gateways.iter().position(|gateway| net.contains(gateway)).map(|at| gateways.swap_remove(at));
            let gateway = own.map_or(Gateway::First, Gateway::This);
            SubnetRequest { gateway, ..SubnetRequest::this(net) }
        });
        let subnets = subnets.collect();
        if let Some(stray) = gateways.first() {
            return Err(format!("gateway {stray} is in no subnet that is named").into());
        }
        Ok(NetworkSpec {
            subnets,
            attachable: self.attachable,
            internal: self.internal,
            ingress: self.ingress,
            encrypted: self.encrypted,
            ..NetworkSpec::overlay(name)
        })
    }

    fn attach(&mut self) -> Read<Command> {
        Ok(Command::Node(NodeQuestion::Attach {
            network: self.only("the network")?,
            container: self.name.take().ok_or("attach needs --name")?,
            source: self.source.take().ok_or("attach needs --netns, --pid or --tap")?,
            interface: self.interface.take(),
            ips: std::mem::take(&mut self.ips),
            mac: self.mac,
        }))
    }
}

#[cfg(test)]
mod tests {
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
        assert!(spec.encrypted && spec.attachable);
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
    fn what_is_wrong_is_said_by_name() {
        for (text, why) in [
            ("", "a command is missing"),
            ("network", "network needs a word behind it"),
            ("network fly", "there is no command network fly"),
            ("network create -d bridge x", "there is no driver bridge"),
            ("network create --gateway 10.0.0.1 x", "gateway 10.0.0.1 is in no subnet"),
            ("network create", "name the network, and nothing else"),
            ("attach front --name web", "--netns, --pid or --tap"),
            ("run --name a --address 192.0.2.1", "either --manager or --manager-socket"),
            ("status --fast", "--fast"),
        ] {
            let said = parsed(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
