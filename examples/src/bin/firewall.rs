//! A host's rules as a value: what has to be done for them, and what becomes of packets. Needs no privilege.
//!
//! `cargo run --bin firewall`

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "it is what an example is for")]

use std::error::Error;

use overlay_core::{Memory, Port, Protocol, Vni, reconcile};
use overlay_firewall::{Bind, Flow, Gateway, Ip, Judge, Packet, Published, State, Transport, Tunnel};

fn main() -> Result<(), Box<dyn Error>> {
    let host = host()?;
    print!("{}", reconcile(&mut Memory::<State>::default(), &host)?);

    let judge = Judge::new(&host);
    let (lan, gateway) = ("eth0".parse()?, "ovgw0".parse()?);
    let (here, client, member, endpoint) =
        ([192, 0, 2, 1].into(), [198, 51, 100, 7].into(), [192, 0, 2, 2].into(), [172, 18, 0, 5].into());
    let (asks, vxlan) = (Transport::tcp(40_000, 8080), |vni| Transport::Udp { source: 50_000, destination: 4789, vni });
    for (what, packet) in [
        ("a client asks for the published port", Packet::arriving(lan, Ip::v4(client, here, asks))),
        ("a client knows the endpoint's address", Packet::passing(lan, gateway, Ip::v4(client, endpoint, asks))),
        ("the endpoint asks somebody outside", Packet::passing(gateway, lan, Ip::v4(endpoint, client, asks))),
        ("a member sends a datagram of network 8", Packet::arriving(lan, Ip::v4(member, here, vxlan(8)))),
        ("a member sends one of network 7, in cleartext", Packet::arriving(lan, Ip::v4(member, here, vxlan(7)))),
        ("the same, in ESP", Packet::arriving(lan, Ip::v4(member, here, vxlan(7))).secured()),
        ("a stranger sends one", Packet::arriving(lan, Ip::v4(client, here, vxlan(8)))),
    ] {
        println!("{what}: {}", judge.judge(&packet, Flow::New));
    }
    Ok(())
}

/// A gateway, a port for all and one for this machine alone, and a tunnel with a network that is encrypted.
fn host() -> Result<State, Box<dyn Error>> {
    let mut host = State::default();
    host.gateways.insert("ovgw0".parse()?, Gateway::new(["172.18.0.0/24".parse()?]));
    let web = Published::new(Protocol::Tcp, Port::new(8080)?).to("172.18.0.5:80".parse()?);
    host.published.insert("web".parse()?, web.clone());
    let admin = Published { port: Port::new(9090)?, ..web }.at(Bind::Address([127, 0, 0, 1].into()));
    host.published.insert("admin".parse()?, admin);
    let guard = Tunnel { members: [[192, 0, 2, 2].into()].into(), encrypted: [Vni::new(7)?].into() };
    host.tunnels.insert(Port::VXLAN, guard);
    Ok(host)
}
