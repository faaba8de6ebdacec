//! Published ports as they are typed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use overlay_core::{Name, Port, Protocol};

use crate::{Access, AccessError, ClientSource, PublishMode, PublishedPort};

/// Why a text is no published port: what is wrong with it, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// An address stands before the ports.
    #[error(
        "hostip is not supported: {0} publishes at all addresses of a node; leave the address out, or write fields with host_ip=ADDRESS"
    )]
    HostAddress(String),
    /// Where the container listens is not said.
    #[error("missing mandatory field 'target': say the container's port")]
    NoTarget,
    /// A mode that there is not.
    #[error(
        "invalid publish mode value ({0}): must be either 'ingress' or 'host', or 'local' for containers of the node that is asked"
    )]
    Mode(String),
    /// A source that there is not.
    #[error(
        "invalid source '{0}': must be 'client', whom containers see then, or 'masquerade' for the node that takes the client in"
    )]
    Source(String),
    /// A protocol that there is not.
    #[error("invalid protocol value '{0}': must be one of tcp, udp, sctp")]
    Protocol(String),
    /// A field that there is not.
    #[error(
        "invalid field key: {0}: fields are target, published, protocol, mode, source, name, host_ip, interface, node and allow"
    )]
    Key(String),
    /// A word that is no field.
    #[error("invalid field: {0}: fields are NAME=VALUE, with commas between")]
    Field(String),
    /// A field that stands there twice.
    #[error("field {0} is given twice: give it once")]
    Twice(&'static str),
    /// No port.
    #[error("invalid {field} port ({found}): value must be an integer: from 1 to 65535")]
    Port {
        /// Which: target or published.
        field: &'static str,
        /// What was found.
        found: String,
    },
    /// No address, interface, node, subnet or name.
    #[error("invalid {field} '{found}': {wanted}")]
    Place {
        /// Which field.
        field: &'static str,
        /// What was found.
        found: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// Places or sources that make no sense.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Ranges that do not go together.
    #[error("invalid ranges {0}: both have as many ports, the lower first, and 1000 at most")]
    Range(String),
}

/// The most ports of one range: as many as a service publishes.
const MOST: u16 = 1000;

impl PublishedPort {
    /// Reads `[PUBLISHED:]TARGET[/PROTOCOL]`, where both ports may be ranges of one length, in mode ingress; or, if there is a `=`, fields with commas
    /// between: `target=80`, `published=8080`, `protocol=tcp|udp|sctp`, `mode=ingress|host|local`, `source=client|masquerade`, `name=http` by which SRV finds it; and as often as wanted `host_ip=ADDRESS`,
    /// `interface=NAME`, `node=ID`, `allow=SUBNET`. A port that is not said, or 0, is any.
    ///
    /// ```
    /// use overlay_node::{PublishMode, PublishedPort};
    ///
    /// let [web] = &PublishedPort::read("80:8080")?[..] else { panic!() };
    /// assert_eq!((web.target.get(), web.mode), (8080, PublishMode::Ingress));
    /// assert_eq!(PublishedPort::read("published=53,target=53,protocol=udp,mode=host")?[0].mode, PublishMode::Host);
    /// assert_eq!(PublishedPort::read("8000-8002:80-82")?.len(), 3);
    /// let inside = &PublishedPort::read("published=80,target=8080,mode=local,host_ip=192.0.2.1,allow=192.0.2.0/24")?[0];
    /// assert_eq!((inside.mode, inside.access.sources.len()), (PublishMode::Local, 1));
    /// # Ok::<(), overlay_node::PublishError>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(text: &str) -> Result<Vec<Self>, PublishError> {
        if text.contains('=') { fields(text).map(|port| vec![port]) } else { short(text) }
    }
}

fn short(text: &str) -> Result<Vec<PublishedPort>, PublishError> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol_of(protocol)?;
    let (published, target) = match ports.rsplit_once(':') {
        Some((before, _)) if before.contains(':') => return Err(PublishError::HostAddress(text.to_owned())),
        Some((before, _)) if before.contains('.') => return Err(PublishError::HostAddress(text.to_owned())),
        Some((published, target)) => (Some(published).filter(|it| !it.is_empty()), target),
        None => (None, ports),
    };
    if target.is_empty() {
        return Err(PublishError::NoTarget);
    }
    let targets = range("target", target)?;
    let published = published.filter(|it| *it != "0").map(|published| range("published", published)).transpose()?;
    let count = targets.1 - targets.0;
    if count >= MOST || published.is_some_and(|(low, high)| high - low != count) {
        return Err(PublishError::Range(text.to_owned()));
    }
    let all = (0..=count).map(|at| {
        let target = port("target", targets.0 + at)?;
        let published = published.map(|(low, _)| port("published", low + at)).transpose()?;
        Ok(PublishedPort { published, ..PublishedPort::new(protocol, target) })
    });
    all.collect()
}

fn fields(text: &str) -> Result<PublishedPort, PublishError> {
    let (mut target, mut published, mut protocol) = (None, None, None);
    let (mut mode, mut source, mut name) = (None, None, None);
    let mut access = Access::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| PublishError::Field(field.to_owned()))?;
        match key.trim() {
            "target" => once("target", &mut target, number("target", value)?)?,
            "published" => once("published", &mut published, number("published", value)?)?,
            "protocol" => once("protocol", &mut protocol, protocol_of(value)?)?,
            "mode" => once("mode", &mut mode, mode_of(value)?)?,
            "source" => once("source", &mut source, source_of(value)?)?,
            "name" => once("name", &mut name, name_of(value)?)?,
            key => placed(&mut access, key, value)?,
        }
    }
    let target = port("target", target.ok_or(PublishError::NoTarget)?)?;
    let published = published.filter(|published| *published != 0).map(|it| port("published", it)).transpose()?;
    let (protocol, mode) = (protocol.unwrap_or(Protocol::Tcp), mode.unwrap_or_default());
    let source = source.unwrap_or_default();
    let port = PublishedPort { name, published, mode, source, access, ..PublishedPort::new(protocol, target) };
    port.check()?;
    Ok(port)
}

/// A field that says where a port is reached, or by whom.
fn placed(access: &mut Access, key: &str, value: &str) -> Result<(), PublishError> {
    match key {
        "host_ip" => one_more("host_ip", &mut access.addresses, value, "an address of a node, such as 192.0.2.1"),
        "interface" => one_more("interface", &mut access.interfaces, value, "the name of an interface, such as eth0"),
        "node" => one_more("node", &mut access.nodes, value, "a node's id in full"),
        "allow" => match value.parse::<IpAddr>() {
            Ok(address) => one_more("allow", &mut access.sources, &IpNet::from(address).to_string(), SUBNET),
            Err(_) => one_more("allow", &mut access.sources, value, SUBNET),
        },
        other => Err(PublishError::Key(other.to_owned())),
    }
}

const SUBNET: &str = "an address or a subnet of clients, such as 192.0.2.0/24";

fn one_more<T: FromStr + Ord>(
    field: &'static str,
    held: &mut BTreeSet<T>,
    text: &str,
    wanted: &'static str,
) -> Result<(), PublishError> {
    let value = text.parse().map_err(|_| PublishError::Place { field, found: text.to_owned(), wanted })?;
    held.insert(value);
    Ok(())
}

fn once<T>(field: &'static str, held: &mut Option<T>, value: T) -> Result<(), PublishError> {
    match held.replace(value) {
        Some(_) => Err(PublishError::Twice(field)),
        None => Ok(()),
    }
}

fn number(field: &'static str, text: &str) -> Result<u16, PublishError> {
    text.parse().map_err(|_| PublishError::Port { field, found: text.to_owned() })
}

fn port(field: &'static str, number: u16) -> Result<Port, PublishError> {
    Port::new(number).map_err(|_| PublishError::Port { field, found: number.to_string() })
}

/// The first and the last.
fn range(field: &'static str, text: &str) -> Result<(u16, u16), PublishError> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (number(field, low)?, number(field, high)?);
    if low <= high { Ok((low, high)) } else { Err(PublishError::Range(text.to_owned())) }
}

fn protocol_of(text: &str) -> Result<Protocol, PublishError> {
    text.parse().map_err(|_| PublishError::Protocol(text.to_owned()))
}

fn name_of(text: &str) -> Result<Name, PublishError> {
    let wanted = "a name, such as http";
    text.parse().map_err(|_| PublishError::Place { field: "name", found: text.to_owned(), wanted })
}

fn mode_of(text: &str) -> Result<PublishMode, PublishError> {
    match text {
        "ingress" => Ok(PublishMode::Ingress),
        "host" => Ok(PublishMode::Host),
        "local" => Ok(PublishMode::Local),
        _ => Err(PublishError::Mode(text.to_owned())),
    }
}

fn source_of(text: &str) -> Result<ClientSource, PublishError> {
    match text {
        "client" => Ok(ClientSource::Client),
        "masquerade" => Ok(ClientSource::Masquerade),
        _ => Err(PublishError::Source(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Option<u16>, u16, Protocol, PublishMode)> {
        let ports = PublishedPort::read(text).unwrap();
        ports.iter().map(|it| (it.published.map(Port::get), it.target.get(), it.protocol, it.mode)).collect()
    }

    #[test]
    fn what_is_typed_is_what_is_published() {
        use PublishMode::{Host, Ingress};
        assert_eq!(read("80"), [(None, 80, Protocol::Tcp, Ingress)]);
        assert_eq!(read("80:8080/UDP"), [(Some(80), 8080, Protocol::Udp, Ingress)]);
        let both = [(Some(8000), 80, Protocol::Sctp, Ingress), (Some(8001), 81, Protocol::Sctp, Ingress)];
        assert_eq!(read("8000-8001:80-81/sctp"), both);
        assert_eq!(read("0:80"), [(None, 80, Protocol::Tcp, Ingress)]);
        assert_eq!(read("target=80"), [(None, 80, Protocol::Tcp, Ingress)]);
        assert_eq!(read("published=0,target=80,mode=host"), [(None, 80, Protocol::Tcp, Host)]);
        assert_eq!(
            read("mode=ingress,protocol=udp,published=53,target=5353"),
            [(Some(53), 5353, Protocol::Udp, Ingress)]
        );
    }

    #[test]
    fn where_and_by_whom_is_said_by_fields_as_often_as_wanted() {
        let text = "target=80,mode=local,host_ip=192.0.2.1,host_ip=2001:db8::1,allow=192.0.2.0/24,allow=198.51.100.7";
        let [port] = &PublishedPort::read(text).unwrap()[..] else { panic!() };
        let texts = |net: &IpNet| net.to_string();
        assert_eq!((port.mode, &port.name), (PublishMode::Local, &None));
        let named = &PublishedPort::read("target=80,name=http").unwrap()[0];
        assert_eq!(named.name.as_ref().map(Name::as_str), Some("http"));
        let masqueraded = &PublishedPort::read("target=80,source=masquerade,mode=local").unwrap()[0];
        assert_eq!((masqueraded.source, port.source), (ClientSource::Masquerade, ClientSource::Client));
        assert_eq!(port.access.addresses.len(), 2);
        assert!(port.access.sources.iter().map(texts).eq(["192.0.2.0/24", "198.51.100.7/32"]));
        let node = overlay_core::NodeId::from_bytes([9; 16]).to_string();
        let text = format!("target=80,mode=host,interface=eth0,interface=eth1,node={node}");
        let access = &PublishedPort::read(&text).unwrap()[0].access;
        assert_eq!((access.interfaces.len(), access.nodes.first().unwrap().to_string()), (2, node.clone()));
        assert!(access.is_at(node.parse().unwrap()) && !access.is_at(overlay_core::NodeId::from_bytes([1; 16])));
    }

    #[test]
    fn what_is_no_published_port_is_refused_and_told_what_would_be() {
        for (text, why) in [
            ("127.0.0.1:80:8080", "hostip is not supported"),
            ("127.0.0.1:80", "hostip is not supported"),
            ("80:", "missing mandatory field 'target'"),
            ("published=80", "missing mandatory field 'target'"),
            ("target=80,mode=both", "invalid publish mode value (both): must be either 'ingress' or 'host'"),
            ("target=80,source=node", "invalid source 'node': must be 'client'"),
            ("target=80,source=masquerade,mode=host", "a source is masqueraded in modes ingress and local alone"),
            ("target=80,host_ip=here", "invalid host_ip 'here': an address of a node"),
            ("target=80,interface=a/b", "invalid interface 'a/b': the name of an interface"),
            ("target=80,node=web", "invalid node 'web': a node's id in full"),
            ("target=80,name=", "invalid name '': a name, such as http"),
            ("target=80,name=a b", "invalid name 'a b': a name, such as http"),
            ("target=80,name=a,name=a", "field name is given twice"),
            ("target=80,allow=10", "invalid allow '10': an address or a subnet"),
            ("target=80,host_ip=127.0.0.1", "nothing is published at 127.0.0.1, as"),
            ("target=80,mode=host,host_ip=fe80::1", "nothing is published at fe80::1"),
            ("target=80,host_ip=0.0.0.0", "nothing is published at 0.0.0.0"),
            ("target=80,interface=lo", "nobody comes in by interface lo"),
            ("target=80,interface=eth0,host_ip=192.0.2.1", "at addresses or by interfaces, not both"),
            ("target=80,allow=192.0.2.1/24", "192.0.2.1/24 is no subnet of clients"),
            ("80/icmp", "invalid protocol value 'icmp'"),
            ("target=80,protocol=x", "invalid protocol value 'x'"),
            ("target=80,colour=red", "invalid field key: colour"),
            ("target=80,udp", "invalid field: udp"),
            ("target=80,target=81", "field target is given twice"),
            ("http", "invalid target port (http): value must be an integer"),
            ("x:80", "invalid published port (x): value must be an integer"),
            ("target=70000", "invalid target port (70000): value must be an integer"),
            ("80:0", "invalid target port (0)"),
            ("8000-8002:80-81", "invalid ranges"),
            ("81-80", "invalid ranges 81-80"),
            ("1-65535", "invalid ranges"),
            ("", "missing mandatory field 'target'"),
        ] {
            let said = PublishedPort::read(text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
