//! Listings, as operators know them.

use overlay_core::{Name, Port};
use overlay_node::{Endpoint, EndpointMode, Kind, Network, PublishedPort, Scope, Service};
use serde_json::{Value, json};

/// A table with its columns aligned.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// `network ls`.
pub fn networks<'n>(networks: impl IntoIterator<Item = &'n Network>) -> String {
    let head = ["NETWORK ID", "NAME", "DRIVER", "SCOPE"].map(str::to_owned).to_vec();
    let row = |network: &Network| {
        let spec = &network.spec;
        vec![network.id.short().to_string(), spec.name.to_string(), spec.kind.to_string(), scope(spec.kind).to_owned()]
    };
    table(&[head].into_iter().chain(networks.into_iter().map(row)).collect::<Vec<_>>())
}

/// Where a network is the same, in the words of `docker network ls`.
const fn scope(kind: Kind) -> &'static str {
    match kind.scope() {
        Scope::Cluster => "swarm",
        Scope::Local => "local",
    }
}

/// `network inspect`.
pub fn inspect(network: &Network, endpoints: &[Endpoint]) -> String {
    let subnets = network.subnets.iter().map(|subnet| {
        json!({
            "Subnet": subnet.net().to_string(),
            "Gateway": subnet.gateway().map(|gateway| gateway.to_string()),
        })
    });
    let families = network.families();
    let value = json!([{
        "Name": network.spec.name.as_str(),
        "Id": network.id.to_string(),
        "Created": network.created.to_string(),
        "Scope": scope(network.spec.kind),
        "Driver": network.spec.kind.to_string(),
        "EnableIPv4": families.v4,
        "EnableIPv6": families.v6,
        "IPAM": { "Config": subnets.collect::<Value>() },
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": network.spec.ingress,
        "Encryption": network.spec.encryption.to_string(),
        "Port": network.port.map(|port| port.get()),
        "VNI": network.vni.map(|vni| vni.get()),
        "Condition": network.condition.to_string(),
        "Containers": endpoints.iter().map(container).collect::<Value>(),
    }]);
    serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
}

/// `service ls`.
pub fn services<'s>(services: impl IntoIterator<Item = &'s Service>) -> String {
    let head = ["ID", "NAME", "MODE", "VIPS", "PORTS"].map(str::to_owned).to_vec();
    let row = |service: &Service| {
        let vips: Vec<String> = service.vips.values().flatten().map(ToString::to_string).collect();
        let ports: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
        let (id, name, mode) =
            (service.id.short().to_string(), service.spec.name.to_string(), mode(service).to_owned());
        vec![id, name, mode, vips.join(", "), ports.join(", ")]
    };
    table(&[head].into_iter().chain(services.into_iter().map(row)).collect::<Vec<_>>())
}

/// `service inspect`.
pub fn inspect_service(service: &Service, endpoints: &[Endpoint]) -> String {
    let vips = service.vips.iter().map(|(network, vips)| {
        json!({ "NetworkID": network.to_string(), "Addrs": vips.iter().map(ToString::to_string).collect::<Vec<_>>() })
    });
    let value = json!([{
        "ID": service.id.to_string(),
        "CreatedAt": service.created.to_string(),
        "Name": service.spec.name.as_str(),
        "EndpointMode": mode(service),
        "VirtualIPs": vips.collect::<Value>(),
        "Ports": service.ports.iter().map(port).collect::<Value>(),
        "Condition": service.condition.to_string(),
        "Tasks": endpoints.iter().map(container).collect::<Value>(),
    }]);
    serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
}

fn port(port: &PublishedPort) -> Value {
    json!({
        "Name": port.name.as_ref().map(Name::as_str),
        "Protocol": port.protocol.to_string(),
        "TargetPort": port.target.get(),
        "PublishedPort": port.published.map(Port::get),
        "PublishMode": port.mode,
        "Source": port.source,
        "Access": port.access,
    })
}

const fn mode(service: &Service) -> &'static str {
    match service.spec.mode {
        EndpointMode::Vip => "vip",
        EndpointMode::RoundRobin => "dnsrr",
    }
}

fn container(endpoint: &Endpoint) -> Value {
    let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
    json!({
        "Name": endpoint.spec.container.as_str(),
        "EndpointID": endpoint.id.to_string(),
        "MacAddress": endpoint.mac.to_string(),
        "Addresses": addresses,
        "Condition": endpoint.condition.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ID", "NAME"], ["4axb", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "ID     NAME\n4axb   x\n");
    }
}
