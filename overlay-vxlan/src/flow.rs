//! stub
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SourcePorts(u16);
impl SourcePorts {
    pub const DYNAMIC: Self = Self(49152);
}
