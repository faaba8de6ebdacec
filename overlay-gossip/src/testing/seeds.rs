//! How many runs a simulation makes.

use std::ops::Range;

/// Seeds for `least` runs; for a quarter of `PROPTEST_CASES`, if that is set and more, so that whoever asks for longer property
/// tests gets longer simulations.
#[expect(clippy::disallowed_methods, reason = "longer tests are asked for by the environment")]
pub fn seeds(least: u64) -> Range<u64> {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse::<u64>().ok());
    0..cases.map_or(least, |cases| least.max(cases / 4))
}
