//! Messages of IPVS (`linux/ip_vs.h`). Numbers of attributes depend on the command: in answers about the
//! module itself (`GET_INFO`) they mean something else than in all others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use overlay_core::{IpFamily, Protocol};

use super::{Destination, Forward, Key, Options, Reading, Scheduler, Timeouts};
use crate::netlink::{Attributes, Body, Family, Flags, GenericFamily, Malformed, Message, Requests};

/// A service as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundService {
    pub(super) key: Key,
    /// Nothing where it is balanced as no state says.
    pub(super) options: Option<Options>,
    pub(super) reading: Reading,
}

/// A destination as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundDestination {
    pub(super) at: SocketAddr,
    /// Nothing where it is of a kind that no state has.
    pub(super) destination: Option<Destination>,
    pub(super) reading: Reading,
}

/// What is asked of a service.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Add,
    Set,
}

pub(super) fn put_service(ipvs: GenericFamily, command: Command, key: &Key, options: &Options) -> Requests {
    let number = match command {
        Command::Add => NEW_SERVICE,
        Command::Set => SET_SERVICE,
    };
    ipvs.request(number, Flags::NONE, |body| {
        body.nest(SERVICE, |service| {
            write_key(service, key);
            let persistent = if options.persistence.is_some() { PERSISTENT } else { 0 };
            let [a, b, c, d] = (options.scheduler.flags() | persistent).to_ne_bytes();
            service.text(SCHEDULER, options.scheduler.text());
            service.attribute(FLAGS, &[a, b, c, d, 0xff, 0xff, 0xff, 0xff]);
            service.u32(TIMEOUT, options.persistence.unwrap_or_default());
            service.u32(NETMASK, if key.family() == IpFamily::V4 { u32::MAX } else { 128 });
        });
    })
}

pub(super) fn remove_service(ipvs: GenericFamily, key: &Key) -> Requests {
    ipvs.request(DEL_SERVICE, Flags::NONE, |body| service(body, key))
}

pub(super) fn services(ipvs: GenericFamily) -> Requests {
    ipvs.request(GET_SERVICE, Flags::NONE, |_| {})
}

pub(super) fn put_destination(
    ipvs: GenericFamily,
    command: Command,
    key: &Key,
    (at, destination): (SocketAddr, &Destination),
) -> Requests {
    let number = match command {
        Command::Add => NEW_DESTINATION,
        Command::Set => SET_DESTINATION,
    };
    ipvs.request(number, Flags::NONE, |body| {
        service(body, key);
        body.nest(DESTINATION, |body| {
            write_destination(body, at);
            body.u32(FORWARD, destination.forward as u32).u32(WEIGHT, destination.weight);
            body.u32(UPPER, 0).u32(LOWER, 0);
        });
    })
}

pub(super) fn remove_destination(ipvs: GenericFamily, key: &Key, at: SocketAddr) -> Requests {
    ipvs.request(DEL_DESTINATION, Flags::NONE, |body| {
        service(body, key);
        body.nest(DESTINATION, |body| write_destination(body, at));
    })
}

pub(super) fn destinations(ipvs: GenericFamily, key: &Key) -> Requests {
    ipvs.request(GET_DESTINATION, Flags::NONE, |body| service(body, key))
}

pub(super) fn set_timeouts(ipvs: GenericFamily, timeouts: Timeouts) -> Requests {
    ipvs.request(SET_CONFIG, Flags::NONE, |body| {
        body.u32(TCP_TIMEOUT, timeouts.tcp).u32(TCP_FIN_TIMEOUT, timeouts.tcp_fin).u32(UDP_TIMEOUT, timeouts.udp);
    })
}

pub(super) fn timeouts(ipvs: GenericFamily) -> Requests {
    ipvs.request(GET_CONFIG, Flags::NONE, |_| {})
}

fn service(body: &mut Body<'_>, key: &Key) {
    body.nest(SERVICE, |service| write_key(service, key));
}

fn write_key(body: &mut Body<'_>, key: &Key) {
    body.u16(ADDRESS_FAMILY, if key.family() == IpFamily::V4 { AF_INET } else { AF_INET6 });
    match key {
        Key::At { protocol, at } => {
            body.u16(PROTOCOL, protocol.number().into()).attribute(ADDRESS, &wide(at.ip())).be16(PORT, at.port());
        }
        Key::Mark { mark, .. } => {
            body.u32(MARK, *mark);
        }
    }
}

fn write_destination(body: &mut Body<'_>, at: SocketAddr) {
    body.u16(DESTINATION_FAMILY, if at.is_ipv4() { AF_INET } else { AF_INET6 });
    body.attribute(DESTINATION_ADDRESS, &wide(at.ip())).be16(DESTINATION_PORT, at.port());
}

/// Sixteen bytes, IPv4's at the beginning.
fn wide(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    bytes
}

fn narrow(family: u16, bytes: [u8; 16]) -> Result<IpAddr, Malformed> {
    match family {
        AF_INET => Ok(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        AF_INET6 => Ok(Ipv6Addr::from(bytes).into()),
        _ => Err(Malformed::new("an address of no family")),
    }
}

/// The attributes that a message of this family and command has under its first of this kind.
fn inside<'m>(message: &Message<'m>, command: u8, kind: u16) -> Result<Option<Attributes<'m>>, Malformed> {
    let [found, ..] = message.head::<{ Family::GENERIC_HEAD }>()?;
    if found != command {
        return Ok(None);
    }
    Ok(message.attributes(Family::GENERIC_HEAD)?.find(kind)?.map(|attribute| attribute.nested()))
}

/// Reads an answer to [`services`].
pub(super) fn parse_service(message: &Message<'_>) -> Result<Option<FoundService>, Malformed> {
    // The kernel answers with the command that would make it.
    let Some(attributes) = inside(message, NEW_SERVICE, SERVICE)? else { return Ok(None) };
    let (mut family, mut protocol, mut address, mut port, mut mark) = (0, 0, None, 0, None);
    let (mut scheduler, mut flags, mut timeout, mut reading) = (String::new(), 0, 0, Reading::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            ADDRESS_FAMILY => family = attribute.u16()?,
            PROTOCOL => protocol = attribute.u16()?,
            ADDRESS => address = Some(attribute.array()?),
            PORT => port = attribute.be16()?,
            MARK => mark = Some(attribute.u32()?),
            SCHEDULER => scheduler = attribute.text()?.to_owned(),
            FLAGS => {
                let [a, b, c, d, ..] = attribute.array::<8>()?;
                flags = u32::from_ne_bytes([a, b, c, d]);
            }
            TIMEOUT => timeout = attribute.u32()?,
            SERVICE_STATS64 => reading = parse_reading(attribute.nested())?,
            _ => {}
        }
    }
    let key = match (mark, address) {
        (Some(mark), _) => Key::Mark { mark, family: if family == AF_INET6 { IpFamily::V6 } else { IpFamily::V4 } },
        (None, Some(address)) => {
            let number = u8::try_from(protocol).ok().and_then(Protocol::from_number);
            let protocol = number.ok_or(Malformed::new("a service of no protocol with ports"))?;
            Key::At { protocol, at: SocketAddr::new(narrow(family, address)?, port) }
        }
        (None, None) => return Err(Malformed::new("a service without an address")),
    };
    let persistence = (flags & PERSISTENT != 0).then_some(timeout);
    let strange = flags & !(PERSISTENT | HASHED | SCHEDULERS) != 0;
    let scheduler = Scheduler::read(&scheduler, flags).filter(|_| !strange);
    let options = scheduler.map(|scheduler| Options { scheduler, persistence });
    Ok(Some(FoundService { key, options, reading }))
}

/// Reads an answer to [`destinations`].
pub(super) fn parse_destination(message: &Message<'_>) -> Result<Option<FoundDestination>, Malformed> {
    let Some(attributes) = inside(message, NEW_DESTINATION, DESTINATION)? else { return Ok(None) };
    let (mut family, mut address, mut port) = (AF_INET, None, 0);
    let (mut forward, mut weight, mut limits, mut reading) = (0, 0, 0, Reading::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            DESTINATION_FAMILY => family = attribute.u16()?,
            DESTINATION_ADDRESS => address = Some(attribute.array()?),
            DESTINATION_PORT => port = attribute.be16()?,
            FORWARD => forward = attribute.u32()? & FORWARD_METHOD,
            WEIGHT => weight = attribute.u32()?,
            UPPER | LOWER => limits |= attribute.u32()?,
            ACTIVE => reading.active = attribute.u32()?,
            INACTIVE => reading.inactive = attribute.u32()?,
            DESTINATION_STATS64 => {
                reading = Reading {
                    active: reading.active,
                    inactive: reading.inactive,
                    ..parse_reading(attribute.nested())?
                };
            }
            _ => {}
        }
    }
    let address = address.ok_or(Malformed::new("a destination without an address"))?;
    let forward = [Forward::Translate, Forward::Tunnel, Forward::Direct].into_iter().find(|it| *it as u32 == forward);
    let destination = forward.filter(|_| limits == 0).map(|forward| Destination { forward, weight });
    Ok(Some(FoundDestination { at: SocketAddr::new(narrow(family, address)?, port), destination, reading }))
}

fn parse_reading(attributes: Attributes<'_>) -> Result<Reading, Malformed> {
    let mut reading = Reading::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            CONNECTIONS => reading.connections = attribute.u64()?,
            PACKETS_IN => reading.packets_in = attribute.u64()?,
            PACKETS_OUT => reading.packets_out = attribute.u64()?,
            BYTES_IN => reading.bytes_in = attribute.u64()?,
            BYTES_OUT => reading.bytes_out = attribute.u64()?,
            _ => {}
        }
    }
    Ok(reading)
}

/// Reads an answer to [`timeouts`].
pub(super) fn parse_timeouts(message: &Message<'_>) -> Result<Option<Timeouts>, Malformed> {
    let [command, ..] = message.head::<{ Family::GENERIC_HEAD }>()?;
    if command != SET_CONFIG {
        return Ok(None);
    }
    let (mut tcp, mut tcp_fin, mut udp) = (None, None, None);
    for attribute in message.attributes(Family::GENERIC_HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            TCP_TIMEOUT => tcp = Some(attribute.u32()?),
            TCP_FIN_TIMEOUT => tcp_fin = Some(attribute.u32()?),
            UDP_TIMEOUT => udp = Some(attribute.u32()?),
            _ => {}
        }
    }
    match (tcp, tcp_fin, udp) {
        (Some(tcp), Some(tcp_fin), Some(udp)) => Ok(Some(Timeouts { tcp, tcp_fin, udp })),
        _ => Err(Malformed::new("a configuration without timeouts")),
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

// Commands.
const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DESTINATION: u8 = 5;
const SET_DESTINATION: u8 = 6;
const DEL_DESTINATION: u8 = 7;
const GET_DESTINATION: u8 = 8;
const SET_CONFIG: u8 = 12;
const GET_CONFIG: u8 = 13;

// Of commands about services and destinations.
const SERVICE: u16 = 1;
const DESTINATION: u16 = 2;

// Of a service.
const ADDRESS_FAMILY: u16 = 1;
const PROTOCOL: u16 = 2;
const ADDRESS: u16 = 3;
const PORT: u16 = 4;
const MARK: u16 = 5;
const SCHEDULER: u16 = 6;
const FLAGS: u16 = 7;
const TIMEOUT: u16 = 8;
const NETMASK: u16 = 9;
const SERVICE_STATS64: u16 = 12;
const PERSISTENT: u32 = 1;
const HASHED: u32 = 2;
const SCHEDULERS: u32 = 8 | 16 | 32;

// Of a destination.
const DESTINATION_ADDRESS: u16 = 1;
const DESTINATION_PORT: u16 = 2;
const FORWARD: u16 = 3;
const WEIGHT: u16 = 4;
const UPPER: u16 = 5;
const LOWER: u16 = 6;
const ACTIVE: u16 = 7;
const INACTIVE: u16 = 8;
const DESTINATION_FAMILY: u16 = 11;
const DESTINATION_STATS64: u16 = 12;
const FORWARD_METHOD: u32 = 7;

// Of what is counted.
const CONNECTIONS: u16 = 1;
const PACKETS_IN: u16 = 2;
const PACKETS_OUT: u16 = 3;
const BYTES_IN: u16 = 4;
const BYTES_OUT: u16 = 5;

// Of commands about the configuration.
const TCP_TIMEOUT: u16 = 4;
const TCP_FIN_TIMEOUT: u16 = 5;
const UDP_TIMEOUT: u16 = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ipvs::testing;
    use crate::netlink::Messages;

    fn read<T>(requests: &Requests, parse: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>) -> T {
        let mut bytes = Vec::new();
        requests.copy_all(&mut bytes);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        parse(&message).unwrap().unwrap()
    }

    const IPVS: GenericFamily = GenericFamily { id: 30, version: 1 };

    proptest! {
        /// What the kernel answers has the form of what makes it.
        #[test]
        fn what_is_written_is_what_is_read(state in testing::state()) {
            for (key, service) in &state.services {
                let found = read(&put_service(IPVS, Command::Add, key, &service.options), parse_service);
                prop_assert_eq!((found.key, found.options), (*key, Some(service.options)));
                for (at, destination) in &service.destinations {
                    let put = put_destination(IPVS, Command::Add, key, (*at, destination));
                    let found = read(&put, parse_destination);
                    prop_assert_eq!((found.at, found.destination), (*at, Some(*destination)));
                }
            }
            prop_assert_eq!(read(&set_timeouts(IPVS, state.timeouts), parse_timeouts), state.timeouts);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(command in prop_oneof![Just(1_u8), Just(5), Just(12)], bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let requests = IPVS.request(command, Flags::NONE, |body| {
                body.raw(&bytes);
            });
            let mut bytes = Vec::new();
            requests.copy_all(&mut bytes);
            for message in Messages::new(&bytes).flatten() {
                let _ = (parse_service(&message), parse_destination(&message), parse_timeouts(&message));
            }
        }
    }
}
