//! Whether bridged packets go through the IP hooks.

use std::fmt;

use overlay_core::{BackendError, ErrorKind};
use overlay_kernel::{Namespace, Sysctl};

/// What a namespace's bridges do with packets that they pass on: the settings `net.bridge.bridge-nf-call-*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BridgeNf {
    /// They hand them to the IP hooks, where flows are tracked: the kernel's own setting in a new namespace.
    #[default]
    Through,
    /// They pass them on.
    Around,
    /// Not the same for all protocols: observed only.
    Mixed,
}

impl BridgeNf {
    /// What a namespace has; nothing if its kernel's bridges cannot (`br_netfilter` is not loaded).
    pub(super) fn read(namespace: &Namespace) -> Result<Option<Self>, BackendError> {
        let values = namespace.run(|| SETTINGS.map(|name| sysctl(name)?.read()))?;
        let values: Result<Vec<String>, BackendError> = values.into_iter().collect();
        match values {
            Ok(values) if values.iter().all(|value| value == "1") => Ok(Some(Self::Through)),
            Ok(values) if values.iter().all(|value| value == "0") => Ok(Some(Self::Around)),
            Ok(_) => Ok(Some(Self::Mixed)),
            Err(error) if error.kind() == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets it. Each setting by itself is harmless, and all are set again if not all could be.
    pub(super) fn write(self, namespace: &Namespace) -> Result<(), BackendError> {
        let value = if self == Self::Around { "0" } else { "1" };
        namespace.run(|| SETTINGS.into_iter().try_for_each(|name| sysctl(name)?.set(value)))?
    }
}

fn sysctl(name: &str) -> Result<Sysctl, BackendError> {
    Sysctl::new(["net", "bridge", name])
}

const SETTINGS: [&str; 3] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"];

impl fmt::Display for BridgeNf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Through => "through the IP hooks",
            Self::Around => "around the IP hooks",
            Self::Mixed => "partly through the IP hooks",
        })
    }
}
