//! The network of the routing mesh, replaced by one of our own.

use overlay_core::{Port, Protocol};
use overlay_ipam::{Gateway, SubnetRequest};
use overlay_node::{Network, NetworkSpec, PublishedPort, ServiceSpec};

use crate::session::Session;
use overlay_examples::listing;

use crate::Outcome;

const NAME: &str = "my-ingress";
const SUBNET: &str = "172.16.0.0/16";
const GATEWAY: &str = "172.16.0.1";

pub(crate) fn replace(session: &mut Session) -> Outcome {
    refused_while_used(session)?;
    remove(session)?;
    refused_without(session)?;
    create(session)
}

/// A service that publishes a port at every node.
fn shop() -> Outcome<ServiceSpec> {
    let port = PublishedPort { published: Some(Port::new(8080)?), ..PublishedPort::new(Protocol::Tcp, Port::new(80)?) };
    Ok(ServiceSpec { ports: vec![port], ..ServiceSpec::new("shop".parse()?, []) })
}

fn refused_while_used(session: &mut Session) -> Outcome {
    session.typed(1, "service create --name shop --publish 8080:80");
    let service = session.cluster.create_service(shop()?)?;
    session.shown(&service.id.to_string());
    session.typed(1, "network rm ingress");
    let refused = confirmed(session, "y").map(|removed| removed.spec.name.to_string());
    let refused = refused.unwrap_or_else(|error| format!("Error: {error}"));
    session.shown(&refused);
    session.check(
        "ingress is not removed while a service publishes on it, which is named",
        refused.contains("service shop"),
    );
    session.typed(1, "service rm shop");
    session.cluster.remove_service(service.id)?;
    session.shown("shop");
    Ok(())
}

fn remove(session: &mut Session) -> Outcome {
    session.typed(1, "network rm ingress");
    let declined = confirmed(session, "n").is_err();
    println!();
    session.check("whoever does not say yes removes nothing", declined && session.cluster.network("ingress").is_ok());
    session.typed(1, "network rm ingress");
    let removed = confirmed(session, "y")?;
    session.shown(removed.spec.name.as_str());
    session.check("the default ingress is removed after a warning", session.cluster.network("ingress").is_err());
    Ok(())
}

/// Warns, asks, and does it if the answer is yes. The walk-through answers itself.
fn confirmed(session: &mut Session, answer: &str) -> Outcome<Network> {
    println!("WARNING! Ports that services publish in ingress mode are reached through this network. Without it no");
    println!("service can publish any, until an ingress network is created again.");
    println!("Are you sure you want to continue? [y/N] {answer}");
    if !["y", "Y", "yes"].contains(&answer) {
        return Err("not confirmed".into());
    }
    Ok(session.cluster.remove_network("ingress")?)
}

fn refused_without(session: &mut Session) -> Outcome {
    session.typed(1, "service create --name shop --publish 8080:80");
    let refused = session
        .cluster
        .create_service(shop()?)
        .map_or_else(|error| format!("Error: {error}"), |_| "created".to_owned());
    session.shown(&refused);
    session
        .check("without ingress no port is published at every node", refused.contains("no ingress network is present"));
    Ok(())
}

fn create(session: &mut Session) -> Outcome {
    session.typed(1, &format!("network create -d overlay --ingress --subnet={SUBNET} --gateway={GATEWAY} {NAME}"));
    let subnet = SubnetRequest { gateway: Gateway::This(GATEWAY.parse()?), ..SubnetRequest::this(SUBNET.parse()?) };
    let spec = NetworkSpec { ingress: true, subnets: vec![subnet], ..NetworkSpec::overlay(NAME.parse()?) };
    let network = session.cluster.create_network(spec)?;
    session.shown(&network.id.to_string());
    session.list()?;
    session.typed(1, &format!("network inspect {NAME}"));
    session.shown(&listing::inspect(&network, &[]));
    let [subnet] = &network.subnets[..] else { return Err("one subnet was asked for".into()) };
    let right =
        subnet.net().to_string() == SUBNET && subnet.gateway().map(|it| it.to_string()).as_deref() == Some(GATEWAY);
    session.check("ingress is 172.16.0.0/16 with gateway 172.16.0.1 now", right && network.spec.ingress);
    session.typed(1, "service create --name shop --publish 8080:80");
    let service = session.cluster.create_service(shop()?)?;
    session.shown(&service.id.to_string());
    let vips = service.vips.get(&network.id);
    session.check(
        "and services publish on it",
        vips.is_some_and(|vips| vips.iter().all(|vip| subnet.net().contains(vip))),
    );
    session.cluster.remove_service(service.id)?;
    Ok(())
}
