//! What users of a cluster do: networks, services, containers.

use std::time::Duration;

use overlay_core::testing::block_on;
use overlay_core::{EndpointId, Name, NetworkId, ServiceId, UnixTime};
use overlay_dns::Health;
use overlay_gossip::Role;
use overlay_node::{
    Control, ControlError, Endpoint, EndpointSpec, Input, Manager, Network, NetworkSpec, NodeSpec, Reference, Service,
    ServiceSpec, mesh_replica,
};

use crate::cluster::manager;
use crate::node::Container;
use crate::poll::poll_at_most;
use crate::{Cluster, FabricError};

/// How often a call is made again whose answer was lost, and how long after.
const ATTEMPTS: usize = 400;
const AGAIN: Duration = Duration::from_millis(20);
/// Calls that are broken off are polled fewer times than this: most need as many while the store stalls.
const LAST_POLL: usize = 24;

impl Cluster {
    /// Has a manager that runs do something. A call that the store hindered, or whose answer was lost, is made again,
    /// by any manager: so it must be one that may be repeated.
    ///
    /// # Errors
    /// What the manager says, or that none runs.
    #[expect(clippy::needless_pass_by_value, reason = "a closure is written where it is given")]
    pub fn control<T>(
        &mut self,
        call: impl AsyncFn(&Manager, UnixTime) -> Result<T, ControlError>,
    ) -> Result<T, FabricError> {
        let mut tried = 0;
        loop {
            let managers: Vec<usize> =
                self.net.running().filter(|number| self.nodes[*number].manager.is_some()).collect();
            let chosen = self.dice.below(managers.len());
            let number = *managers.get(chosen).ok_or(FabricError::NoManager)?;
            let now = self.date(number);
            let manager = self.nodes[number].manager.as_ref().ok_or(FabricError::NoManager)?;
            tried += 1;
            let breaks = self.break_calls > 0 && self.dice.one_in(self.break_calls);
            let times = if breaks { self.dice.below(LAST_POLL) } else { usize::MAX };
            match poll_at_most(call(manager, now), times) {
                None if breaks => {
                    self.broken_calls += 1;
                    self.run_for(AGAIN);
                }
                None => return Err(FabricError::Stuck),
                Some(Err(error)) if error.refusal().is_none() && tried < ATTEMPTS => self.run_for(AGAIN),
                Some(result) => return Ok(result?),
            }
        }
    }

    /// Creates a network.
    ///
    /// # Errors
    /// What is wrong with it.
    #[expect(clippy::needless_pass_by_value, reason = "as in `Control`")]
    pub fn create_network(&mut self, spec: NetworkSpec) -> Result<Network, FabricError> {
        let id = NetworkId::from_bytes(self.draw());
        self.control(async |manager, now| manager.create_network(id, spec.clone(), now).await)
    }

    /// Changes a network: gives it more subnets, or other options of those that may change.
    ///
    /// # Errors
    /// What cannot be changed, or had.
    #[expect(clippy::needless_pass_by_value, reason = "as in `Control`")]
    pub fn change_network(&mut self, network: &str, spec: NetworkSpec) -> Result<Network, FabricError> {
        let id = self.network(network)?.id;
        self.control(async |manager, now| manager.change_network(&id.into(), spec.clone(), now).await)
    }

    /// Removes a network, by its name or id.
    ///
    /// # Errors
    /// If there is none such, or who uses it.
    pub fn remove_network(&mut self, network: &str) -> Result<Network, FabricError> {
        let network = self.network(network)?;
        self.control(async |manager, now| match manager.remove_network(&network.id.into(), now).await {
            // An attempt before, whose answer was lost, did it.
            Err(error) if is_gone(&error) => Ok(network.clone()),
            result => result,
        })
    }

    /// A network, by its name or id.
    ///
    /// # Errors
    /// If there is none such.
    pub fn network(&self, network: &str) -> Result<Network, FabricError> {
        Ok(block_on(self.oracle.network(&Reference::from(network)))?)
    }

    /// All networks, in the order of their names.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn networks(&self) -> Result<Vec<Network>, FabricError> {
        Ok(block_on(self.oracle.networks())?)
    }

    /// All endpoints of a network.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn endpoints(&self, network: NetworkId) -> Result<Vec<Endpoint>, FabricError> {
        Ok(block_on(self.oracle.endpoints(network))?)
    }

    /// Removes a node from the catalogue, and what is attached on it. Its agent is told nothing and runs on as before, with all that it knows: nobody but who keeps the
    /// catalogue is asked to obey.
    ///
    /// # Errors
    /// If there is none such, or no other manager.
    pub fn remove_node(&mut self, node: usize) -> Result<(), FabricError> {
        let id = self.nodes.get(node).ok_or(FabricError::NoNode(node))?.id;
        let reference = Reference::from(id);
        self.control(async |manager, now| match manager.remove_node(&reference, now).await {
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            result => result,
        })?;
        if let Some(node) = self.nodes.get_mut(node) {
            (node.is_removed, node.manager) = (true, None);
            node.reports.clear();
        }
        Ok(())
    }

    /// Adds a node again that was removed, after its containers were stopped; it is told of the catalogue again.
    ///
    /// # Errors
    /// If there is none such.
    pub fn readmit_node(&mut self, number: usize) -> Result<(), FabricError> {
        let (seed, is_up) = (self.dice.seed(), self.net.machine(number).is_some());
        let node = self.nodes.get_mut(number).ok_or(FabricError::NoNode(number))?;
        node.is_removed = false;
        if node.role == Role::Manager && is_up {
            node.manager = Some(manager(&self.store, &self.root, (node.id, seed))?);
        }
        let (id, role) = (node.id, node.role);
        let containers = node.containers.clone();
        let plugs = containers.values().flat_map(|container| container.plugs.keys());
        plugs.for_each(|endpoint| self.unplug(number, *endpoint));
        let spec = NodeSpec { name: format!("node-{number}").parse()?, role };
        self.control(async |manager, now| manager.add_node(id, spec.clone(), now).await).map(drop)
    }

    /// Creates a service.
    ///
    /// # Errors
    /// What is wrong with it.
    #[expect(clippy::needless_pass_by_value, reason = "as in `Control`")]
    pub fn create_service(&mut self, spec: ServiceSpec) -> Result<Service, FabricError> {
        let id = ServiceId::from_bytes(self.draw());
        self.control(async |manager, now| manager.create_service(id, spec.clone(), now).await)
    }

    /// Removes a service, by its name or id.
    ///
    /// # Errors
    /// If there is none such, or if endpoints serve it.
    pub fn remove_service(&mut self, service: ServiceId) -> Result<(), FabricError> {
        self.control(async |manager, now| match manager.remove_service(&service.into(), now).await {
            Err(error) if is_gone(&error) => Ok(()),
            result => result.map(drop),
        })
    }

    /// Attaches a container to a network by name; starts it on that node if it does not run. Container names are unique in the cluster.
    ///
    /// # Errors
    /// What is wrong with it, or that it runs elsewhere.
    pub fn attach(&mut self, container: &str, node: usize, network: &str) -> Result<Endpoint, FabricError> {
        let network = self.network(network)?.id;
        let id = self.nodes.get(node).ok_or(FabricError::NoNode(node))?.id;
        self.attach_as(node, EndpointSpec::new(network, container.parse()?, id))
    }

    /// The same, with all that can be said of an endpoint; its node is that of this number.
    ///
    /// # Errors
    /// What is wrong with it, or that it runs elsewhere.
    pub fn attach_as(&mut self, node: usize, spec: EndpointSpec) -> Result<Endpoint, FabricError> {
        let spec = EndpointSpec { node: self.nodes.get(node).ok_or(FabricError::NoNode(node))?.id, ..spec };
        if let Some(other) = self.node_of(&spec.container).filter(|other| *other != node) {
            return Err(FabricError::Elsewhere { container: spec.container.to_string(), node: other });
        }
        let id = EndpointId::from_bytes(self.draw());
        let endpoint = self.control(async |manager, now| manager.attach(id, spec.clone(), now).await)?;
        self.plug(node, &endpoint);
        if let Some(replica) = self.replica_of(&endpoint)? {
            self.plug(node, &replica);
        }
        Ok(endpoint)
    }

    /// The endpoint that a container was given on the ingress network besides one by which it serves.
    fn replica_of(&mut self, endpoint: &Endpoint) -> Result<Option<Endpoint>, FabricError> {
        let EndpointSpec { service, node, container, .. } = &endpoint.spec;
        let Some(id) = service.map(|service| mesh_replica(service, *node, container)) else { return Ok(None) };
        self.control(async |manager, _| manager.endpoint(id).await)
    }

    /// Ends a container's attachment to a network. A container that is on no network any more is stopped.
    ///
    /// # Errors
    /// If there is none such.
    pub fn detach(&mut self, container: &str, network: &str) -> Result<(), FabricError> {
        let network = self.network(network)?.id;
        let (node, endpoint) = self.plugged(container, network)?;
        let ended = self.control(async |manager, now| manager.detach(endpoint, now).await)?;
        self.unplug(node, endpoint);
        let serves = ended.and_then(|ended| Some((ended.spec.service?, ended.spec)));
        if let Some((service, spec)) = serves {
            let replica = mesh_replica(service, spec.node, &spec.container);
            if self.control(async |manager, _| manager.endpoint(replica).await)?.is_none() {
                self.unplug(node, replica);
            }
        }
        Ok(())
    }

    /// Says how well a container's endpoint on a network is, as whoever checks it would. One that drains has no name any more, which
    /// [`check`](Self::check) misses.
    ///
    /// # Errors
    /// If there is none such.
    pub fn set_health(&mut self, container: &str, network: &str, health: Health) -> Result<(), FabricError> {
        let network = self.network(network)?.id;
        let (node, endpoint) = self.plugged(container, network)?;
        self.post(node, Input::Health(endpoint, health));
        Ok(())
    }

    /// Stops a container, and ends all its attachments.
    ///
    /// # Errors
    /// If there is none such.
    pub fn stop(&mut self, container: &str) -> Result<(), FabricError> {
        let none = || FabricError::NoContainer(container.to_owned());
        let node = self.node_of(&container.parse()?).ok_or_else(none)?;
        for endpoint in self.endpoints_of(node, container)? {
            self.control(async |manager, now| manager.detach(endpoint, now).await)?;
            self.unplug(node, endpoint);
        }
        Ok(())
    }

    /// Moves a container with all its attachments to another node, whatever state that it was on is in.
    ///
    /// # Errors
    /// If there is none such, or no such node.
    pub fn relocate(&mut self, container: &str, node: usize) -> Result<(), FabricError> {
        let none = || FabricError::NoContainer(container.to_owned());
        let from = self.node_of(&container.parse()?).ok_or_else(none)?;
        let to = self.nodes.get(node).ok_or(FabricError::NoNode(node))?.id;
        let all = self.endpoints_of(from, container)?;
        let all: Vec<Option<Endpoint>> = all
            .into_iter()
            .map(|id| self.control(async |manager, _| manager.endpoint(id).await))
            .collect::<Result<_, _>>()?;
        for endpoint in all.into_iter().flatten() {
            let EndpointSpec { service, node: of, container, .. } = &endpoint.spec;
            if service.is_some_and(|service| endpoint.id == mesh_replica(service, *of, container)) {
                continue; // it goes along
            }
            let before = self.replica_of(&endpoint)?;
            let moved = self.control(async |manager, now| manager.relocate(endpoint.id, to, now).await)?;
            before.into_iter().for_each(|before| self.unplug(from, before.id));
            self.unplug(from, endpoint.id);
            self.plug(node, &moved);
            if let Some(replica) = self.replica_of(&moved)? {
                self.plug(node, &replica);
            }
        }
        Ok(())
    }

    /// The node a container runs on.
    pub fn node_of(&self, container: &Name) -> Option<usize> {
        self.nodes.iter().position(|node| node.containers.contains_key(container))
    }

    fn endpoints_of(&self, node: usize, container: &str) -> Result<Vec<EndpointId>, FabricError> {
        let container: Name = container.parse()?;
        let plugs = self.nodes.get(node).and_then(|node| node.containers.get(&container)).map(|it| &it.plugs);
        Ok(plugs.into_iter().flat_map(|plugs| plugs.keys().copied()).collect())
    }

    fn plugged(&self, container: &str, network: NetworkId) -> Result<(usize, EndpointId), FabricError> {
        let name: Name = container.parse()?;
        let found = self.nodes.iter().enumerate().find_map(|(number, node)| {
            let plugs = &node.containers.get(&name)?.plugs;
            Some((number, *plugs.iter().find(|(_, (of, _))| *of == network)?.0))
        });
        found.ok_or_else(|| FabricError::NoContainer(container.to_owned()))
    }

    /// What the container runtime does: a namespace, and an interface in it.
    fn plug(&mut self, number: usize, endpoint: &Endpoint) {
        let name = endpoint.spec.container.clone();
        let Some(node) = self.nodes.get_mut(number) else { return };
        self.started += u64::from(!node.containers.contains_key(&name));
        let started = self.started;
        let container = node.containers.entry(name.clone()).or_insert_with(|| Container::new(&name, started));
        let Some(interface) = container.free_interface() else { return };
        container.plugs.entry(endpoint.id).or_insert((endpoint.spec.network, interface));
        container.plug(endpoint.id, false).into_iter().for_each(|input| self.post(number, input));
    }

    fn unplug(&mut self, number: usize, endpoint: EndpointId) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        for container in node.containers.values_mut() {
            container.plugs.remove(&endpoint);
        }
        let ended = node.containers.extract_if(.., |_, container| container.plugs.is_empty());
        let ended: Vec<Name> = ended.map(|(name, _)| name).collect();
        self.post(number, Input::Unplug(endpoint));
        ended.into_iter().for_each(|container| self.post(number, Input::GatewayPort { container, port: None }));
    }

    pub(crate) fn draw(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.dice.seed()[..16]);
        bytes
    }
}

fn is_gone(error: &ControlError) -> bool {
    matches!(error.refusal(), Some(overlay_node::Refused::NotFound { .. }))
}
