//! What membership tells the tables about a node.

/// A change of one member's standing, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// Reachable: new, back from a suspension, or started anew with a higher incarnation.
    Alive {
        /// Which start of the node this is; sequence numbers of its changes begin anew with each.
        incarnation: u64,
    },
    /// Believed failed: its entries stay, and are hidden after a grace.
    Suspended,
    /// Failed for so long that nothing of it is kept.
    Expired,
    /// Gone of its own will: its entries go at once.
    Left,
}
