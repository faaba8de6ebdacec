#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod catalogue;
mod control;
mod desired;
mod knowledge;
mod manager;
mod place;
mod record;

pub use catalogue::{CatalogueChange, Feed, RootError};
pub use control::{Control, ControlError, Reference, Refused, User};
pub use desired::{Desired, PlaceState, Route, Routes, RoutesStep};
pub use knowledge::{Knowledge, LocalEndpoint, NodeFacts, RemoteEndpoint, Section, Standing};
pub use manager::{Manager, Settled};
pub use place::{Place, PlaceTables, Places};
pub use record::{
    Condition, Endpoint, EndpointMode, EndpointSpec, Family, Kind, KindError, Network, NetworkSpec, Node, NodeSpec,
    PublishMode, PublishedPort, Service, ServiceSpec,
};
