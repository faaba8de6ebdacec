//! Errors as another process is told them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use overlay_core::{Revision, StoreError};
use serde::{Deserialize, Serialize};

use super::{ControlError, Refused};

/// A [`ControlError`] whose sources are texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    Refused(Refused),
    Store(Trouble),
    Contended { attempts: u32 },
    InDoubt(Vec<String>),
    Unreachable(Vec<String>),
    Corrupt { key: String, flaw: String },
}

/// A [`StoreError`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trouble {
    Unavailable(Vec<String>),
    Denied(Vec<String>),
    Corrupt(Vec<String>),
    Ahead { asked: u64, at: u64 },
    Failed(Vec<String>),
}

impl From<ControlError> for Told {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused(refused) => Self::Refused(refused),
            ControlError::Store(error) => Self::Store(Trouble::of(&error)),
            ControlError::Contended { attempts } => Self::Contended { attempts },
            ControlError::InDoubt(source) => Self::InDoubt(texts(&*source)),
            ControlError::Unreachable(source) => Self::Unreachable(texts(&*source)),
            ControlError::Corrupt { key, flaw } => Self::Corrupt { key, flaw },
        }
    }
}

impl From<Told> for ControlError {
    fn from(told: Told) -> Self {
        match told {
            Told::Refused(refused) => Self::Refused(refused),
            Told::Store(trouble) => Self::Store(Arc::new(trouble.into_error())),
            Told::Contended { attempts } => Self::Contended { attempts },
            Told::InDoubt(texts) => Self::InDoubt(Arc::new(Cause::of(texts))),
            Told::Unreachable(texts) => Self::Unreachable(Arc::new(Cause::of(texts))),
            Told::Corrupt { key, flaw } => Self::Corrupt { key, flaw },
        }
    }
}

/// What a store elsewhere did is told by the texts below this one.
const DOING: &str = "work for another process";

impl Trouble {
    fn of(error: &StoreError) -> Self {
        let told = texts(error);
        match error {
            StoreError::Unavailable { .. } => Self::Unavailable(told),
            StoreError::Denied { .. } => Self::Denied(told),
            StoreError::Corrupt { .. } => Self::Corrupt(told),
            StoreError::Ahead { asked, at } => Self::Ahead { asked: asked.0, at: at.0 },
            _ => Self::Failed(told),
        }
    }

    fn into_error(self) -> StoreError {
        let source = |texts| -> Box<dyn Error + Send + Sync> { Box::new(Cause::of(texts)) };
        match self {
            Self::Unavailable(texts) => StoreError::Unavailable { doing: DOING, source: source(texts) },
            Self::Denied(texts) => StoreError::Denied { doing: DOING, source: source(texts) },
            Self::Corrupt(texts) => StoreError::Corrupt { doing: DOING, source: source(texts) },
            Self::Ahead { asked, at } => StoreError::Ahead { asked: Revision(asked), at: Revision(at) },
            Self::Failed(texts) => StoreError::Failed { doing: DOING, source: source(texts) },
        }
    }
}

/// How deep sources are told: an error that is its own source ends there.
const DEPTH: usize = 16;

/// What an error says, and each of its sources.
fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = Vec::new();
    let mut at = Some(error);
    while let Some(error) = at.filter(|_| texts.len() < DEPTH) {
        texts.push(error.to_string());
        at = error.source();
    }
    texts
}

/// An error that happened in another process, and its sources.
#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<Self>>,
}

impl Cause {
    fn of(texts: Vec<String>) -> Self {
        let causes = texts.into_iter().take(DEPTH).rev();
        let cause = causes.fold(None, |source, text| Some(Box::new(Self { text, source })));
        cause.map_or_else(|| Self { text: "it did not say why".to_owned(), source: None }, |cause| *cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: &ControlError) -> ControlError {
        serde_json::from_str(&serde_json::to_string(error).unwrap()).unwrap()
    }

    fn all_texts(error: &ControlError) -> Vec<String> {
        texts(error)
    }

    #[test]
    fn what_is_refused_is_the_same_elsewhere() {
        let port = overlay_core::Port::new(80).unwrap();
        let net: ipnet::IpNet = "10.0.0.1/24".parse().unwrap();
        let exhausted = overlay_ipam::ClaimRefusal::Exhausted {
            pool: overlay_ipam::PoolName::Subnets(vec![net.trunc()]),
            in_use: u128::MAX,
            resting: 1,
        };
        let bits = overlay_ipam::RequestError::HostBits { what: "subnet", given: net, should: net.trunc() };
        let refused = [
            Refused::NotFound { what: "network", reference: "front".to_owned() },
            Refused::TooMany { what: "groups of 256 published ports", found: 9, most: 8 },
            Refused::Address(exhausted),
            Refused::Subnet(bits.into()),
            Refused::Port(overlay_ipam::ClaimRefusal::Taken { wanted: port }),
            Refused::TooLong(crate::TooLong { field: "labels", found: 65, most: 64 }),
            Refused::NoIngress,
        ];
        for refused in refused {
            let elsewhere = told(&refused.clone().into());
            assert_eq!(elsewhere.refusal(), Some(&refused));
            assert_eq!(elsewhere.to_string(), refused.to_string());
        }
    }

    #[test]
    fn what_else_failed_keeps_its_kind_and_its_texts() {
        let lost = StoreError::Unavailable { doing: "read 3 keys", source: "connection refused".into() };
        let doubt = ControlError::InDoubt(Arc::new(lost));
        let elsewhere = told(&doubt);
        assert!(elsewhere.is_in_doubt());
        assert_eq!(all_texts(&elsewhere), all_texts(&doubt));

        let store: ControlError = StoreError::Unavailable { doing: "read 3 keys", source: "refused".into() }.into();
        let elsewhere = told(&store);
        assert!(matches!(&elsewhere, ControlError::Store(error) if error.is_transient()));
        assert_eq!(all_texts(&elsewhere)[2..], all_texts(&store)[1..]);

        let ahead: ControlError = StoreError::Ahead { asked: Revision(7), at: Revision(3) }.into();
        assert_eq!(all_texts(&told(&ahead)), all_texts(&ahead));
        let contended = ControlError::Contended { attempts: 7 };
        assert_eq!(all_texts(&told(&contended)), all_texts(&contended));
    }

    #[test]
    fn a_word_of_a_later_release_does_not_hide_the_refusal() {
        let json = r#"{"refused":{"not_found":{"what":"gadget","reference":"x"}}}"#;
        let error: ControlError = serde_json::from_str(json).unwrap();
        assert_eq!(error.to_string(), "object x not found");
    }
}
