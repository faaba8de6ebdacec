//! Why something was not done, for people and for programs.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use overlay_driver::control::{AskError, RemoteError};
use overlay_driver::{AttachError, DrainError, PlugError, Stopped};
use overlay_node::{ControlError, Refused};
use serde::{Deserialize, Serialize};

/// A failure as programs read it: what kind it is of, what is wrong, why, what would mend it, and whether something was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// One word: a refusal's name (`not_found`, `name_taken`, …), or one of `docs/CLI.md`.
    pub(crate) kind: String,
    pub(crate) what: String,
    /// The causes, each of the one before.
    #[serde(default)]
    pub(crate) because: Vec<String>,
    #[serde(default)]
    pub(crate) hint: Option<String>,
    pub(crate) changed: Changed,
}

/// Whether something was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Changed {
    Nothing,
    /// What is left is said.
    Something,
    Unknown,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.because.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for Failure {}

impl Failure {
    pub(crate) fn new(kind: &str, what: impl Into<String>, changed: Changed) -> Self {
        Self { kind: kind.to_owned(), what: what.into(), because: Vec::new(), hint: None, changed }
    }

    /// With what would mend it; nothing where that is not known.
    pub(crate) fn hint(self, hint: &str) -> Self {
        Self { hint: (!hint.is_empty()).then(|| hint.to_owned()), ..self }
    }

    /// What is still to be said of what would mend it to a person who has read `told`.
    pub(crate) fn advice(&self, told: &str) -> Option<&str> {
        let is_told = |hint: &str| told.contains(hint) || self.kind == "not_reached"; // the way that was shown ends with it
        self.hint.as_deref().filter(|hint| !is_told(hint))
    }

    /// What can be said of an error, by the first of its chain that is known.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let chain = chain(error);
        if let Some(failure) = chain.iter().find_map(|error| error.downcast_ref::<Self>()) {
            return failure.clone();
        }
        let (kind, changed) =
            chain.iter().find_map(|error| known(*error)).unwrap_or_else(|| ("failed".to_owned(), Changed::Unknown));
        let mut because: Vec<String> = chain.iter().skip(1).map(ToString::to_string).collect();
        because.dedup();
        let what = error.to_string();
        because.retain(|cause| *cause != what); // of errors that are but their source
        let hint = hint(&kind, &chain);
        Self { kind, what, because, hint, changed }
    }

    /// The same of managers that were asked: of one that has not answered, the error does not say where it is.
    pub(crate) fn at(managers: &[SocketAddr], error: &(dyn Error + 'static)) -> Self {
        let told = Self::of(error);
        let remote = chain(error).into_iter().find_map(|error| error.downcast_ref());
        if !matches!(remote, Some(RemoteError::Late { .. } | RemoteError::Lost)) {
            return told;
        }
        let managers: Vec<String> = managers.iter().map(ToString::to_string).collect();
        Self { what: format!("{} at {}", told.what, managers.join(", ")), ..told }
    }
}

/// An error, and what it is because of, each of the one before.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut chain = vec![unwrapped(error)];
    while let Some(source) = chain.last().copied().and_then(Error::source) {
        chain.push(unwrapped(source));
    }
    chain
}

/// What an error is that says nothing of its own: its source does not show that.
fn unwrapped<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    match error.downcast_ref::<AttachError>() {
        Some(AttachError::Control(error)) => error,
        Some(AttachError::Plug(error)) => error,
        _ => error,
    }
}

/// Of the errors that say it, which kind they are of, and what they leave.
fn known(error: &(dyn Error + 'static)) -> Option<(String, Changed)> {
    let said = |kind: &str, changed| Some((kind.to_owned(), changed));
    if let Some(error) = error.downcast_ref::<AttachError>() {
        return match error {
            AttachError::Left { .. } => said("left", Changed::Something),
            AttachError::NotInEffect { .. } => said("not_in_effect", Changed::Nothing),
            AttachError::Late { .. } => said("late", Changed::Nothing),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<ControlError>() {
        return match error {
            ControlError::Refused(refused) => Some((name(refused), Changed::Nothing)),
            ControlError::Store(_) => said("store", Changed::Nothing),
            ControlError::Contended { .. } => said("contended", Changed::Nothing),
            ControlError::InDoubt(_) => said("in_doubt", Changed::Unknown),
            ControlError::Unreachable(_) => said("unreachable", Changed::Nothing),
            ControlError::Corrupt { .. } => said("corrupt", Changed::Nothing),
            _ => said("failed", Changed::Unknown),
        };
    }
    if let Some(error) = error.downcast_ref::<AskError<Failure>>() {
        return match error {
            AskError::InDoubt(_) => said("in_doubt", Changed::Unknown),
            _ => said("unreachable", Changed::Nothing),
        };
    }
    if error.is::<RemoteError>() {
        return said("unreachable", Changed::Nothing);
    }
    if error.is::<Stopped>() {
        return said("stopped", Changed::Unknown);
    }
    if error.is::<PlugError>() {
        return said("not_plugged", Changed::Nothing);
    }
    if let Some(error) = error.downcast_ref::<DrainError>() {
        return match error {
            DrainError::NotHere { .. } => said("not_here", Changed::Nothing),
            _ => said("not_drained", Changed::Something),
        };
    }
    error.is::<lexopt::Error>().then(|| ("usage".to_owned(), Changed::Nothing))
}

/// The name that a refusal has on the wire.
fn name(refused: &Refused) -> String {
    let value = serde_json::to_value(refused).unwrap_or_default();
    let named = value.as_object().and_then(|object| object.keys().next().cloned());
    named.or_else(|| value.as_str().map(str::to_owned)).unwrap_or_else(|| "refused".to_owned())
}

/// What would mend it, where that is not in the words themselves.
fn hint(kind: &str, chain: &[&(dyn Error + 'static)]) -> Option<String> {
    let refused = chain.iter().find_map(|error| error.downcast_ref::<ControlError>()?.refusal());
    Some(match (kind, refused) {
        ("not_found", Some(Refused::NotFound { what, .. })) => match what.to_string().as_str() {
            "endpoint" => "overlay-node status shows what is plugged in here".to_owned(),
            what => format!("overlay-node {what} ls shows what there is"),
        },
        ("usage", _) => "overlay-node --help".to_owned(),
        ("unreachable", _) => of_whom(chain.iter().find_map(|error| error.downcast_ref())?)?.to_owned(),
        ("in_doubt", _) => "see whether it was done, and repeat it if not".to_owned(),
        ("store" | "contended", _) => "try again after a while".to_owned(),
        ("not_in_effect" | "late" | "not_plugged", _) => "overlay-node status says what hinders it".to_owned(),
        ("left", _) => "overlay-node detach of that endpoint".to_owned(),
        _ => chain.iter().find_map(|error| after_colon(&error.to_string()))?,
    })
}

/// What mends it that somebody is not reached, or of no use: the node at its socket, or a manager elsewhere.
fn of_whom(error: &RemoteError) -> Option<&'static str> {
    Some(match error {
        RemoteError::Connect { .. } => {
            "see whether the node runs (overlay-node run), and name its socket by --socket if that is elsewhere"
        }
        RemoteError::ConnectTo { .. } | RemoteError::NoManager => {
            "see whether a manager runs there, and whether its port, 2377, is reached from here"
        }
        RemoteError::Untrusted(_) => "use a token of this cluster: overlay-node node token, at a manager, shows it",
        RemoteError::Unserved { what } if what == "questions of the cluster" => {
            "ask at a manager: it is no question for a worker"
        }
        RemoteError::Late { .. } | RemoteError::Lost => {
            "see whether who is asked runs, and is reached from here; try again after a while"
        }
        _ => return None, // they say so themselves
    })
}

/// Sentences of this family say what would be right behind a colon, beginning with what is to be done.
fn after_colon(text: &str) -> Option<String> {
    let (_, behind) = text.rsplit_once(": ")?;
    let first = behind.split(' ').next()?;
    DOINGS.contains(&first).then(|| behind.to_owned())
}

/// What they begin with.
const DOINGS: &[&str] = &[
    "add", "allow", "ask", "attach", "be", "choose", "create", "detach", "drain", "end", "free", "give", "leave",
    "look", "name", "node", "promote", "publish", "put", "remove", "run", "see", "start", "stop", "try", "use",
];

#[cfg(test)]
mod tests {
    use overlay_core::Name;
    use overlay_driver::control::{ClusterError, JoinError};

    use super::*;

    fn of(error: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure::of(&*error.into())
    }

    #[test]
    fn programs_are_told_which_kind_it_is_of_what_mends_it_and_whether_anything_changed() {
        let name: Name = "front".parse().unwrap();
        let taken = Refused::Predefined { name };
        let told = of(AttachError::Control(ControlError::Refused(taken)));
        assert_eq!((told.kind.as_str(), told.changed), ("predefined", Changed::Nothing));
        let not_found: ControlError =
            serde_json::from_str::<Refused>(r#"{"not_found":{"what":"network","reference":"x"}}"#).unwrap().into();
        let told = of(not_found);
        assert_eq!((told.kind.as_str(), told.what.as_str()), ("not_found", "network x not found"));
        assert_eq!(
            (told.hint.as_deref(), told.because.len()),
            (Some("overlay-node network ls shows what there is"), 0)
        );
        let doubt = ControlError::InDoubt(std::sync::Arc::new(std::io::Error::other("lost")));
        let told = of(doubt);
        assert_eq!(
            (told.kind.as_str(), told.changed, told.because),
            ("in_doubt", Changed::Unknown, vec!["lost".to_owned()])
        );
        let present = Refused::IngressPresent { id: overlay_core::NetworkId::from_bytes([1; 16]) };
        assert_eq!(of(ControlError::from(present)).hint.as_deref(), Some("remove it first"));
        assert_eq!(of(lexopt::Error::from("no")).kind, "usage");
        assert_eq!((of("x").kind.as_str(), of("x").changed), ("failed", Changed::Unknown));
        let taken = Failure::new("name_taken", "it exists: choose another name", Changed::Nothing);
        assert_eq!(taken.hint("choose another name").advice("it exists: choose another name"), None);
        let alone = Failure::new("unreachable", "nobody answers", Changed::Nothing).hint("see whether it runs");
        assert_eq!(alone.advice("nobody answers"), Some("see whether it runs"));
        let elsewhere = || RemoteError::ConnectTo {
            address: ([192, 0, 2, 1], 2377).into(),
            source: std::sync::Arc::new(std::io::Error::other("refused")),
        };
        let unserved = RemoteError::Unserved { what: "questions of the cluster".to_owned() };
        for (error, hint) in [(elsewhere(), "whether a manager runs there"), (unserved, "ask at a manager")] {
            let told = of(ClusterError::Unreachable(error));
            assert!(told.kind == "unreachable" && told.hint.as_deref().is_some_and(|it| it.contains(hint)), "{told:?}");
        }
        let own = Failure::new("not_reached", "it is not reached", Changed::Nothing);
        assert_eq!(own.clone().hint(""), own);
        assert_eq!(own.clone().hint("plug it in").advice("it is not reached"), None);
        assert_eq!(of(own.clone()), own);
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"not_reached","what":"it is not reached","because":[],"hint":null,"changed":"nothing"}"#
        );
    }

    #[test]
    fn of_managers_that_do_not_answer_it_is_said_where_they_are() {
        let managers = [([192, 0, 2, 1], 2377).into(), ([192, 0, 2, 2], 2377).into()];
        let told = |error| Failure::at(&managers, &JoinError::from(ClusterError::Unreachable(error)));
        let late = told(RemoteError::Late { after: std::time::Duration::from_secs(5) });
        let text = "no manager could be asked at 192.0.2.1:2377, 192.0.2.2:2377: no answer within 5 s";
        assert_eq!((late.to_string().as_str(), late.kind.as_str()), (text, "unreachable"));
        assert!(late.hint.is_some_and(|hint| hint.contains("who is asked runs")));
        assert_eq!(told(RemoteError::NoManager).what, "no manager could be asked");
    }
}
