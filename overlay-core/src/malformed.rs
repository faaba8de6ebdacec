//! Why bytes are no message, record or fact.

/// Bytes that are not what they claim to be: the fault of who wrote them. Nothing was changed by them.
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
    /// A format of another release.
    #[error("its version is {found}, this node reads {read}")]
    Version {
        /// The version found.
        found: u8,
        /// The version that is read.
        read: u8,
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
    /// What has no order of its own, out of order or twice: so one value has one encoding.
    #[error("{field} are not in ascending order, each once")]
    Order {
        /// The field.
        field: &'static str,
    },
    /// Bytes that are no text of the field's kind.
    #[error("{field} is no such text")]
    Text {
        /// The field.
        field: &'static str,
    },
}
