//! Packets in user space between containers' taps on two hosts of namespaces, and with a kernel's VXLAN.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "tests measure time and wait")]

mod carried;
mod pair;
