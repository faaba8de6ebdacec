//! What can be wrong with what a cluster is told.

use std::error::Error;
use std::sync::Arc;

use overlay_core::NameError;
use overlay_node::ControlError;

/// Why a cluster did not do what it was told.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FabricError {
    /// A text that is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The managers refused it, or could not do it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// There is no node of this number.
    #[error("there is no node {0}")]
    NoNode(usize),
    /// No manager is running.
    #[error("no manager is running: restart one")]
    NoManager,
    /// A manager waits for something that never comes.
    #[error("the manager's call does not end")]
    Stuck,
    /// There is no such container, or not on this network.
    #[error("container {0} is not there: attach it first")]
    NoContainer(String),
    /// A container runs on another node.
    #[error("container {container} runs on node {node}: move it, or choose another name")]
    Elsewhere {
        /// The container.
        container: String,
        /// Where it is.
        node: usize,
    },
    /// A setting is out of range.
    #[error("the cluster cannot be made so")]
    Setting(#[source] Arc<dyn Error + Send + Sync>),
}

impl FabricError {
    pub(crate) fn internal(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Setting(Arc::new(error))
    }
}
