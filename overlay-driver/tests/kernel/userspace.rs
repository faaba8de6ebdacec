//! Nodes that carry their containers' packets themselves.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::{Carried, Container};
use overlay_kernel::testing::judge;

use crate::world::{World, attachable, pings};

const SOON: Duration = Duration::from_secs(15);

fn address(attached: &overlay_driver::Attached) -> IpAddr {
    attached.endpoint.addresses.first().unwrap().addr()
}

/// What is written by one is read by the other.
fn passes(stream: &mut TcpStream, other: &mut TcpStream, words: &[u8]) {
    stream.write_all(words).unwrap();
    let mut read = vec![0; words.len()];
    other.read_exact(&mut read).unwrap();
    assert_eq!(read, words);
}

fn connected(from: &Container, to: &Container, at: IpAddr) -> (TcpStream, TcpStream) {
    let listener = to.namespace.run(|| TcpListener::bind((at, 9_000))).unwrap().unwrap();
    let stream = from.namespace.run(|| TcpStream::connect((at, 9_000))).unwrap().unwrap();
    let (other, _) = listener.accept().unwrap();
    for it in [&stream, &other] {
        it.set_read_timeout(Some(SOON)).unwrap();
    }
    (stream, other)
}

#[test]
fn containers_reach_each_other_by_name_and_tcp_goes_on_when_their_node_starts_again() {
    kernel_test(Kernel::Host, "driver::containers_reach_each_other_in_user_space", || {
        let mut world = World::carried(2, Carried::InUserSpace);
        world.network(attachable("front"));
        let ((web, _), (db, at)) = (world.run(0, "web", "front"), world.run(1, "db", "front"));
        world.until(SOON, |world| world.reaches(&web, "db") && world.reaches(&db, "web"));
        let links = judge(world.hosts().lab.host(0), "ip", &["-d", "link"]);
        assert!(!links.contains("vxlan"), "{links}");
        let (mut stream, mut other) = connected(&web, &db, address(&at));
        (0..64).for_each(|_| passes(&mut stream, &mut other, &[7; 16 << 10]));

        let stopped = world.hosts_mut().take(0).unwrap();
        world.wait(stopped.stop());
        assert!(!pings(&web, address(&at)), "nobody carries");
        stream.write_all(b"meanwhile").unwrap();
        world.start(0);
        world.until(SOON, |world| world.reaches(&web, "db"));
        let mut read = [0; 9];
        other.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"meanwhile");
        passes(&mut other, &mut stream, b"and back");
    });
}
