//! The number of a format, before all that is of it.

use overlay_core::Malformed;

/// What stands behind the number, if it is the one that is read.
pub(crate) fn behind<'a>(read: u8, field: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
    match bytes.split_first() {
        Some((found, rest)) if *found == read => Ok(rest),
        Some((found, _)) => Err(Malformed::Version { found: *found, read }),
        None => Err(Malformed::Truncated { field, need: 1, have: 0 }),
    }
}
