//! Two nodes in user space, with what lies between them as a function of bytes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod any;
mod bytes;
mod gateway;
mod limits;
mod model_policy;
mod model_segments;
mod model_services;
mod node;
mod plain;
mod policy;
mod sealed;
mod service;
mod whole;
