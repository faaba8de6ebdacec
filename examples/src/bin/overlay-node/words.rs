//! The flags and words of a command, and what it makes of them.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};
use overlay_core::{EndpointId, IfName, Mac, Name, NodeId, Port};
use overlay_driver::Source;
use overlay_ipam::SubnetOptions;
use overlay_lb::{Affinity, Weight};
use overlay_link::MacvlanMode;
use overlay_node::{Balancing, Encryption, EndpointMode, Kind, NetworkSpec, PublishedPort};

use crate::arguments::{Command, Read, Serve};
use crate::balancing::{idle, scheduler, seconds};
use crate::question::NodeQuestion;
use crate::verbs::Verb;

/// Flags and words behind a command.
#[derive(Debug, Default)]
pub(crate) struct Words {
    pub(crate) json: bool,
    pub(crate) yes: bool,
    pub(crate) force: bool,
    attachable: bool,
    internal: bool,
    ingress: bool,
    encryption: Encryption,
    driver: Driver,
    parent: Option<IfName>,
    mode: Option<MacvlanMode>,
    subnets: SubnetOptions,
    name: Option<Name>,
    source: Option<Source>,
    interface: Option<String>,
    ips: Vec<IpAddr>,
    mac: Option<Mac>,
    service: Option<String>,
    networks: Vec<String>,
    dnsrr: bool,
    ports: Vec<PublishedPort>,
    balancing: Balancing,
    weight: Weight,
    replicas: usize,
    pub(crate) deadline: Option<Duration>,
    client: Option<IpAddr>,
    at: Option<IpAddr>,
    pub(crate) without: Vec<NodeId>,
    words: Vec<String>,
}

/// What makes networks, as Docker calls it.
#[derive(Debug, Clone, Copy, Default)]
enum Driver {
    #[default]
    Overlay,
    Bridge,
    Macvlan,
}

impl FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "overlay" => Ok(Self::Overlay),
            "bridge" => Ok(Self::Bridge),
            "macvlan" => Ok(Self::Macvlan),
            _ => Err(format!("there is no driver {text}: overlay, bridge, macvlan")),
        }
    }
}

trait FromAny {
    fn from_any(error: impl std::error::Error + Send + Sync + 'static) -> Self;
}

impl FromAny for lexopt::Error {
    fn from_any(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Custom(Box::new(error))
    }
}

pub(crate) fn value<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(parser: &mut Parser) -> Read<T> {
    parser.value()?.parse()
}

fn port_of(text: &str) -> Read<Port> {
    let port = text.parse().ok().and_then(|number| Port::new(number).ok());
    port.ok_or_else(|| format!("{text} is no port: 1 to 65535").into())
}

impl Words {
    pub(crate) fn read(&mut self, verb: &Verb, parser: &mut Parser) -> Read<()> {
        while let Some(argument) = parser.next()? {
            verb.admit(&argument)?;
            match argument {
                Arg::Long("json") => self.json = true,
                Arg::Long("yes") | Arg::Short('y') => self.yes = true,
                Arg::Long("force") => self.force = true,
                Arg::Long("attachable") => self.attachable = true,
                Arg::Long("internal") => self.internal = true,
                Arg::Long("ingress") => self.ingress = true,
                Arg::Long("driver") | Arg::Short('d') => self.driver = parser.value()?.parse()?,
                Arg::Long("opt") | Arg::Short('o') => self.option(&parser.value()?.string()?)?,
                Arg::Long("subnet") => self.subnets.subnets.push(value(parser)?),
                Arg::Long("ip-range") => self.subnets.ranges.push(value(parser)?),
                Arg::Long("gateway") => self.subnets.gateways.push(value(parser)?),
                Arg::Long("aux-address") => self.auxiliary(&parser.value()?.string()?)?,
                Arg::Long("name") => self.name = Some(value(parser)?),
                Arg::Long("netns") => self.source = Some(Source::Path(parser.value()?.into())),
                Arg::Long("pid") => self.source = Some(Source::Process(value(parser)?)),
                Arg::Long("tap") => self.source = Some(Source::Tap),
                Arg::Long("interface") => self.interface = Some(parser.value()?.string()?),
                Arg::Long("ip") => self.ips.push(value(parser)?),
                Arg::Long("mac") => self.mac = Some(value(parser)?),
                Arg::Long("service") => self.service = Some(parser.value()?.string()?),
                Arg::Long("network") => self.networks.push(parser.value()?.string()?),
                Arg::Long("publish") | Arg::Short('p') => {
                    let text = parser.value()?.string()?;
                    self.ports.extend(PublishedPort::read(&text).map_err(lexopt::Error::from_any)?);
                }
                Arg::Long("deadline") => self.deadline = Some(parser.value()?.parse_with(seconds)?),
                Arg::Long("client") => self.client = Some(value(parser)?),
                Arg::Long("without") => self.without.push(value(parser)?),
                Arg::Long("at") => self.at = Some(value(parser)?),
                Arg::Long("replicas") => self.replicas = value(parser)?,
                Arg::Long("weight") => self.weight = Weight::new(value(parser)?).map_err(lexopt::Error::from_any)?,
                Arg::Long("scheduler") => self.balancing.scheduler = parser.value()?.parse_with(scheduler)?,
                Arg::Long("affinity") => {
                    self.balancing.affinity = Some(Affinity { timeout: parser.value()?.parse_with(seconds)? });
                }
                Arg::Long("idle") => self.balancing.timeouts = Some(parser.value()?.parse_with(idle)?),
                Arg::Long("endpoint-mode") => match parser.value()?.string()?.as_str() {
                    "vip" => self.dnsrr = false,
                    "dnsrr" => self.dnsrr = true,
                    other => return Err(format!("there is no endpoint mode {other}: vip, dnsrr").into()),
                },
                Arg::Value(word) => self.words.push(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    }

    /// An option of a driver: a word, or `NAME=VALUE`.
    fn option(&mut self, text: &str) -> Read<()> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("encrypted", "" | "true") => self.encryption = Encryption::Shared,
            ("encrypted", "own") => self.encryption = Encryption::Own,
            ("parent", parent) => self.parent = Some(parent.parse().map_err(lexopt::Error::from_any)?),
            ("macvlan_mode", mode) => self.mode = Some(mode.parse().map_err(lexopt::Error::from_any)?),
            _ => {
                return Err(
                    format!("there is no option {text}: encrypted, encrypted=own, parent=, macvlan_mode=").into()
                );
            }
        }
        Ok(())
    }

    fn auxiliary(&mut self, text: &str) -> Read<()> {
        let (name, address) = text.split_once('=').ok_or_else(|| format!("{text} is not NAME=IP"))?;
        let name: Name = name.parse().map_err(lexopt::Error::from_any)?;
        let address = address.parse().map_err(lexopt::Error::from_any)?;
        match self.subnets.auxiliary.insert(name, address) {
            Some(first) => Err(format!("{text}: that is the name of {first}").into()),
            None => Ok(()),
        }
    }

    fn kind(&self) -> Read<Kind> {
        match (self.driver, self.parent) {
            (Driver::Macvlan, Some(parent)) => Ok(Kind::Macvlan { parent, mode: self.mode.unwrap_or_default() }),
            (Driver::Macvlan, None) => Err("a macvlan network needs --opt parent=INTERFACE".into()),
            (_, Some(_)) => Err("--opt parent= is for -d macvlan".into()),
            _ if self.mode.is_some() => Err("--opt macvlan_mode= is for -d macvlan".into()),
            (Driver::Overlay, None) => Ok(Kind::Overlay),
            (Driver::Bridge, None) => Ok(Kind::Bridge),
        }
    }

    pub(crate) fn endpoint(&mut self) -> Read<EndpointId> {
        self.only("an endpoint")?.parse().map_err(lexopt::Error::from_any)
    }

    pub(crate) fn explain(&mut self) -> Read<NodeQuestion> {
        match std::mem::take(&mut self.words).as_slice() {
            [what, port] if what == "published" => {
                let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                Ok(NodeQuestion::ExplainPublished {
                    client: self.client.ok_or("explain published needs --client")?,
                    at: self.at.ok_or("explain published needs --at, an address of the node")?,
                    by: self.interface.take().map(|name| name.parse()).transpose().map_err(lexopt::Error::from_any)?,
                    protocol: protocol.parse().map_err(lexopt::Error::from_any)?,
                    port: port_of(port)?,
                })
            }
            [endpoint, to] => {
                let endpoint = endpoint.parse().map_err(lexopt::Error::from_any)?;
                Ok(NodeQuestion::Explain(endpoint, to.clone()))
            }
            _ => Err("name an endpoint, and a name or an address; or: published, and a port".into()),
        }
    }

    pub(crate) fn only(&mut self, what: &str) -> Read<String> {
        match std::mem::take(&mut self.words).as_mut_slice() {
            [word] => Ok(std::mem::take(word)),
            _ => Err(format!("name {what}, and nothing else").into()),
        }
    }

    pub(crate) fn nothing_else(&self, verb: &Verb) -> Read<()> {
        let wrong = |stray| format!("{stray} is not understood behind {}: see --help", verb.words.join(" "));
        self.words.first().map_or(Ok(()), |stray| Err(wrong(stray).into()))
    }

    pub(crate) fn network(&mut self) -> Read<NetworkSpec> {
        let name = self.only("the network")?.parse().map_err(lexopt::Error::from_any)?;
        Ok(NetworkSpec {
            subnets: self.subnets.requests().map_err(lexopt::Error::from_any)?,
            attachable: self.attachable,
            internal: self.internal,
            ingress: self.ingress,
            encryption: self.encryption,
            ..NetworkSpec::of(self.kind()?, name)
        })
    }

    pub(crate) fn serve(&mut self) -> Read<Command> {
        if let Some(stray) = self.words.first() {
            return Err(format!("{stray} is not understood: a service's containers are attached with --service").into());
        }
        Ok(Command::Serve(Serve {
            name: self.name.take().ok_or("service create needs --name")?,
            networks: std::mem::take(&mut self.networks),
            ports: std::mem::take(&mut self.ports),
            mode: if self.dnsrr { EndpointMode::RoundRobin } else { EndpointMode::Vip },
            balancing: self.balancing,
            replicas: self.replicas,
        }))
    }

    pub(crate) fn attach(&mut self) -> Read<Command> {
        Ok(Command::Node(NodeQuestion::Attach {
            network: self.only("the network")?,
            container: self.name.take().ok_or("attach needs --name")?,
            source: self.source.take().ok_or("attach needs --netns, --pid or --tap")?,
            interface: self.interface.take(),
            ips: std::mem::take(&mut self.ips),
            mac: self.mac,
            service: self.service.take(),
            weight: self.weight,
        }))
    }
}
