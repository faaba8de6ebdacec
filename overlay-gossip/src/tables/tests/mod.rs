//! Tests over several nodes on a small virtual network.

mod acted;
mod bulk;
mod hostile;
mod pump;
mod runs;
mod signed;
mod story;
