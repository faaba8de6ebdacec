//! What goes over the socket: one JSON value a line.
//!
//! A client begins with `{"hello":{"version":1,"purpose":"call"}}`, and is answered `{"welcome":…}` or `{"refused":…}`. Then it
//! sends requests, `{"id":7,"call":{"create_network":{…}}}`, as many as it likes, and gets
//! `{"answer":{"id":7,"outcome":{"ok":…}}}` or `{"answer":{"id":7,"outcome":{"error":…}}}` for each, in any order. Who comes with the
//! purpose `follow`, or `{"follow_after":17}` where he was told all as of that revision, or `{"follow_with":{…}}` where he watches services or was told a part, sends nothing else, and gets `{"told":…}` and `"beat"`; with `{"watch":"web"}` it is `{"watched":…}` and `"beat"`. Of a connection with
//! requests, the server's last word is `"bye"`, once all that it took is answered: what is not was never taken.

use std::collections::{BTreeMap, BTreeSet};

use overlay_node::{CatalogueChange, ControlError, EndpointChange, Reference, ServiceEndpoints};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::Call;
use super::{ClusterRefusal, RemoteError, Unwelcome};

/// The version of all this. A release that adds what an older one may not overlook, be it a field of a spec, raises it.
pub(super) const VERSION: u32 = 1;

/// A client's first line, as far as every version has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello<T> {
    pub(super) hello: T,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spoken {
    pub(super) version: u32,
}

/// A client's first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) version: u32,
    pub(super) purpose: Purpose,
}

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    Call,
    Follow,
    /// The same for who was told all as of that revision.
    FollowAfter(u64),
    /// The same for who watches services, or was told a part. Who is told a part and says only as of when he was told all is told all of the part anew.
    FollowWith(Wish),
    /// The endpoints of a service.
    Watch(Reference),
}

/// What somebody who follows has been told, and what he would be told. A node that is no manager is told what it [needs](overlay_node::View), and
/// that follows from the catalogue and from this: so what is not true in it gives nothing that could not be had by the truth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// As of when he was told all that was for him; none if he was told nothing.
    pub(super) after: Option<u64>,
    /// The services that he watched then, if he was told a part; none if all.
    pub(super) held: Option<BTreeSet<Reference>>,
    /// The services that he watches.
    pub(super) watches: BTreeSet<Reference>,
}

impl Wish {
    /// As many services are watched at most.
    pub(super) const WATCHES: usize = 1_024;
}

/// Every later line of a client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<C> {
    pub(super) id: u64,
    pub(super) call: C,
}

/// As much of a request as can be read of one that is not understood.
#[derive(Debug, Deserialize)]
pub(super) struct Numbered {
    pub(super) id: u64,
}

/// What a server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Frame<T> {
    Welcome(Welcome),
    /// The connection is closed after that.
    Refused(Refusal),
    Answer {
        id: u64,
        outcome: T,
    },
    Told(Told),
    Watched(Watched),
    /// The store could not be read; it goes on nevertheless.
    Trouble(ControlError),
    Beat,
    Bye,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) version: u32,
    /// The most bytes of a request.
    pub(super) request: usize,
    /// How often a follower hears something.
    pub(super) beat_millis: u64,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Refusal {
    Denied {
        uid: u32,
        gid: u32,
    },
    Version {
        client: u32,
        server: u32,
    },
    Busy {
        limit: usize,
    },
    UserBusy {
        uid: u32,
        limit: usize,
    },
    NodeBusy {
        limit: usize,
    },
    /// The certificate is not believed any more.
    Untrusted {
        why: String,
    },
    /// Something else than our protocol was agreed upon, or nothing.
    Protocol {},
    /// Only managers do that.
    OnlyManagers {
        what: String,
    },
    TooLong {
        limit: usize,
    },
    Malformed {
        flaw: String,
    },
    Unserved {
        what: String,
    },
}

impl From<Refusal> for RemoteError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied { uid, gid } => Self::Denied { uid, gid },
            Refusal::Version { client, server } => Self::Version { client, server },
            Refusal::Busy { limit } => Self::Busy { limit },
            Refusal::UserBusy { uid, limit } => Self::UserBusy { uid, limit },
            Refusal::NodeBusy { limit } => Self::NodeBusy { limit },
            Refusal::Untrusted { why } => Self::Unwelcome(Unwelcome::Other(why)),
            Refusal::Protocol {} => Self::Unwelcome(Unwelcome::Protocol),
            Refusal::OnlyManagers { what } => Self::OnlyManagers { what },
            Refusal::TooLong { limit } => Self::TooLong { bytes: limit.saturating_add(1), limit },
            Refusal::Malformed { flaw } => Self::Unknown { flaw },
            Refusal::Unserved { what } => Self::Unserved { what },
        }
    }
}

/// What became of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome<T> {
    Ok(T),
    Error(Box<Fault>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    Control(ControlError),
    Local(Value),
    Cluster(ClusterRefusal),
    Malformed { flaw: String },
    Unserved { what: String },
    Locked {},
    TooLong { bytes: usize, limit: usize },
    Late { millis: u64 },
}

/// A part of a batch of changes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// Whether the batch is all that there is.
    pub(super) all: bool,
    /// Whether he is told a part of the catalogue: what he needs.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(super) part: bool,
    /// Whether the batch goes on.
    pub(super) more: bool,
    /// As of when all was told, at the end of a batch.
    #[serde(default)]
    pub(super) at: u64,
    pub(super) changes: Vec<CatalogueChange>,
    /// What records cannot be read from now on, and why, at the end of a batch: of one that is all, or if those are others than before.
    pub(super) unreadable: Option<BTreeMap<String, String>>,
    /// What changes are of that were not understood, and what is wrong with them: as far as it was read, not told.
    #[serde(skip)]
    pub(super) misread: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
const fn is_not(it: &bool) -> bool {
    !*it
}

/// A part of an event of a service's endpoints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Watched {
    /// Whether the event goes on.
    pub(super) more: bool,
    pub(super) part: WatchedPart,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WatchedPart {
    /// In place of all that was told before. The endpoints follow, as changes.
    All(Option<Box<ServiceEndpoints>>),
    Changes(Vec<EndpointChange>),
}

/// A line. What we send always has a JSON form: its keys are texts, numbers or ids, and what is others' comes as a JSON value.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("frames have a JSON form"));
    line.push(b'\n');
    line
}

/// A line that answers a request, if it is not too long.
pub(super) fn answer<T: Serialize>(id: u64, outcome: Outcome<T>, limit: usize) -> Vec<u8> {
    let told = line(&Frame::Answer { id, outcome });
    match told.len().saturating_sub(1) {
        bytes if bytes > limit => {
            drop(told);
            let fault = Fault::TooLong { bytes, limit };
            line(&Frame::Answer { id, outcome: Outcome::<()>::Error(Box::new(fault)) })
        }
        _ => told,
    }
}

/// A request as a server reads it.
pub(super) type Asked = Request<Call>;
