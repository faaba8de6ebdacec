//! Which device, in which namespace.

use std::fmt;
use std::sync::Arc;

use overlay_core::{IfName, NsKey};
use serde::{Deserialize, Serialize};

/// The namespace an object is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// The namespace of the place that the state belongs to.
    #[default]
    Home,
    /// Another one, which holds the other end of something: a container's, the host's. Shared, since it is in the key of every entry there.
    Far(#[serde(with = "shared")] Arc<NsKey>),
}

impl Site {
    /// Another namespace than the place's.
    pub fn far(namespace: NsKey) -> Self {
        Self::Far(Arc::new(namespace))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home => f.write_str("home"),
            Self::Far(namespace) => fmt::Display::fmt(&namespace.name, f),
        }
    }
}

/// A key is written as if it were not shared.
mod shared {
    use std::sync::Arc;

    use overlay_core::NsKey;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(key: &Arc<NsKey>, to: S) -> Result<S::Ok, S::Error> {
        NsKey::serialize(key, to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<NsKey>, D::Error> {
        NsKey::deserialize(from).map(Arc::new)
    }
}

/// A network device: its name, and the namespace the name holds in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dev {
    /// The namespace.
    pub site: Site,
    /// The device's name there.
    pub name: IfName,
}

impl Dev {
    /// A device of the place's own namespace.
    pub const fn home(name: IfName) -> Self {
        Self { site: Site::Home, name }
    }

    /// A device of another namespace.
    pub fn far(namespace: NsKey, name: IfName) -> Self {
        Self { site: Site::far(namespace), name }
    }
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.site {
            Site::Home => fmt::Display::fmt(&self.name, f),
            Site::Far(namespace) => write!(f, "{} in {}", self.name, namespace.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_takes_little_room_in_the_keys_of_thousands_of_entries() {
        assert!(size_of::<Dev>() <= 24);
    }
}
