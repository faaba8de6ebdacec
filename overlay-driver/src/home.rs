//! The namespace that is the host's.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use overlay_core::{BackendError, Mtu};
use overlay_dns::{Dial, Here};
use overlay_kernel::{Namespace, failed, link};

/// Where the node's own sockets are: the process's namespace, or another that plays the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Home(Option<Arc<Namespace>>);

impl Home {
    /// The process's own namespace need not be entered, which needs a privilege.
    pub(crate) fn of(host: Option<Arc<Namespace>>) -> Self {
        let own = Namespace::current().ok().map(|own| own.id());
        Self(host.filter(|host| own != Some(host.id())))
    }

    /// A UDP and a TCP socket at one address; of port 0, the same one that was free for both.
    pub(crate) fn bind(&self, address: SocketAddr) -> Result<(UdpSocket, TcpListener), BackendError> {
        let mut tries = if address.port() == 0 { 32 } else { 1 };
        loop {
            tries -= 1;
            let tcp = self.run(|| TcpListener::bind(address))?;
            let tcp = tcp.map_err(|error| failed(format!("listen on tcp {address}"), error))?;
            let same = tcp.local_addr().map_err(|error| failed("read a socket's address", error))?;
            match self.run(|| UdpSocket::bind(same))? {
                Ok(udp) => return Ok((udp, tcp)),
                Err(_) if tries > 0 => {}
                Err(error) => return Err(failed(format!("bind udp {same}"), error)),
            }
        }
    }

    /// A TCP socket that is not connected yet.
    pub(crate) fn stream(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        self.run(|| Here.tcp(to)).map_err(io::Error::other)?
    }

    /// The largest packet of the device that has this address; `None` if none has.
    pub(crate) fn mtu(&self, address: IpAddr) -> Result<Option<Mtu>, BackendError> {
        let device = match &self.0 {
            Some(namespace) => link::device_with(namespace, address)?,
            None => link::own_device_with(address)?,
        };
        Ok(device.map(|(_, mtu)| mtu))
    }

    /// Runs this there. It must not take long: where another namespace is entered, a thread is started for it.
    fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T, BackendError> {
        match &self.0 {
            Some(namespace) => namespace.run(job),
            None => Ok(job()),
        }
    }
}

/// Names of the world are asked for from the host.
impl Dial for Home {
    fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        self.run(|| Here.udp(to)).map_err(io::Error::other)?
    }

    fn tcp(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        self.stream(to)
    }
}
