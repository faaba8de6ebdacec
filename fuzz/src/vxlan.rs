//! Bodies for overlay-vxlan.

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[];
