//! What is refused, by name, and leaves nothing behind.

use std::net::UdpSocket;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::Container;
use overlay_driver::{Attach, AttachError, PlugError, Source};
use overlay_ipam::SubnetRequest;
use overlay_node::NetworkSpec;

use crate::world::{World, attachable};

fn refused(world: &World, attach: Attach) -> AttachError {
    let before = world.wait(world.manager().networks()).unwrap().len();
    let error = world.wait(world.driver(0).attach(attach)).unwrap_err();
    assert_eq!(world.wait(world.manager().networks()).unwrap().len(), before);
    assert!(world.status(0).plugged.is_empty(), "{error}: {:?}", world.status(0));
    error
}

#[test]
fn what_cannot_be_attached_is_refused_by_name_and_taken_back() {
    kernel_test(Kernel::Host, "driver::what_cannot_be_attached_is_refused_by_name", || {
        let world = World::new(1);
        let tiny = SubnetRequest::this("10.77.0.0/29".parse().unwrap());
        let network = world.network(NetworkSpec { subnets: vec![tiny], ..attachable("tiny") });
        let web = world.hosts().lab.container("web").unwrap();
        let attach = |source: Source, network: &str| Attach::new("web".parse().unwrap(), source, network);

        let nowhere = refused(&world, attach("/run/nowhere".parse().map(Source::Path).unwrap(), "tiny"));
        assert!(matches!(nowhere, AttachError::Plug(PlugError::Namespace { .. })), "{nowhere}");
        let unknown = refused(&world, attach(web.source.clone(), "nosuch"));
        assert_eq!(unknown.to_string(), "network nosuch not found");
        let loopback = Attach { interface: Some("lo".parse().unwrap()), ..attach(web.source.clone(), "tiny") };
        let taken = refused(&world, loopback);
        assert_eq!(taken.to_string(), "container web has an interface lo already: choose another name");
        let host = Source::Process(std::process::id());
        let _ = refused(&world, Attach { addresses: [[10, 78, 0, 2].into()].into(), ..attach(host, "tiny") });

        let (_one, attached) = world.run(0, "one", "tiny");
        let more = (0..8).map(|number| world.hosts().lab.container(&format!("more-{number}")).unwrap());
        let attach_more = |container: Container| {
            let attach = Attach::new(container.name, container.source, "tiny");
            world.wait(world.driver(0).attach(attach)).err()
        };
        let full = more.filter_map(attach_more).next().expect("8 more than 5 addresses");
        assert!(full.to_string().starts_with("address 10.77.0.0/29 is exhausted: "), "{full}");
        let attached_now = world.wait(world.manager().endpoints(network.id)).unwrap().len();
        let twice = Attach { id: Some(attached.endpoint.id), ..attach(web.source, "tiny") };
        let twice = world.wait(world.driver(0).attach(twice)).unwrap_err();
        assert!(twice.to_string().contains("is not what is asked for"), "{twice}");
        assert_eq!(world.wait(world.manager().endpoints(network.id)).unwrap().len(), attached_now);
    });
}

#[test]
fn a_vxlan_port_that_somebody_else_has_is_named_and_the_attachment_taken_back() {
    kernel_test(Kernel::Host, "driver::a_vxlan_port_that_somebody_else_has_is_named", || {
        let world = World::new(1);
        let network = world.network(attachable("front"));
        let blocker = world.hosts().lab.host(0).run(|| UdpSocket::bind("0.0.0.0:4789")).unwrap().unwrap();
        let web = world.hosts().lab.container("web").unwrap();
        let error = refused(&world, Attach::new(web.name.clone(), web.source.clone(), "front"));
        assert!(error.to_string().contains("vx-"), "{error}");
        assert!(world.wait(world.manager().endpoints(network.id)).unwrap().is_empty());
        drop(blocker);
        world.attach(0, &web, "front");
    });
}
