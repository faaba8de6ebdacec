//! Virtual services on a real kernel.
