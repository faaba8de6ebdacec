//! Services.

use std::time::Duration;

use overlay_core::ServiceId;
use overlay_driver::control::ControlClient;
use overlay_node::{Condition, Control as _, Endpoint, Service, ServiceSpec};

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
        let endpoints = endpoints(node, service).await?;
        let ready = endpoints.iter().filter(|endpoint| endpoint.condition == Condition::Ready).count();
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

/// The containers that serve it, each once for each network.
pub(crate) async fn endpoints(node: &ControlClient, service: &Service) -> Outcome<Vec<Endpoint>> {
    let mut all = Vec::new();
    for network in service.spec.networks.keys() {
        let endpoints = node.endpoints(*network).await?;
        all.extend(endpoints.into_iter().filter(|endpoint| endpoint.spec.service == Some(service.id)));
    }
    Ok(all)
}
