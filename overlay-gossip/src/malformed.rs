//! Why bytes are no message.

/// Bytes that are not what they claim to be; the sender's fault, or the path's. Nothing was changed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The bytes end before what a field, or a length in one, announces.
    #[error("{need} bytes are needed for {field}, {have} are there")]
    Truncated {
        /// What was being read.
        field: &'static str,
        /// Bytes it needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes follow the end of {field}")]
    Trailing {
        /// What was being read.
        field: &'static str,
        /// How many bytes too many.
        extra: usize,
    },
    /// Something that does not travel in such a payload, or not where it stands in it.
    #[error("{message} is where none may be")]
    Misplaced {
        /// What.
        message: &'static str,
    },
    /// A format of another version of this crate.
    #[error("its version is {found}, this node speaks {spoken}")]
    Version {
        /// The version found.
        found: u8,
        /// The version that is understood.
        spoken: u8,
    },
    /// A value outside what the field may hold.
    #[error("{field} is {found}, {least} to {most} would be right")]
    Range {
        /// The field.
        field: &'static str,
        /// What it holds.
        found: u64,
        /// The least it may hold.
        least: u64,
        /// The most it may hold.
        most: u64,
    },
}
