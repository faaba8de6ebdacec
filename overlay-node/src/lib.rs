#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod agent;
mod catalogue;
mod control;
mod derive;
mod desired;
mod drain;
mod explain;
mod knowledge;
mod manager;
mod mesh;
mod place;
mod record;
mod signing;
#[cfg(feature = "testing")]
pub mod testing;
mod watch;
mod wire;

pub use agent::{
    Agent, AgentConfig, AgentError, AgentEvent, AgentMetrics, Contested, GossipKeyChange, GossipKeyError, Input,
    InputError, Me, UnderlayError, masqueraded, unpublished,
};
pub use catalogue::{CatalogueChange, Feed, Records, RootError, View};
pub use control::{Control, ControlError, Reference, ReferenceLengthError, Refused, User};
pub use derive::{Deriver, Unfit, derive};
pub use desired::{Desired, PlaceState};
pub use drain::{Drain, Drained, Flow, Flows, LeftFlows, Order, Rollout, Step};
pub use explain::{Break, Explanation, Hop, NameOf, ServiceBackend, Target, explain, explain_published};
pub use knowledge::{
    Carried, Contest, GatewayBridge, GatewayPort, Knowledge, LaneKeys, LocalEndpoint, NodeFacts, Protection, RESOLVER,
    RemoteEndpoint, Section, Settings, Standing, TunnelKeys,
};
pub use manager::{Manager, Settled, usually_kept};
pub use mesh::mesh_replica;
pub use place::{
    Acting, Job, MemoryPlace, MemoryPlaces, Place, PlacePlan, PlaceTables, Places, Progress, Ran, Round, RoundRun,
    Schedule, Upkeep, UpkeepConfig, Work,
};
pub use record::{
    Access, AccessError, Balancing, ClientSource, Condition, Encryption, Endpoint, EndpointMode, EndpointSpec, Family,
    Kind, Network, NetworkSpec, Node, NodeSpec, PublishError, PublishMode, PublishedPort, Scope, Service, ServiceSpec,
    Stay,
};
pub use signing::{Signing, Vouch};
pub use watch::{EndpointChange, ServiceEndpoint, ServiceEndpoints, ServiceEvent};
pub use wire::{FACT_LIMIT, Malformed, TooLong, Underlay};
