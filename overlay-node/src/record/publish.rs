//! Published ports as they are typed.

use overlay_core::{Port, Protocol};

use crate::{PublishMode, PublishedPort};

/// Why a text is no published port: what is wrong with it, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// An address stands before the ports.
    #[error("hostip is not supported: {0} publishes at all addresses of a node; leave the address out")]
    HostAddress(String),
    /// Where the container listens is not said.
    #[error("missing mandatory field 'target': say the container's port")]
    NoTarget,
    /// A mode that there is not.
    #[error("invalid publish mode value ({0}): must be either 'ingress' or 'host'")]
    Mode(String),
    /// A protocol that there is not.
    #[error("invalid protocol value '{0}': must be one of tcp, udp, sctp")]
    Protocol(String),
    /// A field that there is not.
    #[error("invalid field key: {0}: fields are target, published, protocol and mode")]
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
    /// Ranges that do not go together.
    #[error("invalid ranges {0}: both have as many ports, the lower first, and 1000 at most")]
    Range(String),
}

/// The most ports of one range: as many as a service publishes.
const MOST: u16 = 1000;

impl PublishedPort {
    /// Reads `[PUBLISHED:]TARGET[/PROTOCOL]`, where both ports may be ranges of one length, in mode ingress; or, if there is a `=`, fields with commas
    /// between: `target=80`, `published=8080`, `protocol=tcp|udp|sctp`, `mode=ingress|host`. A port that is not said, or 0, is any.
    ///
    /// ```
    /// use overlay_node::{PublishMode, PublishedPort};
    ///
    /// let [web] = &PublishedPort::read("80:8080")?[..] else { panic!() };
    /// assert_eq!((web.target.get(), web.mode), (8080, PublishMode::Ingress));
    /// assert_eq!(PublishedPort::read("published=53,target=53,protocol=udp,mode=host")?[0].mode, PublishMode::Host);
    /// assert_eq!(PublishedPort::read("8000-8002:80-82")?.len(), 3);
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
        Ok(PublishedPort { name: None, protocol, target, published, mode: PublishMode::Ingress })
    });
    all.collect()
}

fn fields(text: &str) -> Result<PublishedPort, PublishError> {
    let (mut target, mut published, mut protocol, mut mode) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| PublishError::Field(field.to_owned()))?;
        match key.trim() {
            "target" => once("target", &mut target, number("target", value)?)?,
            "published" => once("published", &mut published, number("published", value)?)?,
            "protocol" => once("protocol", &mut protocol, protocol_of(value)?)?,
            "mode" => once("mode", &mut mode, mode_of(value)?)?,
            other => return Err(PublishError::Key(other.to_owned())),
        }
    }
    let target = port("target", target.ok_or(PublishError::NoTarget)?)?;
    let published = published.filter(|published| *published != 0).map(|it| port("published", it)).transpose()?;
    let (protocol, mode) = (protocol.unwrap_or(Protocol::Tcp), mode.unwrap_or_default());
    Ok(PublishedPort { name: None, protocol, target, published, mode })
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

fn mode_of(text: &str) -> Result<PublishMode, PublishError> {
    match text {
        "ingress" => Ok(PublishMode::Ingress),
        "host" => Ok(PublishMode::Host),
        _ => Err(PublishError::Mode(text.to_owned())),
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
    fn what_is_no_published_port_is_refused_and_told_what_would_be() {
        for (text, why) in [
            ("127.0.0.1:80:8080", "hostip is not supported"),
            ("127.0.0.1:80", "hostip is not supported"),
            ("80:", "missing mandatory field 'target'"),
            ("published=80", "missing mandatory field 'target'"),
            ("target=80,mode=both", "invalid publish mode value (both): must be either 'ingress' or 'host'"),
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
