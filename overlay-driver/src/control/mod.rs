//! The manager's interface over a Unix socket.
