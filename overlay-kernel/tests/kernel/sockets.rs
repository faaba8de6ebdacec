use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use overlay_core::ErrorKind;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::Namespace;

use crate::route;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[test]
fn sockets_of_one_namespace_speak_and_no_other_hears() {
    kernel_test(Kernel::Host, "kernel::sockets_of_one_namespace_speak", || {
        let (here, there) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        for namespace in [&here, &there] {
            route::socket(namespace).request(&route::up(1)).unwrap();
        }
        let (one, other) = (here.udp(ANY_PORT).unwrap(), here.udp(ANY_PORT).unwrap());
        one.send_to(b"hello", other.local_addr().unwrap()).unwrap();
        let mut heard = [0; 16];
        assert_eq!(other.recv(&mut heard).unwrap(), 5);

        let listener = here.listen(ANY_PORT).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = here.connect(address, Duration::from_secs(1)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut heard[..5]).unwrap();
        assert!(there.connect(address, Duration::from_secs(1)).is_err());
        assert!(there.listen(address).is_ok(), "the port is free there");
    });
}

#[test]
fn a_taken_port_and_a_foreign_address_are_told_apart() {
    kernel_test(Kernel::Host, "kernel::a_taken_port_and_a_foreign_address", || {
        let namespace = Namespace::create().unwrap();
        route::socket(&namespace).request(&route::up(1)).unwrap();
        let taken = namespace.udp(ANY_PORT).unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(namespace.udp(address).unwrap_err().kind(), ErrorKind::Conflict);
        let foreign = SocketAddr::from(([192, 0, 2, 1], 53));
        assert_eq!(namespace.udp(foreign).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(namespace.listen(foreign).unwrap_err().kind(), ErrorKind::Gone);
    });
}

#[test]
fn nothing_is_bound_where_no_address_has_ever_been() {
    kernel_test(Kernel::Host, "kernel::nothing_is_bound_where_no_address_has_ever_been", || {
        let namespace = Namespace::create().unwrap();
        let second = SocketAddr::from(([127, 0, 0, 2], 0));
        assert_eq!(namespace.udp(second).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(namespace.listen(second).unwrap_err().kind(), ErrorKind::Gone);

        route::socket(&namespace).request(&route::up(1)).unwrap();
        let (server, client) = (namespace.udp(second).unwrap(), namespace.udp(ANY_PORT).unwrap());
        client.send_to(b"who?", server.local_addr().unwrap()).unwrap();
        let mut heard = [0; 16];
        let (_, from) = server.recv_from(&mut heard).unwrap();
        server.send_to(b"I", from).unwrap();
        assert_eq!(client.recv_from(&mut heard).unwrap().1, server.local_addr().unwrap());
    });
}
