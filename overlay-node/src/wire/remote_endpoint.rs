//! An endpoint, as its node tells it in the table of its network.

use std::collections::BTreeMap;

use overlay_core::{AddressSet, Mac, Name, NodeId, ServiceId};
use overlay_dns::{DnsName, Health};
use overlay_lb::Weight;
use serde::{Deserialize, Serialize};

use super::reader::put_address;
use super::{Malformed, Reader};
use crate::RemoteEndpoint;
use crate::control::word::{self, Word};

/// The longest encoding of an endpoint, in bytes: 16 KiB.
pub const FACT_LIMIT: usize = 16 * 1024;

impl RemoteEndpoint {
    /// Reads what [`encode`](Self::encode) wrote, on the word of `node`; of the weight that says nothing.
    ///
    /// # Errors
    /// For bytes that are no such fact.
    pub fn parse(node: NodeId, bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > FACT_LIMIT {
            let (found, most) = (bytes.len() as u64, FACT_LIMIT as u64);
            return Err(Malformed::Range { field: "length", found, least: 0, most });
        }
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let endpoint = Self {
            node,
            health: health(&mut reader)?,
            moves: reader.u64("moves")?,
            weight: Weight::ONE,
            mac: Mac::new(reader.array("mac")?),
            service: service(&mut reader)?,
            container: container(&mut reader)?,
            addresses: addresses(&mut reader)?,
            names: names(&mut reader)?,
            labels: labels(&mut reader)?,
        };
        reader.end("endpoint")?;
        Ok(endpoint)
    }

    /// The bytes; not its node, which signs them.
    ///
    /// # Errors
    /// If there are more than [`FACT_LIMIT`] of them, or more than 64 addresses, names or labels: then it cannot be told.
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let mut out = vec![VERSION, health_code(self.health)];
        out.extend_from_slice(&self.moves.to_be_bytes());
        out.extend_from_slice(&self.mac.octets());
        out.push(self.service.is_some().into());
        out.extend(self.service.iter().flat_map(|service| service.to_bytes()));
        put_bytes("container", self.container.as_str().as_bytes(), &mut out)?;
        out.push(count("addresses", self.addresses.len())?);
        self.addresses.iter().for_each(|address| put_address(*address, &mut out));
        out.push(count("names", self.names.len())?);
        for name in &self.names {
            put_bytes("name", name.as_wire(), &mut out)?;
        }
        out.push(count("labels", self.labels.len())?);
        for (key, value) in &self.labels {
            put_text("label", key, &mut out)?;
            put_text("label", value, &mut out)?;
        }
        match out.len() {
            0..=FACT_LIMIT => Ok(out),
            found => Err(TooLong { field: "endpoint", found, most: FACT_LIMIT }),
        }
    }
}

/// An endpoint that is too large to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field} has {found} bytes or entries, {most} at most can be told by gossip")]
pub struct TooLong {
    /// What of it.
    #[serde(deserialize_with = "word::read")]
    pub field: Word,
    /// What there is.
    pub found: usize,
    /// The most there may be.
    pub most: usize,
}

const VERSION: u8 = 1;
/// Addresses, names, and labels, each: what is small on the wire is larger in memory, so there are few.
const MOST: u8 = 64;

fn health(reader: &mut Reader<'_>) -> Result<Health, Malformed> {
    Ok(match reader.small("health", 0, 2)? {
        0 => Health::Healthy,
        1 => Health::Suspect,
        _ => Health::Draining,
    })
}

const fn health_code(health: Health) -> u8 {
    match health {
        Health::Healthy => 0,
        Health::Suspect => 1,
        Health::Draining => 2,
    }
}

fn service(reader: &mut Reader<'_>) -> Result<Option<ServiceId>, Malformed> {
    match reader.small("service", 0, 1)? {
        0 => Ok(None),
        _ => reader.array("service").map(|bytes| Some(ServiceId::from_bytes(bytes))),
    }
}

fn container(reader: &mut Reader<'_>) -> Result<Name, Malformed> {
    let wrong = Malformed::Text { field: "container" };
    let text = str::from_utf8(reader.bytes("container")?).map_err(|_| wrong)?;
    text.parse().map_err(|_| wrong)
}

fn addresses(reader: &mut Reader<'_>) -> Result<AddressSet, Malformed> {
    let mut addresses = AddressSet::new();
    for _ in 0..reader.small("addresses", 0, MOST)? {
        let address = reader.address("address")?;
        if addresses.last().is_some_and(|last| *last >= address) {
            return Err(Malformed::Order { field: "addresses" });
        }
        addresses.insert(address);
    }
    Ok(addresses)
}

fn names(reader: &mut Reader<'_>) -> Result<Vec<DnsName>, Malformed> {
    let count = reader.small("names", 0, MOST)?;
    let mut names = Vec::with_capacity(count.into()); // no more: they are kept, of thousands of endpoints
    for _ in 0..count {
        names.push(name(reader.bytes("name")?)?);
    }
    Ok(names)
}

/// A name on the wire (RFC 1035 §3.1), without the zero that closes it.
fn name(wire: &[u8]) -> Result<DnsName, Malformed> {
    let mut labels = Reader::new(wire);
    let mut parts = Vec::new();
    while labels.clone().end("name").is_err() {
        parts.push(labels.bytes("label")?);
    }
    DnsName::from_labels(parts).map_err(|_| Malformed::Text { field: "name" })
}

fn labels(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, Malformed> {
    let mut labels = BTreeMap::<String, String>::new();
    for _ in 0..reader.small("labels", 0, MOST)? {
        let key = reader.text("label")?;
        if labels.last_key_value().is_some_and(|(last, _)| last.as_str() >= key) {
            return Err(Malformed::Order { field: "labels" });
        }
        labels.insert(key.to_owned(), reader.text("label")?.to_owned());
    }
    Ok(labels)
}

/// A number of things, which is limited.
fn count(field: &'static str, found: usize) -> Result<u8, TooLong> {
    let count = u8::try_from(found).ok().filter(|count| *count <= MOST);
    count.ok_or_else(|| TooLong { field, found, most: MOST.into() })
}

fn length(field: &'static str, found: usize) -> Result<[u8; 2], TooLong> {
    u16::try_from(found).map(u16::to_be_bytes).map_err(|_| TooLong { field, found, most: u16::MAX.into() })
}

fn put_bytes(field: &'static str, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    let len = u8::try_from(bytes.len());
    out.push(len.map_err(|_| TooLong { field, found: bytes.len(), most: u8::MAX.into() })?);
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_text(field: &'static str, text: &str, out: &mut Vec<u8>) -> Result<(), TooLong> {
    out.extend_from_slice(&length(field, text.len())?);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_remote_endpoint;

    fn bare() -> RemoteEndpoint {
        RemoteEndpoint {
            node: NodeId::from_bytes([1; 16]),
            container: "web-1".parse().unwrap(),
            mac: Mac::from_ipv4([10, 0, 9, 3].into()),
            addresses: AddressSet::new(),
            names: Vec::new(),
            service: None,
            labels: BTreeMap::new(),
            health: Health::Healthy,
            moves: 0,
            weight: Weight::ONE,
        }
    }

    #[test]
    fn what_is_too_large_to_be_told_is_refused_where_it_is_made() {
        let long = RemoteEndpoint { labels: [("a".into(), "b".repeat(FACT_LIMIT))].into(), ..bare() };
        assert_eq!(long.encode().unwrap_err().field, "endpoint");
        let longer = RemoteEndpoint { labels: [("a".into(), "b".repeat(70_000))].into(), ..bare() };
        assert_eq!(
            longer.encode().unwrap_err().to_string(),
            "label has 70000 bytes or entries, 65535 at most can be told by gossip"
        );
        let labels = (0..65).map(|number| (format!("k{number}"), String::new())).collect();
        assert_eq!(RemoteEndpoint { labels, ..bare() }.encode().unwrap_err().found, 65);
        let many = RemoteEndpoint { names: vec!["web".parse().unwrap(); 65], ..bare() };
        assert_eq!(many.encode().unwrap_err().field, "names");
    }

    #[test]
    fn a_huge_record_and_one_of_another_release_are_refused_by_name() {
        let node = NodeId::from_bytes([1; 16]);
        let huge = vec![VERSION; FACT_LIMIT + 1];
        assert!(matches!(RemoteEndpoint::parse(node, &huge), Err(Malformed::Range { field: "length", .. })));
        let later = RemoteEndpoint::parse(node, &[2]).unwrap_err();
        assert_eq!(later.to_string(), "its version is 2, this node reads 1");
    }

    #[test]
    fn what_comes_twice_or_out_of_order_is_refused() {
        let two = RemoteEndpoint { addresses: [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()].into(), ..bare() };
        let mut bytes = two.encode().unwrap();
        let at = bytes.len() - 3;
        bytes[at] = 1; // the second address is the first again
        assert_eq!(RemoteEndpoint::parse(two.node, &bytes), Err(Malformed::Order { field: "addresses" }));
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back_with_its_letters(endpoint in any_remote_endpoint()) {
            let bytes = endpoint.encode().unwrap();
            let back = RemoteEndpoint::parse(endpoint.node, &bytes).unwrap();
            prop_assert_eq!(back.encode().unwrap(), &bytes[..]);
            prop_assert_eq!(back, endpoint);
            prop_assert!((0..bytes.len()).all(|cut| RemoteEndpoint::parse(ME, &bytes[..cut]).is_err()));
        }

        #[test]
        fn what_parses_is_the_one_encoding(endpoint in any_remote_endpoint(), at: prop::sample::Index, byte: u8) {
            let mut bytes = endpoint.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(endpoint) = RemoteEndpoint::parse(ME, &bytes) {
                prop_assert_eq!(endpoint.encode().unwrap(), bytes);
            }
        }
    }

    const ME: NodeId = crate::testing::ME;
}
