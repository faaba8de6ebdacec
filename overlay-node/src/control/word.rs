//! The words of errors, when they come from elsewhere.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

/// One of [`WORDS`].
pub(crate) type Word = &'static str;

/// Reads a word. One that a later release knows and this does not becomes "object": the rest of an error is worth more.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    Ok(WORDS.iter().copied().find(|word| *word == text).unwrap_or("object"))
}

/// All that errors call things.
const WORDS: &[Word] = &[
    "network",
    "service",
    "endpoint",
    "node",
    "networks",
    "published ports",
    "groups of 256 published ports",
    "places and sources of published ports",
    "container",
    "addresses",
    "name",
    "names",
    "label",
    "labels",
    "kind",
    "ingress",
    "internal",
    "encrypted",
    "VNI",
    "external subnets",
];
