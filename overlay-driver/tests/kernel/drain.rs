//! Endpoints whose work is taken away before they end.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, Protocol};
use overlay_dns::Health;
use overlay_driver::testing::{Container, node};
use overlay_driver::{DrainError, Source};
use overlay_node::LeftFlows;

use crate::world::{World, attachable};

const PATIENCE: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(500);
const PORT: u16 = 8080;

/// Two hosts with a container each, and what the second has: its address, and its endpoint.
struct Scene {
    world: World,
    client: Container,
    own: IpAddr,
    served: Container,
    at: SocketAddr,
    endpoint: EndpointId,
}

impl Scene {
    fn new() -> Self {
        let world = World::new(2);
        world.network(attachable("front"));
        let (client, asks) = world.run(0, "client", "front");
        let (served, attached) = world.run(1, "served", "front");
        let [own, at] = [&asks, &attached].map(|it| it.endpoint.addresses.iter().next().unwrap().addr());
        let scene = Self { client, own, served, at: (at, PORT).into(), endpoint: attached.endpoint.id, world };
        scene.world.until(LONG, |world| world.reaches(&scene.client, "served"));
        scene
    }

    fn drain(&self, deadline: Duration) -> Result<overlay_node::Drained, DrainError> {
        self.world.wait(self.world.driver(1).drain(self.endpoint, deadline))
    }

    fn connect(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let near = self.client.namespace.run(|| TcpStream::connect_timeout(&self.at, PATIENCE)).unwrap().unwrap();
        (near, listener.accept().unwrap().0)
    }
}

#[test]
fn a_drain_waits_for_the_flows_that_stand_and_says_at_its_deadline_which_are_left() {
    kernel_test(Kernel::Host, "driver::a_drain_waits_for_the_flows_that_stand", || {
        let scene = Scene::new();
        let idle = scene.drain(LONG).unwrap();
        assert!(idle.is_complete() && idle.took < Duration::from_secs(5), "{idle:?}");

        // A flow that the container began itself is none of its work.
        let listener = scene.served.namespace.run(|| TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        let elsewhere = scene.client.namespace.run(|| TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        let to = SocketAddr::new(scene.own, PORT);
        let _out = scene.served.namespace.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
        let _taken = elsewhere.accept().unwrap();
        assert!(scene.drain(LONG).unwrap().is_complete());

        let (mut near, mut far) = scene.connect(&listener);
        drop(listener); // whoever is about to end listens no more
        let left = scene.drain(SOON).unwrap();
        let one = LeftFlows { protocol: Protocol::Tcp, peer: scene.own, flows: 1 };
        assert_eq!((left.left, left.uncounted, left.behind), (vec![one], None, [].into()));
        assert!(left.took >= SOON);
        // It ends when the flow does, which works all the time.
        let ended = std::thread::scope(|scope| {
            let drain = scope.spawn(|| scene.drain(LONG));
            std::thread::sleep(SOON);
            near.write_all(b"still there?").unwrap();
            far.read_exact(&mut [0; 12]).unwrap();
            assert!(!drain.is_finished());
            drop((near, far));
            drain.join().unwrap().unwrap()
        });
        assert!(ended.is_complete() && ended.took >= SOON, "{ended:?}");

        // UDP is counted as it is tracked.
        let socket = scene.served.namespace.run(|| UdpSocket::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let asks = scene.client.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        asks.send_to(b"hello", scene.at).unwrap();
        socket.recv_from(&mut [0; 8]).unwrap();
        let left = scene.drain(SOON).unwrap().left;
        assert_eq!(left, [LeftFlows { protocol: Protocol::Udp, peer: scene.own, flows: 1 }]);
    });
}

#[test]
fn a_drain_from_which_somebody_asks_for_more_all_the_time_says_who() {
    kernel_test(Kernel::Host, "driver::a_drain_from_which_somebody_asks_for_more", || {
        let scene = Scene::new();
        let listener = scene.served.namespace.run(|| TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        let ends = AtomicBool::new(false);
        let drained = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    drop(scene.connect(&listener)); // it has the address, and minds no names
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let drained = scene.drain(PATIENCE);
            ends.store(true, Ordering::Relaxed);
            drained.unwrap()
        });
        assert!(!drained.is_complete(), "{drained}");
        let [arrived] = drained.arrived[..] else { panic!("{drained}") };
        assert_eq!((arrived.protocol, arrived.peer), (Protocol::Tcp, scene.own));
        assert!(scene.drain(LONG).unwrap().is_complete(), "nobody comes any more");
    });
}

#[test]
fn a_drain_ends_with_its_endpoint_with_its_driver_and_when_it_is_told_to_go_on() {
    kernel_test(Kernel::Host, "driver::a_drain_ends_with_its_endpoint_and_its_driver", || {
        let mut scene = Scene::new();
        let (endpoint, driver) = (scene.endpoint, scene.world.driver(1));
        let elsewhere = scene.world.wait(scene.world.driver(0).drain(endpoint, LONG));
        assert_eq!(elsewhere, Err(DrainError::NotHere { endpoint }));

        let listener = scene.served.namespace.run(|| TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        let stands = scene.connect(&listener);
        let told = |scene: &Scene, tell: &dyn Fn(&Scene)| {
            let begun = Instant::now();
            let ended = std::thread::scope(|scope| {
                let drain = scope.spawn(|| scene.world.wait(driver.drain(endpoint, LONG)));
                std::thread::sleep(SOON);
                tell(scene);
                drain.join().unwrap()
            });
            assert!(begun.elapsed() < LONG, "before its deadline");
            ended
        };
        let healthy = |scene: &Scene| {
            scene.world.wait(driver.set_health(endpoint, Health::Healthy)).unwrap();
        };
        assert_eq!(told(&scene, &healthy), Err(DrainError::Revived { endpoint }));
        // Whoever gives up leaves it draining, and nothing behind.
        let gave_up = scene.world.wait(async { tokio::time::timeout(SOON, driver.drain(endpoint, LONG)).await });
        assert!(gave_up.is_err());
        let detach = |scene: &Scene| drop(scene.world.wait(driver.detach(endpoint)).unwrap());
        assert_eq!(told(&scene, &detach), Err(DrainError::Gone { endpoint }));
        drop(stands);

        let container = scene.world.hosts().lab.container("another").unwrap();
        let another = scene.world.attach(1, &container, "front").endpoint.id;
        let running = scene.world.hosts_mut().take(1).unwrap();
        let ended = std::thread::scope(|scope| {
            let drain = scope.spawn(|| scene.world.wait(driver.drain(another, LONG)));
            std::thread::sleep(Duration::from_millis(50));
            scene.world.wait(running.stop());
            drain.join().unwrap()
        });
        assert!(matches!(ended, Err(DrainError::Stopped(_))), "{ended:?}");
        scene.world.start(1); // to be torn down
        assert_eq!(scene.world.driver(1).node(), node(1));
        assert!(matches!(container.source, Source::Path(_)));
    });
}

#[test]
fn a_drain_names_who_has_not_heard_and_does_not_wait_for_who_has_failed() {
    kernel_test(Kernel::Host, "driver::a_drain_names_who_has_not_heard", || {
        let mut scene = Scene::new();
        scene.world.hosts_mut().lab.cut(0).unwrap();
        let drained = scene.drain(SOON).unwrap();
        assert_eq!((drained.behind.clone(), drained.is_complete()), ([node(0)].into(), false), "{drained:?}");
        let drained = scene.drain(Duration::from_secs(40)).unwrap();
        assert!(drained.is_complete(), "it was found to have failed: {drained:?}");
        scene.world.hosts_mut().lab.mend(0).unwrap();
    });
}
