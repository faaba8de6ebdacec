//! overlay-vxlan alone: a frame goes into a VXLAN packet and comes out again, and what is wrong with others has a name.
//!
//! `cargo run --bin packet`, by anyone: nothing is sent.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::error::Error;

use overlay_core::{Encapsulation, IpFamily, Mtu, Port, PortRange, Vni};
use overlay_vxlan::{Addresses, Flow, Outer, Packet};

fn main() -> Result<(), Box<dyn Error>> {
    // Ethernet: to, from, type; then IPv4 from 10.0.9.2 to 10.0.9.3 with UDP from port 1234 to 53.
    let frame = b"\x02\x42\x0a\0\x09\x03\x02\x42\x0a\0\x09\x02\x08\0\
                  \x45\0\0\x21\0\0\0\0\x40\x11\0\0\x0a\0\x09\x02\x0a\0\x09\x03\
                  \x04\xd2\0\x35\0\x0d\0\0hello";
    let flow = Flow::of(frame);
    let source_port = PortRange::DYNAMIC.pick(flow.hash(7)); // one path for one conversation
    println!("the inner flow: {flow:?}\nso the outer source port: {source_port}");

    let addresses = Addresses::V4 { source: [192, 0, 2, 1].into(), destination: [192, 0, 2, 2].into() };
    let outer = Outer::new(addresses, source_port, Vni::new(4096)?);
    let mut packet = vec![0; outer.header_len()]; // headroom
    outer.prepend(&mut packet, frame.len())?;
    packet.extend(frame);
    println!("\n{} bytes of headers, then {} of the frame", outer.header_len(), frame.len());

    let read = Packet::parse_ip(&packet, Port::VXLAN)?.ok_or("not for VXLAN's port")?;
    println!("read back: VNI {}, from {} to {}", read.header.vni, read.ip.source(), read.ip.destination());
    println!("inside: {:?}, then {:?}", read.inner.transport, String::from_utf8_lossy(read.inner.payload));

    packet.truncate(packet.len() - 8);
    if let Err(malformed) = Packet::parse_ip(&packet, Port::VXLAN) {
        println!("\ncut short: {malformed}");
    }
    for family in [IpFamily::V4, IpFamily::V6] {
        println!("over {family}, Ethernet's 1500 leave {}", Encapsulation::vxlan(family).inner_mtu(Mtu::ETHERNET)?);
    }
    Ok(())
}
