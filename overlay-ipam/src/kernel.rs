//! What a Linux host has in use.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use overlay_core::{BackendError, ErrorKind};
use overlay_kernel::{Namespace, link};

use crate::{Occupant, Occupation, Occupied};

/// The networks that a host has routes to, and its name servers (feature `kernel`).
///
/// ```no_run
/// use overlay_ipam::{HostNetworks, Occupied};
/// use overlay_kernel::Namespace;
///
/// for occupation in HostNetworks::new(Namespace::current()?).occupied()? {
///     println!("{} is in use by {}", occupation.net, occupation.by);
/// }
/// # Ok::<(), overlay_core::BackendError>(())
/// ```
#[derive(Debug)]
pub struct HostNetworks {
    namespace: Namespace,
    resolv_conf: PathBuf,
}

impl HostNetworks {
    /// Those of `namespace`, and the name servers of `/etc/resolv.conf` (resolv.conf(5)).
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, resolv_conf: PathBuf::from("/etc/resolv.conf") }
    }

    /// Reads the name servers there instead. A file that does not exist has none.
    #[must_use]
    pub fn with_resolv_conf(self, path: impl AsRef<Path>) -> Self {
        Self { resolv_conf: path.as_ref().to_owned(), ..self }
    }

    fn name_servers(&self) -> Result<Vec<IpAddr>, BackendError> {
        match std::fs::read(&self.resolv_conf) {
            Ok(text) => Ok(name_servers(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => {
                let doing = format!("read {}", self.resolv_conf.display());
                Err(BackendError::new(ErrorKind::Permission, doing).caused_by(error.to_string()))
            }
        }
    }
}

impl Occupied for HostNetworks {
    fn occupied(&mut self) -> Result<Vec<Occupation>, BackendError> {
        let routes = link::routed(&self.namespace)?.into_iter().map(|net| Occupation { net, by: Occupant::Route });
        let servers = self.name_servers()?.into_iter();
        let servers = servers.map(|server| Occupation { net: IpNet::from(server), by: Occupant::NameServer });
        Ok(routes.chain(servers).collect())
    }
}

/// The name servers of a resolv.conf that are not the machine itself.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        address.split('%').next()?.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(server).filter(|server| !server.is_loopback() && !server.is_unspecified()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_resolvers_do_and_the_own_machine_is_none() {
        let text = "# nameserver 9.9.9.9\nsearch example\nnameserver 10.0.0.53 # ours\n nameserver\tfe80::1%eth0\n\
                    nameserver 127.0.0.53\nnameserver\nnameserver nonsense\n;nameserver 1.1.1.1\nnameserver ::1\n";
        assert_eq!(name_servers(text), ["10.0.0.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }
}
