//! Bodies for overlay-core: the readers of text.

use std::error::Error;
use std::fmt::{Debug, Display};
use std::str::FromStr;

use overlay_core::{EndpointId, IdPrefix, IfName, Mac, Name, NetworkId, NodeId, Protocol, ServiceId};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[
    ("core_id", id),
    ("core_id_prefix", id_prefix),
    ("core_mac", mac),
    ("core_name", name),
    ("core_ifname", ifname),
    ("core_protocol", protocol),
];

/// Text and bytes lead back to the id, it has one text only, and its short form and itself are prefixes of it.
fn id(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(id) = read::<NodeId>(&text) else {
        assert!(
            read::<ServiceId>(&text).is_none() && read::<EndpointId>(&text).is_none(),
            "ids of other kinds are as strict"
        );
        return;
    };
    assert_eq!(id.to_string(), text, "an id has one text");
    assert_eq!(NodeId::from_bytes(id.to_bytes()), id);
    assert!(id.has_prefix(id.short()) && text.starts_with(&id.short().to_string()));
    assert_eq!(
        read::<NetworkId>(&text).map(NetworkId::to_bytes),
        Some(id.to_bytes()),
        "ids of all kinds are read alike"
    );
}

/// A prefix is its own text, and matches the first and the last id of its range.
fn id_prefix(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(prefix) = read::<IdPrefix>(&text) else {
        return;
    };
    assert_eq!(prefix.to_string(), text, "a prefix has one text");
    let range = NodeId::range(prefix);
    assert!(!range.is_empty(), "{range:?}");
    for id in [*range.start(), *range.end()] {
        assert!(id.has_prefix(prefix) && id.to_string().starts_with(&*text), "{id} of {prefix:?}");
    }
}

/// Octets lead back to the address, and it is shown in one way however it was written.
fn mac(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(mac) = read::<Mac>(&text) else {
        return;
    };
    assert_eq!(Mac::new(mac.octets()), mac);
    assert_eq!(mac.to_string(), text.to_lowercase().replace('-', ":"));
    assert!(!(mac.is_station() && mac.is_multicast()));
}

/// A name is the text given, and folding it twice is folding it once.
fn name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(name) = read::<Name>(&text) else {
        return;
    };
    assert_eq!(name.as_str(), text);
    assert!((1..=Name::MAX_LEN).contains(&text.len()));
    assert_eq!(name.folded().folded(), name.folded());
    assert!(name.folded().as_str().eq_ignore_ascii_case(&text));
}

/// An interface's name is the text given, within what the kernel can hold.
fn ifname(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(name) = read::<IfName>(&text) else {
        return;
    };
    assert_eq!(name.as_str(), text);
    assert!((1..=IfName::MAX_LEN).contains(&text.len()));
    assert!(!text.contains(['/', '\0', ' ', ':', '%']) && !matches!(&*text, "." | ".." | "all" | "default"));
}

/// The number leads back to the protocol, and so does its text in any case.
fn protocol(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(protocol) = read::<Protocol>(&text) else {
        return;
    };
    assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
    assert_eq!(protocol.to_string(), text.to_ascii_lowercase());
}

/// Reads a text as a value whose own text reads as the same value; a refusal has something to say.
fn read<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Error> + Display + Eq + Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>();
            assert!(
                again.as_ref().is_ok_and(|again| *again == value),
                "{value:?} is shown as {value}, read as {again:?}"
            );
            Some(value)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}
