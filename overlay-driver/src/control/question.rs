//! What is asked of the process itself, beside the cluster's [`Control`](overlay_node::Control).

use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Caller;
use super::call::Reply;
use super::frame::Fault;

/// The language of such questions: usually an enum, one variant for each. Both processes have the same, and it goes between them in
/// its serde form, which needs a JSON one.
///
/// ```
/// use overlay_driver::control::Question;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum NodeQuestion {
///     Status,
///     Drain { for_s: u64 },
/// }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Status {
///     endpoints: usize,
/// }
///
/// #[derive(Debug, thiserror::Error, Serialize, Deserialize)]
/// #[error("already draining: wait until that ends")]
/// struct Draining;
///
/// impl Question for NodeQuestion {
///     type Answer = Status;
///     type Refusal = Draining;
///
///     fn changes(&self) -> bool {
///         matches!(self, Self::Drain { .. })
///     }
/// }
/// ```
pub trait Question: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What answers it.
    type Answer: Serialize + DeserializeOwned + Send;
    /// Why it is not answered. It keeps its type on the way.
    type Refusal: Error + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Whether asking may change something: then a client whose connection broke does not simply ask again, but says that it is
    /// [in doubt](super::AskError::InDoubt).
    fn changes(&self) -> bool;
}

/// Answers questions. A [`ControlServer`](super::ControlServer) is [given one](super::ControlServer::with_local).
#[async_trait]
pub trait Local<Q: Question>: Send + Sync + 'static {
    /// Answers one, for somebody who may ask. Several may be asked at once. If it takes longer than
    /// [`Limits::call`](super::Limits::call), or the server stops, it is dropped.
    ///
    /// # Errors
    /// As the question's language says.
    async fn answer(&self, question: Q, caller: &Caller) -> Result<Q::Answer, Q::Refusal>;
}

/// A [`Local`] of some language.
#[async_trait]
pub(super) trait AnyLocal: Send + Sync {
    async fn answer(&self, question: Value, caller: &Caller, reply: Reply) -> Vec<u8>;
}

pub(super) struct Spoken<Q> {
    local: Arc<dyn Local<Q>>,
    language: PhantomData<fn(Q)>,
}

impl<Q: Question> Spoken<Q> {
    pub(super) fn new(local: Arc<dyn Local<Q>>) -> Self {
        Self { local, language: PhantomData }
    }
}

#[async_trait]
impl<Q: Question> AnyLocal for Spoken<Q> {
    async fn answer(&self, question: Value, caller: &Caller, reply: Reply) -> Vec<u8> {
        let malformed = |error: serde_json::Error| Fault::Malformed { flaw: error.to_string() };
        let question = match serde_json::from_value::<Q>(question) {
            Ok(question) => question,
            Err(error) => return reply.fault(malformed(error)),
        };
        let told = match self.local.answer(question, caller).await {
            Ok(answer) => serde_json::to_value(answer).map(Ok),
            Err(refusal) => serde_json::to_value(refusal).map(Err),
        };
        match told {
            Ok(Ok(answer)) => reply.ok(answer),
            Ok(Err(refusal)) => reply.fault(Fault::Local(refusal)),
            Err(error) => reply.fault(Fault::Control(overlay_node::ControlError::InDoubt(Arc::new(error)))),
        }
    }
}
