//! Who listens at the ports of a namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream, UdpSocket};

use overlay_core::Protocol;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::listeners::{Listener, Process};
use overlay_kernel::{
    Namespace,
    testing::{judge, once_free},
};

#[test]
fn who_listens_is_found_with_the_process_that_does_and_nobody_else() {
    kernel_test(Kernel::Host, "kernel::who_listens_is_found_with_the_process_that_does", || {
        let place = Namespace::create().unwrap();
        judge(&place, "ip", &["link", "set", "lo", "up"]);
        assert_eq!(Listener::all(&place).unwrap(), []);
        let tcp = place.run(|| TcpListener::bind("127.0.0.1:80")).unwrap().unwrap();
        let both = place.run(|| TcpListener::bind("[::]:81")).unwrap().unwrap();
        let udp = place.run(|| UdpSocket::bind("0.0.0.0:53")).unwrap().unwrap();
        // Those that speak with one alone listen to nobody.
        let spoken = place.run(|| TcpStream::connect("127.0.0.1:80")).unwrap().unwrap();
        let (taken, _) = tcp.accept().unwrap();
        let connected = place.run(|| UdpSocket::bind("127.0.0.1:54")).unwrap().unwrap();
        connected.connect("127.0.0.1:53").unwrap();
        let mut all = Listener::all(&place).unwrap();
        all.sort();
        let told: Vec<_> = all.iter().map(|it| (it.protocol, it.at.to_string())).collect();
        let expected = [(Protocol::Tcp, "127.0.0.1:80"), (Protocol::Tcp, "[::]:81"), (Protocol::Udp, "0.0.0.0:53")];
        assert_eq!(told, expected.map(|(protocol, at)| (protocol, at.to_owned())));
        let [one, another]: [std::net::IpAddr; 2] = [[192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap()];
        let is_at = |at: usize| [one, another, [127, 0, 0, 1].into()].map(|address| all[at].is_at(address));
        assert_eq!([is_at(0), is_at(1), is_at(2)], [[false, false, true], [true; 3], [true, false, true]]);
        // This process has them all.
        let inodes: BTreeSet<u32> = all.iter().map(|it| it.inode).collect();
        // A test beside this one may be starting a program: until that one is executed, its process holds whatever this one has open.
        let is_whole =
            |by: &BTreeMap<u32, Process>| by.keys().eq(&inodes) && by.values().all(|it| it.pid == std::process::id());
        once_free(|| {
            let by = Process::with_sockets(&inodes);
            if is_whole(&by) { Ok(()) } else { Err(by) }
        });
        assert!(Process::with_sockets(&[0].into()).is_empty());
        drop((both, udp, spoken, taken));
        drop(tcp);
        // Such a process holds what is closed here, too.
        once_free(|| {
            let all = Listener::all(&place).unwrap();
            if all.is_empty() { Ok(()) } else { Err(all) }
        });
    });
}
