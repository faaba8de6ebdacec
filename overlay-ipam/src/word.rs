//! The words of errors, when they come from elsewhere.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

/// One of [`WORDS`].
pub(crate) type Word = &'static str;

/// Reads a word. One that a later release knows and this does not becomes "something": the rest of an error is worth more.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    Ok(WORDS.iter().copied().find(|word| *word == text).unwrap_or("something"))
}

/// All that errors call things.
const WORDS: &[Word] = &[
    "subnet",
    "range",
    "VIP range",
    "gateway",
    "auxiliary address",
    "a gateway",
    "a range",
    "an auxiliary address",
    "external",
];
