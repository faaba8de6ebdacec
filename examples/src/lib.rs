//! What several examples share. The programs are in `src/bin`. This also holds the README's code to what it says.

#![forbid(unsafe_code)]

pub mod capture;
pub mod exposition;
pub mod listing;
pub mod process;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The guides of `docs`.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/orchestrator.md")]
    struct Orchestrator;
    #[doc = include_str!("../../docs/container-runtime.md")]
    struct ContainerRuntime;
    #[doc = include_str!("../../docs/microvm.md")]
    struct MicroVm;
    #[doc = include_str!("../../docs/edge-mesh.md")]
    struct EdgeMesh;
}
