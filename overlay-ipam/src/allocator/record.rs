//! The records of an address space: how often it changed, its networks, and what nodes report.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use overlay_core::{IpFamily, Name, NetworkId};

use crate::ledger::wire::{Flaw, Reader};
use crate::range::{address, number};
use crate::request::{MOST, overlap};
use crate::{AddressRange, Subnet, SubnetKind};

/// How often the subnets of a space changed, and what changed last: who has seen one of the last states reads only what
/// changed since. Format 1: the version (8 bytes), then for each of the last changes, the latest last, what it is (1) and
/// the network (16).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Space {
    pub(crate) version: u64,
    changes: Vec<Change>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Network(NetworkId),
    /// What nodes report.
    Occupied,
}

const FORMAT: u8 = 1;
/// How many changes are remembered.
const CHANGES: usize = 32;

impl Space {
    /// One more change.
    pub(crate) fn changed(&self, change: Change) -> Self {
        let skip = (self.changes.len() + 1).saturating_sub(CHANGES);
        let changes = self.changes.iter().copied().skip(skip).chain([change]).collect();
        Self { version: self.version + 1, changes }
    }

    /// What changed after `version`; `None` if that is too long ago.
    pub(crate) fn since(&self, version: u64) -> Option<&[Change]> {
        let behind = usize::try_from(self.version.checked_sub(version)?).ok()?;
        self.changes.get(self.changes.len().checked_sub(behind)?..)
    }

    pub(crate) fn parse(record: &[u8]) -> Result<Self, Flaw> {
        let mut reader = Reader::new(record, FORMAT)?;
        let version = reader.u64()?;
        if version == u64::MAX {
            return Err(Flaw::Field { field: "version" });
        }
        let mut changes = Vec::new();
        for _ in 0..record.len().saturating_sub(9) / 17 {
            let what = reader.u8()?;
            let network = NetworkId::from_bytes(reader.take()?);
            changes.push(match what {
                0 => Change::Network(network),
                1 => Change::Occupied,
                _ => return Err(Flaw::Field { field: "change" }),
            });
        }
        reader.end()?;
        Ok(Self { version, changes })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut record = vec![FORMAT];
        record.extend(self.version.to_be_bytes());
        for change in &self.changes {
            let (what, network) = match change {
                Change::Network(network) => (0, network.to_bytes()),
                Change::Occupied => (1, [0; 16]),
            };
            record.push(what);
            record.extend(network);
        }
        record.into()
    }
}

/// A network's subnets. Format 1: its number (8 bytes), how many subnets (1), then each: prefix, gateway, range, VIP range,
/// kind (1), how many auxiliary addresses (2), each with its name's length (1) and name. Addresses are family (1) and 16 bytes;
/// what may be missing has a byte before it that says whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// No other network of the space has it or had it: it tells a network from a former one of the same id.
    pub(crate) number: u64,
    pub(crate) subnets: Vec<Subnet>,
}

impl Network {
    pub(crate) fn parse(record: &[u8]) -> Result<Self, Flaw> {
        let mut reader = Reader::new(record, FORMAT)?;
        let number = reader.u64()?;
        let count = reader.u8()?;
        if usize::from(count) > MOST {
            return Err(Flaw::Field { field: "count" });
        }
        let subnets: Vec<Subnet> = (0..count).map(|_| subnet(&mut reader)).collect::<Result<_, _>>()?;
        reader.end()?;
        let nets: Vec<IpNet> = subnets.iter().map(Subnet::net).collect();
        match nets.iter().enumerate().any(|(at, net)| nets[..at].iter().any(|other| overlap(*net, *other))) {
            true => Err(Flaw::Field { field: "prefix" }), // an address of both would be leased twice
            false => Ok(Self { number, subnets }),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut record = vec![FORMAT];
        record.extend(self.number.to_be_bytes());
        record.push(self.subnets.len() as u8);
        self.subnets.iter().for_each(|subnet| put_subnet(&mut record, subnet));
        record.into()
    }
}

/// What a node reports. Format 1: each prefix as address (17 bytes) and length (1).
pub(crate) fn parse_report(record: &[u8]) -> Result<Vec<IpNet>, Flaw> {
    let mut reader = Reader::new(record, FORMAT)?;
    let nets = (0..record.len().saturating_sub(1) / 18).map(|_| net(&mut reader)).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(nets)
}

pub(crate) fn encode_report(nets: &[IpNet]) -> Bytes {
    let mut record = vec![FORMAT];
    nets.iter().for_each(|net| put_net(&mut record, *net));
    record.into()
}

fn subnet(reader: &mut Reader<'_>) -> Result<Subnet, Flaw> {
    let net = net(reader)?;
    if net.prefix_len() == 0 {
        return Err(Flaw::Field { field: "prefix" }); // all there is: no request has it
    }
    let gateway = optional(reader, ip)?;
    let endpoints = optional(reader, range)?;
    let vips = optional(reader, range)?;
    let kind = match reader.u8()? {
        0 => SubnetKind::Own,
        1 => SubnetKind::External,
        _ => return Err(Flaw::Field { field: "kind" }),
    };
    let mut auxiliary = BTreeMap::new();
    for _ in 0..reader.u16()? {
        let len = reader.u8()?;
        let name = std::str::from_utf8(reader.bytes(len.into())?).ok().and_then(|name| Name::new(name).ok());
        auxiliary.insert(name.ok_or(Flaw::Field { field: "name" })?, ip(reader)?);
    }
    let subnet = Subnet { net, gateway, endpoints, vips, auxiliary, kind };
    let whole = AddressRange::from(net);
    let parts = endpoints.into_iter().chain(vips).chain(gateway.map(AddressRange::from));
    let parts = parts.chain(subnet.auxiliary.values().map(|address| (*address).into()));
    match parts.into_iter().all(|part| whole.covers(part)) {
        true => Ok(subnet),
        false => Err(Flaw::Field { field: "range" }),
    }
}

fn put_subnet(record: &mut Vec<u8>, subnet: &Subnet) {
    put_net(record, subnet.net);
    put_optional(record, subnet.gateway, put_ip);
    put_optional(record, subnet.endpoints, put_range);
    put_optional(record, subnet.vips, put_range);
    record.push(u8::from(subnet.kind == SubnetKind::External));
    record.extend((subnet.auxiliary.len() as u16).to_be_bytes());
    for (name, address) in &subnet.auxiliary {
        record.push(name.as_str().len() as u8);
        record.extend(name.as_str().as_bytes());
        put_ip(record, *address);
    }
}

fn net(reader: &mut Reader<'_>) -> Result<IpNet, Flaw> {
    let (address, len) = (ip(reader)?, reader.u8()?);
    let net = IpNet::new(address, len).ok().filter(|net| net.trunc() == *net);
    net.ok_or(Flaw::Field { field: "prefix" })
}

fn put_net(record: &mut Vec<u8>, net: IpNet) {
    put_ip(record, net.network());
    record.push(net.prefix_len());
}

fn range(reader: &mut Reader<'_>) -> Result<AddressRange, Flaw> {
    AddressRange::new(ip(reader)?, ip(reader)?).map_err(|_| Flaw::Field { field: "range" })
}

fn put_range(record: &mut Vec<u8>, range: AddressRange) {
    put_ip(record, range.first());
    put_ip(record, range.last());
}

fn ip(reader: &mut Reader<'_>) -> Result<IpAddr, Flaw> {
    let family = reader.u8()?;
    let number = reader.u128()?;
    match family {
        4 if number <= u32::MAX.into() => Ok(address(IpFamily::V4, number)),
        6 => Ok(address(IpFamily::V6, number)),
        _ => Err(Flaw::Field { field: "address" }),
    }
}

fn put_ip(record: &mut Vec<u8>, address: IpAddr) {
    record.push(if address.is_ipv4() { 4 } else { 6 });
    record.extend(number(address).to_be_bytes());
}

fn optional<T>(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Flaw>,
) -> Result<Option<T>, Flaw> {
    match reader.u8()? {
        0 => Ok(None),
        1 => read(reader).map(Some),
        _ => Err(Flaw::Field { field: "presence" }),
    }
}

fn put_optional<T>(record: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    record.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(record, value);
    }
}

/// Reads any bytes as any record of a space, and again what is written of it.
#[cfg(feature = "testing")]
pub(crate) fn reread(bytes: &[u8]) {
    if let Ok(space) = Space::parse(bytes) {
        assert_eq!(Space::parse(&space.encode()), Ok(space));
    }
    if let Ok(network) = Network::parse(bytes) {
        assert_eq!(Network::parse(&network.encode()), Ok(network));
    }
    if let Ok(report) = parse_report(bytes) {
        assert_eq!(parse_report(&encode_report(&report)), Ok(report));
    }
}
