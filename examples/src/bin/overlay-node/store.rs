//! Where a manager's catalogue is: in a file of its own, or on an etcd that several managers share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lexopt::{Parser, ValueExt as _};
use overlay_core::Store;
use overlay_store::RedbStore;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Outcome;

/// An etcd, and how it is spoken to, as it stands behind a command.
#[derive(Debug, Default)]
pub(crate) struct EtcdWords {
    pub(crate) servers: Vec<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) authority: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// The same with what the files held: it is kept in the node's vault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Etcd {
    servers: Vec<String>,
    prefix: String,
    /// None for servers on this machine's loopback alone.
    tls: Option<Pem>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Pem {
    authority: String,
    certificate: String,
    key: Zeroizing<String>,
}

impl EtcdWords {
    /// Takes what stands behind a flag.
    pub(crate) fn take(&mut self, flag: String, parser: &mut Parser) -> Result<(), lexopt::Error> {
        match flag.as_str() {
            "--etcd" => self.servers.push(parser.value()?.string()?),
            "--etcd-prefix" => self.prefix = Some(parser.value()?.string()?),
            "--etcd-ca" => self.authority = Some(parser.value()?.into()),
            "--etcd-cert" => self.certificate = Some(parser.value()?.into()),
            "--etcd-key" => self.key = Some(parser.value()?.into()),
            _ => return Err(lexopt::Error::UnexpectedOption(flag)),
        }
        Ok(())
    }

    /// Reads what is named there; `None` if no server is.
    pub(crate) fn read(&self) -> Outcome<Option<Etcd>> {
        if self.servers.is_empty() {
            return Ok(None);
        }
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        let tls = match (&self.authority, &self.certificate, &self.key) {
            (None, None, None) => None,
            (Some(authority), Some(certificate), Some(key)) => Some(Pem {
                authority: read(authority)?,
                certificate: read(certificate)?,
                key: Zeroizing::new(read(key)?),
            }),
            _ => return Err("etcd by TLS needs all of --etcd-ca, --etcd-cert and --etcd-key".into()),
        };
        let prefix = self.prefix.clone().unwrap_or_else(|| "overlay/".to_owned());
        Ok(Some(Etcd { servers: self.servers.clone(), prefix, tls }))
    }
}

/// The store that a manager keeps the catalogue in.
pub(crate) async fn open(etcd: Option<&Etcd>, state: &Path) -> Outcome<Arc<dyn Store>> {
    match etcd {
        None => in_file(state),
        Some(etcd) => on_etcd(etcd).await,
    }
}

/// In a file of the manager's own.
pub(crate) fn in_file(state: &Path) -> Outcome<Arc<dyn Store>> {
    let file = state.join(FILE);
    let store =
        RedbStore::open(&file).map_err(|error| format!("{}: {}", file.display(), overlay_core::told(&error)))?;
    Ok(Arc::new(store))
}

/// What is to be done where another cluster's catalogue is already.
pub(crate) fn taken(etcd: Option<&Etcd>, state: &Path) -> String {
    match etcd {
        None => format!(
            "{} is of a cluster that this node is in no more: remove it, or name another --state, to found another",
            state.join(FILE).display()
        ),
        Some(etcd) => format!(
            "a cluster is at {} under {} already: join it by a manager's token, or name another --etcd-prefix",
            etcd.servers.join(", "),
            etcd.prefix
        ),
    }
}

const FILE: &str = "catalogue.redb";

/// There, once it has answered.
#[cfg(feature = "etcd")]
pub(crate) async fn on_etcd(etcd: &Etcd) -> Outcome<Arc<dyn Store>> {
    use overlay_core::Prefix;
    use overlay_store::{EtcdConfig, EtcdSecurity, EtcdStore};

    let security = match &etcd.tls {
        None => EtcdSecurity::PlaintextOnLoopback,
        Some(Pem { authority, certificate, key }) => EtcdSecurity::Tls {
            authority: authority.clone().into_bytes(),
            certificate: certificate.clone().into_bytes(),
            key: key.as_bytes().to_vec(),
            server_name: None,
        },
    };
    let config = EtcdConfig::new(etcd.servers.iter().cloned(), Prefix::new(etcd.prefix.as_str())?, security);
    Ok(Arc::new(EtcdStore::open(config).await?))
}

#[cfg(not(feature = "etcd"))]
pub(crate) async fn on_etcd(etcd: &Etcd) -> Outcome<Arc<dyn Store>> {
    Err(format!(
        "this overlay-node was built without etcd, and cannot reach {}: build it with --features etcd",
        etcd.servers.join(", ")
    )
    .into())
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(..)")
    }
}
