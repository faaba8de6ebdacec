//! What a machine tells its user.

use overlay_core::NodeId;

use crate::{Member, TableEvent};

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A cluster has answered, and this node knows its members.
    Joined,
    /// A member is there: new, or back from a suspension.
    Up(Member),
    /// A member that was and is there has another address, role, metadata or incarnation.
    Changed(Member),
    /// A member did not answer; it has some seconds to object, and counts as alive until they are over.
    Suspected(NodeId),
    /// A suspected member has objected.
    Cleared(NodeId),
    /// A member is believed failed. Its entries are hidden after a grace, and back without a transfer when it is
    /// [`Up`](Self::Up).
    Suspended(NodeId),
    /// A member was suspended for [`Config::expire_after`](crate::Config::expire_after); nothing of it is kept.
    Expired(NodeId),
    /// A member said goodbye; its entries are gone.
    Left(NodeId),
    /// Another start of this very node, with this greater incarnation, is said to be in the cluster: its incarnation was not
    /// kept, two nodes have one id, or somebody lies (then it may be this machine's own incarnation, with no number left to object
    /// by). What this machine says is believed by nobody; make a new one with a
    /// greater incarnation, or with another id if there is none.
    Superseded {
        /// The greatest that was heard of.
        incarnation: u64,
    },
    /// The goodbye is said: this machine does nothing more.
    Gone,
    /// Something of the tables.
    Table(TableEvent),
}
