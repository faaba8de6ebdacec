//! What is asked of a node itself, beside the cluster's manager.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use overlay_core::{EndpointId, IfName, Mac, Name, NodeId, Port, Protocol, ServiceId};
use overlay_crypto::pki::{Role, UnlockKey};
use overlay_dns::Health;
use overlay_driver::control::{Caller, ControlClient, Local, Question};
use overlay_driver::{Attach, Driver, OpenVault, Source, Status};
use overlay_lb::{Ask, Weight};
use overlay_node::{Drained, Endpoint, Explanation, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::failure::{Changed, Failure};

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NodeQuestion {
    Attach {
        network: String,
        container: Name,
        source: Source,
        interface: Option<String>,
        ips: Vec<IpAddr>,
        mac: Option<Mac>,
        service: Option<String>,
        #[serde(default)]
        weight: Weight,
    },
    /// For so many milliseconds at most.
    Drain(EndpointId, u64),
    Resume(EndpointId),
    Detach(EndpointId),
    /// How an endpoint here reaches a name or an address, or why not.
    Explain(EndpointId, String),
    /// What becomes of a client that asks for a published port.
    ExplainPublished {
        client: IpAddr,
        at: IpAddr,
        /// None for a client on the node itself.
        by: Option<IfName>,
        protocol: Protocol,
        port: Port,
    },
    /// The node's keys of encrypted networks are to be changed.
    RotateKeys,
    /// All nodes but these change to a new key of gossip.
    RotateGossipKey {
        without: Vec<NodeId>,
    },
    Status,
    /// What the node has made goes, and it goes from the cluster, be it its only manager if that is forced.
    TearDown {
        force: bool,
    },
    /// As that, and the node forgets its cluster.
    Leave {
        force: bool,
    },
    /// The node's keys are locked with this from now on, or not at all.
    Lock(Option<Zeroizing<String>>),
    /// What they are locked with, of a node that waits for it.
    Unlock(Zeroizing<String>),
    /// What they are locked with.
    UnlockKey,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NodeAnswer {
    Attached {
        endpoint: Box<Endpoint>,
        interface: String,
    },
    Drained(Drained),
    Resumed,
    Detached(Option<Box<Endpoint>>),
    /// Line by line, and hop by hop: an [`Explanation`].
    Explained {
        lines: Vec<String>,
        way: Value,
        whole: bool,
    },
    Rotating,
    RotatingGossipKey,
    Status(Box<Status>),
    TearingDown,
    Locked,
    Unlocked,
    UnlockKey(Option<Zeroizing<String>>),
}

/// Why there is none: nothing was changed.
pub(crate) fn refused(what: &str) -> Failure {
    Failure::new("refused", what, Changed::Nothing)
}

impl Question for NodeQuestion {
    type Answer = NodeAnswer;
    type Refusal = Failure;

    fn changes(&self) -> bool {
        !matches!(self, Self::Status | Self::UnlockKey | Self::Explain(..) | Self::ExplainPublished { .. })
    }
}

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All that the node has made is removed.
    TearDown,
    /// And it leaves its cluster.
    Leave,
    /// The node begins anew, with another role.
    Again,
}

/// Answers by a driver.
pub(crate) struct Node {
    pub(crate) driver: Driver,
    /// Tells the process to tear down, and end.
    pub(crate) end: mpsc::Sender<End>,
    /// Where it keeps its place in a cluster, if it has one.
    pub(crate) vault: Option<Arc<OpenVault>>,
    /// How managers of that are asked, if it is one, be it that it cannot serve.
    pub(crate) managers: Option<ControlClient>,
}

impl Node {
    fn vault(&self) -> Result<Arc<OpenVault>, Failure> {
        self.vault.clone().ok_or_else(|| refused("the node is in no cluster, so it has no keys that could be locked"))
    }

    /// Without its last manager nobody would let nodes in, or renew their certificates.
    async fn end(&self, end: End, force: bool) -> Result<NodeAnswer, Failure> {
        if let Some(managers) = self.managers.as_ref().filter(|_| !force) {
            let members = managers.members().await.map_err(|error| refusal(&error))?;
            let mut others = members.iter().filter(|it| it.node != self.driver.node());
            if !others.any(|it| it.role == Role::Manager) {
                return Err(refused(
                    "the node is the last manager of its cluster: promote another before, or end the cluster with --force",
                ));
            }
        }
        self.end.send(end).await.map_err(|_| refused("the node is ending already, in another way"))?;
        Ok(NodeAnswer::TearingDown)
    }

    fn unlock_key(&self) -> Result<NodeAnswer, Failure> {
        let key = self.vault()?.unlock_key();
        Ok(NodeAnswer::UnlockKey(key.map(|key| Zeroizing::new(key.to_string()))))
    }

    async fn lock(&self, key: Option<Zeroizing<String>>) -> Result<NodeAnswer, Failure> {
        let vault = self.vault()?;
        let key = key.map(|key| key.parse::<UnlockKey>()).transpose().map_err(|error| refusal(&error))?;
        let locked = tokio::task::spawn_blocking(move || vault.lock(key)).await.map_err(|error| refusal(&error))?;
        locked.map(|()| NodeAnswer::Locked).map_err(|error| refusal(&error))
    }

    /// Refuses what is said of an endpoint that is not plugged in here: a driver would say nothing.
    async fn has(&self, endpoint: EndpointId) -> Result<(), Failure> {
        let status = self.driver.status().await.map_err(|error| refusal(&error))?;
        if status.plugged.iter().any(|it| it.endpoint == endpoint) {
            return Ok(());
        }
        let what = format!("endpoint {endpoint} is not plugged in here: resume it at the node that has it");
        Err(Failure::new("not_here", what, Changed::Nothing))
    }

    async fn service(&self, name: Option<String>) -> Result<Option<ServiceId>, Failure> {
        let Some(name) = name else { return Ok(None) };
        let found = self.driver.control().service(&name.as_str().into()).await;
        Ok(Some(found.map_err(|error| refusal(&error))?.id))
    }
}

#[async_trait]
impl Local<NodeQuestion> for Node {
    async fn answer(&self, question: NodeQuestion, _: &Caller) -> Result<NodeAnswer, Failure> {
        match question {
            NodeQuestion::Attach { network, container, source, interface, ips, mac, service, weight } => {
                let service = self.service(service).await?;
                let interface = interface.map(|name| name.parse()).transpose().map_err(|error| refusal(&error))?;
                let attach = Attach {
                    interface,
                    addresses: ips.into_iter().collect(),
                    mac,
                    service,
                    weight,
                    ..Attach::new(container, source, network.as_str())
                };
                let attached = self.driver.attach(attach).await.map_err(|error| refusal(&error))?;
                let interface = attached.interface.to_string();
                Ok(NodeAnswer::Attached { endpoint: Box::new(attached.endpoint), interface })
            }
            NodeQuestion::Drain(endpoint, most) => {
                let drained = self.driver.drain(endpoint, Duration::from_millis(most)).await;
                drained.map(NodeAnswer::Drained).map_err(|error| refusal(&error))
            }
            NodeQuestion::Resume(endpoint) => {
                self.has(endpoint).await?;
                let resumed = self.driver.set_health(endpoint, Health::Healthy).await;
                resumed.map(|()| NodeAnswer::Resumed).map_err(|error| refusal(&error))
            }
            NodeQuestion::Detach(endpoint) => {
                let detached = self.driver.detach(endpoint).await.map_err(|error| refusal(&error))?;
                Ok(NodeAnswer::Detached(detached.map(Box::new)))
            }
            NodeQuestion::Explain(from, to) => {
                let to = match to.parse() {
                    Ok(address) => Target::Address(address),
                    Err(_) => Target::Name(to.parse().map_err(|error| refusal(&error))?),
                };
                self.driver.explain(from, to).await.map(|it| explained(&it)).map_err(|error| refusal(&error))
            }
            NodeQuestion::ExplainPublished { client, at, by, protocol, port } => {
                let ask = Ask { by, from: client, to: at, protocol, port };
                self.driver.explain_published(ask).await.map(|it| explained(&it)).map_err(|error| refusal(&error))
            }
            NodeQuestion::RotateKeys => {
                self.driver.rotate_keys().await.map(|()| NodeAnswer::Rotating).map_err(|error| refusal(&error))
            }
            NodeQuestion::RotateGossipKey { without } => {
                let rotated = self.driver.rotate_gossip_keys(without).await;
                rotated.map(|()| NodeAnswer::RotatingGossipKey).map_err(|error| refusal(&error))
            }
            NodeQuestion::Status => {
                let status = self.driver.status().await.map_err(|error| refusal(&error))?;
                Ok(NodeAnswer::Status(Box::new(status)))
            }
            NodeQuestion::TearDown { force } => self.end(End::TearDown, force).await,
            NodeQuestion::Leave { force } => self.end(End::Leave, force).await,
            NodeQuestion::Lock(key) => self.lock(key).await,
            NodeQuestion::UnlockKey => self.unlock_key(),
            NodeQuestion::Unlock(_) => Err(refused("the node runs: it is not waiting to be unlocked")),
        }
    }
}

fn explained(explanation: &Explanation) -> NodeAnswer {
    let lines = explanation.to_string().lines().map(str::to_owned).collect();
    let way = serde_json::to_value(explanation).unwrap_or_default(); // texts, numbers and lists alone
    NodeAnswer::Explained { lines, way, whole: explanation.broken.is_none() }
}

pub(crate) fn refusal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::of(error)
}
