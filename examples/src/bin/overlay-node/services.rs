//! Services.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::ServiceId;
use overlay_driver::control::ControlClient;
use overlay_node::{
    Condition, Control as _, Endpoint, EndpointChange, Service, ServiceEndpoint, ServiceEndpoints, ServiceEvent,
    ServiceSpec,
};
use serde_json::json;

use crate::Outcome;
use crate::agent::{now, random};
use crate::arguments::Serve;
use crate::commands::show;

/// How long its containers are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked how many there are.
const LOOK: Duration = Duration::from_millis(100);

/// Creates a service, and shows how many of its containers are ready until there are as many as were asked for.
pub(crate) async fn create(node: &ControlClient, json: bool, serve: Serve) -> Outcome {
    let mut networks = Vec::new();
    for network in &serve.networks {
        networks.push(node.network(&network.as_str().into()).await?.id);
    }
    let Serve { mode, ports, balancing, .. } = &serve;
    let (mode, ports, balancing) = (*mode, ports.clone(), *balancing);
    let spec = ServiceSpec { mode, ports, balancing, ..ServiceSpec::new(serve.name, networks) };
    let service = node.create_service(ServiceId::generate(random), spec, now()).await?;
    show(json, &service, || service.id.to_string())?;
    if serve.replicas == 0 || json {
        return Ok(());
    }
    let converged = tokio::time::timeout(PATIENCE, converge(node, &service, serve.replicas));
    match converged.await {
        Ok(done) => done?,
        Err(_) => {
            return Err(
                format!("not converged after {} s: attach its containers with --service", PATIENCE.as_secs()).into()
            );
        }
    }
    println!("verify: Service converged");
    Ok(())
}

async fn converge(node: &ControlClient, service: &Service, replicas: usize) -> Outcome {
    let mut shown = None;
    loop {
        let ready = ready(&endpoints(node, service).await?);
        if shown != Some(ready) {
            println!("overall progress: {} out of {replicas} tasks", ready.min(replicas));
            shown = Some(ready);
        }
        if ready >= replicas {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many containers there are whose endpoints are all ready, of those that they have so far.
fn ready(endpoints: &[Endpoint]) -> usize {
    let mut all = BTreeMap::new();
    for endpoint in endpoints {
        let ready = all.entry((endpoint.spec.node, &endpoint.spec.container)).or_insert(true);
        *ready &= endpoint.condition == Condition::Ready;
    }
    all.into_values().filter(|ready| *ready).count()
}

/// The containers that serve it, each once for each network.
pub(crate) async fn endpoints(node: &ControlClient, service: &Service) -> Outcome<Vec<Endpoint>> {
    let mut all = Vec::new();
    for network in service.spec.networks.keys() {
        let endpoints = node.endpoints(*network).await?;
        all.extend(endpoints.into_iter().filter(|endpoint| endpoint.spec.service == Some(service.id)));
    }
    Ok(all)
}

/// Tells what is known of its endpoints, and every change, one a line.
pub(crate) async fn watch(node: &ControlClient, json: bool, service: &str) -> Outcome {
    let mut watch = node.watch(service);
    loop {
        match watch.next().await? {
            ServiceEvent::All(all) if json => println!("{}", json!({ "all": all.as_deref() })),
            ServiceEvent::All(None) => println!("there is no service {service}"),
            ServiceEvent::All(Some(all)) => println!("{}", listed(&all).trim_end()),
            ServiceEvent::Changes(changes) if json => changes.iter().for_each(|change| println!("{}", json!(change))),
            ServiceEvent::Changes(changes) => changes.iter().for_each(|change| println!("{}", changed(change))),
        }
    }
}

fn listed(all: &ServiceEndpoints) -> String {
    let endpoints = all.endpoints.iter().map(|(id, endpoint)| format!("{} {}\n", id.short(), described(endpoint)));
    format!("{}, {} endpoints\n{}", all.name, all.endpoints.len(), endpoints.collect::<String>())
}

fn changed(change: &EndpointChange) -> String {
    match change {
        EndpointChange::Added(id, endpoint) => format!("{} {}, added", id.short(), described(endpoint)),
        EndpointChange::Changed(id, endpoint) => format!("{} {}, changed", id.short(), described(endpoint)),
        EndpointChange::Health(id, health) => format!("{} {health:?}", id.short()).to_lowercase(),
        EndpointChange::Removed(id) => format!("{} removed", id.short()),
    }
}

fn described(endpoint: &ServiceEndpoint) -> String {
    let ServiceEndpoint { container, node, addresses, weight, health, .. } = endpoint;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let health = format!("{health:?}").to_lowercase();
    format!("{container} on node {}, {}, weight {weight}, {health}", node.short(), addresses.join(" and "))
}

#[cfg(test)]
mod tests {
    use overlay_core::{EndpointId, NetworkId, NodeId, UnixTime};
    use overlay_node::EndpointSpec;

    use super::*;

    #[test]
    fn a_container_on_two_networks_is_one_replica_and_ready_when_all_its_endpoints_are() {
        let endpoint = |network, container: &str, condition| {
            let (id, node) = ([network; 16], NodeId::from_bytes([9; 16]));
            let spec = EndpointSpec::new(NetworkId::from_bytes(id), container.parse().unwrap(), node);
            Endpoint {
                id: EndpointId::from_bytes(id),
                spec,
                addresses: [].into(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                moves: 0,
                created: UnixTime::EPOCH,
                condition,
            }
        };
        let mut all = vec![endpoint(1, "a", Condition::Ready), endpoint(2, "a", Condition::Accepted)];
        assert_eq!(ready(&all), 0);
        all[1].condition = Condition::Ready;
        assert_eq!(ready(&all), 1);
        all.push(endpoint(1, "b", Condition::Ready));
        assert_eq!(ready(&all), 2);
    }
}
