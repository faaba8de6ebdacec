//! Sockets in the kernel.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::Namespace;
use overlay_kernel::sock_diag::{SockDiag, TcpSocket};
use overlay_kernel::testing::judge;

#[test]
fn the_tcp_sockets_of_a_namespace_are_told_with_both_ends_and_no_others() {
    kernel_test(Kernel::Host, "kernel::sock_diag_tells_the_tcp_sockets_of_a_namespace", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "set", "lo", "up"]);
        let mut sockets = SockDiag::open(&home).unwrap();
        assert_eq!(sockets.tcp().unwrap(), []);
        for at in ["127.0.0.1:7001", "[::]:7002"] {
            let at: SocketAddr = at.parse().unwrap();
            let to = if at.is_ipv6() { ["127.0.0.1:7002", "[::1]:7002"].to_vec() } else { vec!["127.0.0.1:7001"] };
            let listener = home.run(|| TcpListener::bind(at)).unwrap().unwrap();
            let listening: Vec<_> = sockets.tcp().unwrap().into_iter().filter(TcpSocket::is_listening).collect();
            assert_eq!(listening.iter().map(|it| (it.local, it.is_standing())).collect::<Vec<_>>(), [(at, false)]);
            for to in to {
                let to: SocketAddr = to.parse().unwrap();
                let mut near = home.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).unwrap().unwrap();
                near.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let far = listener.accept().unwrap().0;
                let from = near.local_addr().unwrap();
                let ends = |sockets: &mut SockDiag| {
                    let mut ends: Vec<_> = sockets
                        .tcp()
                        .unwrap()
                        .into_iter()
                        .filter(TcpSocket::is_standing)
                        .map(|it| (it.local, it.remote))
                        .collect();
                    ends.sort();
                    ends
                };
                let mut both = [(from, to), (to, from)];
                both.sort();
                assert_eq!(ends(&mut sockets), both, "IPv4 at a socket for both families is IPv4");
                drop(far);
                assert_eq!(near.read(&mut [0]).unwrap(), 0);
                assert_eq!(ends(&mut sockets), both, "what is closed by half stands");
                drop(near);
                // The last words are on their way for a moment.
                let ended = (0..200).any(|_| {
                    let ended = ends(&mut sockets).is_empty();
                    thread::sleep(Duration::from_millis(if ended { 0 } else { 10 }));
                    ended
                });
                assert!(ended, "what is only kept in mind does not: {:?}", ends(&mut sockets));
            }
        }
    });
}
