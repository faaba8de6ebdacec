//! The examples are binaries: see `src/bin`. This holds the README's code to what it says.

#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
