//! What several examples share. The programs are in `src/bin`. This also holds the README's code to what it says.

#![forbid(unsafe_code)]

pub mod capture;
pub mod listing;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
