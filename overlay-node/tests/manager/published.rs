//! Where ports are published and which are kept: what a manager refuses, and what it draws.

use overlay_core::{Port, Protocol};
use overlay_node::{Access, ClientSource, Control as _, PublishMode, PublishedPort, ServiceSpec, usually_kept};

use super::{Cluster, NOW, block_on, name, publishing, refused, service, tcp};

#[test]
fn ports_published_where_nobody_could_ask_are_refused_and_told_what_would_be_right() {
    let cluster = Cluster::new();
    let with = |access: Access| {
        let port = PublishedPort { access, ..tcp(Some(80), 8080, PublishMode::Ingress) };
        ServiceSpec { ports: vec![port], ..publishing(&[]) }
    };
    let at = |address: &str| Access { addresses: [address.parse().unwrap()].into(), ..Access::default() };
    let eth0 = || [overlay_core::IfName::new("eth0").unwrap()].into();
    let so = "port 8080/tcp cannot be published so";
    for (access, text) in [
        (at("127.0.0.1"), "nothing is published at 127.0.0.1, as what is sent there does not leave a node"),
        (at("0.0.0.0"), "nothing is published at 0.0.0.0: name an address that a node has"),
        (at("fe80::1"), "nothing is published at fe80::1: name an address that a node has"),
        (
            Access { interfaces: eth0(), ..at("192.0.2.1") },
            "a port is published at addresses or by interfaces, not both",
        ),
        (
            Access { sources: ["192.0.2.1/24".parse().unwrap()].into(), ..Access::default() },
            "192.0.2.1/24 is no subnet",
        ),
    ] {
        let said = cluster.serve(1, with(access)).unwrap_err().to_string();
        assert!(said.starts_with(&format!("{so}: {text}")), "{said}");
    }
    let port = PublishedPort { source: ClientSource::Masquerade, ..tcp(Some(80), 8080, PublishMode::Host) };
    let said = cluster.serve(1, ServiceSpec { ports: vec![port], ..publishing(&[]) }).unwrap_err().to_string();
    assert!(said.starts_with(&format!("{so}: a source is masqueraded in modes ingress and local alone")), "{said}");
    let sources = (0..64).map(|last| ipnet::IpNet::from(std::net::IpAddr::from([10, 0, 0, last]))).collect();
    let port = PublishedPort { access: Access { sources, ..Access::default() }, ..tcp(None, 80, PublishMode::Host) };
    let many = ServiceSpec { ports: vec![port; 65], ..publishing(&[]) };
    let text = "a service has at most 4096 places and sources of published ports, not 4160";
    refused(cluster.serve(1, many), text);
    // A port of mode local is one of the mesh.
    cluster.serve(1, publishing(&[(Some(80), PublishMode::Local)])).unwrap();
    let other = ServiceSpec { name: name("other"), ..publishing(&[(Some(80), PublishMode::Host)]) };
    let id = service(1);
    refused(
        cluster.serve(2, other),
        &format!("port '80' is already in use by service 'web' ({id}) as an ingress port"),
    );
}

#[test]
fn ports_that_nodes_need_are_published_by_nobody_and_drawn_for_nobody() {
    let cluster = Cluster::new();
    for (protocol, port) in usually_kept() {
        for mode in [PublishMode::Ingress, PublishMode::Local, PublishMode::Host] {
            let port = PublishedPort { protocol, ..tcp(Some(port.get()), 80, mode) };
            let spec = ServiceSpec { ports: vec![port.clone()], ..publishing(&[]) };
            let text = format!(
                "port {}/{protocol} is kept for the nodes themselves: publish another, or change what managers and nodes keep",
                port.published.unwrap()
            );
            refused(cluster.serve(1, spec), &text);
        }
    }
    cluster.serve(1, publishing(&[(Some(2222), PublishMode::Host)])).unwrap();
    // What is kept is the manager's to say, and what it draws is none of it.
    let kept = (30_000..30_010).map(|port| (Protocol::Tcp, Port::new(port).unwrap()));
    let other = super::manager(std::sync::Arc::new(cluster.store.clone()), 2).with_kept(kept.clone());
    let spec =
        ServiceSpec { name: name("ssh"), ..publishing(&[(Some(22), PublishMode::Host), (None, PublishMode::Ingress)]) };
    let made = block_on(other.create_service(service(2), spec, NOW)).unwrap();
    let drawn = made.ports[1].published.unwrap();
    assert!(!kept.into_iter().any(|(_, port)| port == drawn), "{drawn}");
}
