//! Sockets born in a namespace.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use overlay_core::BackendError;

use crate::{Namespace, failed};

/// Standard sockets that stay in this namespace wherever they are used. They are blocking: for a runtime, call their
/// `set_nonblocking(true)` first.
impl Namespace {
    /// A UDP socket bound to `local`; port 0 for any.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](overlay_core::ErrorKind::Conflict) if the port is taken,
    /// [`ErrorKind::Gone`](overlay_core::ErrorKind::Gone) if the namespace has no such address.
    pub fn udp(&self, local: SocketAddr) -> Result<UdpSocket, BackendError> {
        let doing = || format!("bind udp {local} in {}", self.id());
        self.run(|| UdpSocket::bind(local)).and_then(|socket| socket.map_err(|error| failed(doing(), error)))
    }

    /// A TCP listener at `local`; port 0 for any.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub fn listen(&self, local: SocketAddr) -> Result<TcpListener, BackendError> {
        let doing = || format!("listen on tcp {local} in {}", self.id());
        self.run(|| TcpListener::bind(local)).and_then(|socket| socket.map_err(|error| failed(doing(), error)))
    }

    /// A TCP connection to `remote`, made within `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](overlay_core::ErrorKind::Timeout) after `deadline`, others as the network says.
    pub fn connect(&self, remote: SocketAddr, deadline: Duration) -> Result<TcpStream, BackendError> {
        let doing = || format!("connect to tcp {remote} from {}", self.id());
        self.run(|| TcpStream::connect_timeout(&remote, deadline))
            .and_then(|stream| stream.map_err(|error| failed(doing(), error)))
    }
}
