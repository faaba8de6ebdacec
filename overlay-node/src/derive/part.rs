//! What is derived of one network.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::EndpointId;
use overlay_dns::Zone;
use overlay_vxlan::Segment;

use super::Footing;
use super::footing::Ground;
use super::lb::Services;
use super::local::LocalPart;
use super::mesh::Mesh;
use super::segment::SegmentPart;
use super::touched::Known;
use crate::PlaceState;

/// What is derived of one network.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// Of an overlay.
    Segment(SegmentPart),
    /// Of a network that each node has for itself.
    Local(LocalPart),
}

impl Part {
    /// `None` for a network that should not be here.
    pub(super) fn derive(known: Known<'_>) -> Option<Self> {
        let footing = Footing::of(known.knowledge, known.section).ok()?;
        match footing.ground {
            Ground::Segment(vni) => SegmentPart::derive(known, vni, footing).map(Self::Segment),
            Ground::Bridge | Ground::Macvlan { .. } => LocalPart::derive(known, footing).map(Self::Local),
        }
    }

    /// As [`derive`](Self::derive), of a network that was derived when `old` was known.
    pub(super) fn derive_again(self, old: Known<'_>, new: Known<'_>) -> Option<Self> {
        let footing = Footing::of(new.knowledge, new.section).ok()?;
        match (self, footing.ground) {
            (Self::Segment(part), Ground::Segment(_)) => part.derive_again(old, new, footing).map(Self::Segment),
            _ => Self::derive(new),
        }
    }

    /// Its names.
    pub(super) const fn zone(&self) -> &Zone {
        match self {
            Self::Segment(part) => &part.zone,
            Self::Local(part) => &part.zone,
        }
    }

    /// The endpoints here that are in effect.
    pub(super) fn ports(&self) -> Box<dyn Iterator<Item = EndpointId> + '_> {
        match self {
            Self::Segment(part) => {
                Box::new(part.state.vxlan.segments.values().flat_map(|segment| segment.ports.keys()).copied())
            }
            Self::Local(part) => Box::new(part.ports.iter().copied()),
        }
    }

    /// Its virtual services, of an overlay.
    pub(super) const fn services(&self) -> Option<&Services> {
        match self {
            Self::Segment(part) => Some(&part.services),
            Self::Local(_) => None,
        }
    }

    /// Their VIPs, in order.
    pub(super) fn vips(&self) -> &[IpAddr] {
        match self {
            Self::Segment(part) => &part.vips,
            Self::Local(_) => &[],
        }
    }

    /// What more there is of an ingress network, and its segment.
    pub(super) fn mesh(&self) -> Option<(&Segment, &Mesh)> {
        match self {
            Self::Segment(part) => part.segment().zip(part.mesh.as_ref()),
            Self::Local(_) => None,
        }
    }

    /// How many endpoints are left out, whole or in part.
    pub(super) const fn unfit(&self) -> usize {
        match self {
            Self::Segment(part) => part.unfit,
            Self::Local(part) => part.unfit,
        }
    }

    /// What its sandbox should hold, of an overlay.
    pub(super) const fn sandbox(&self) -> Option<&Arc<PlaceState>> {
        match self {
            Self::Segment(part) => Some(&part.state),
            Self::Local(_) => None,
        }
    }

    /// What it has of the host or of containers, if each node has it for itself.
    pub(super) const fn local(&self) -> Option<&LocalPart> {
        match self {
            Self::Segment(_) => None,
            Self::Local(part) => Some(part),
        }
    }
}
