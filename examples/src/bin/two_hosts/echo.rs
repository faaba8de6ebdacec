//! Datagrams there and back between the containers, by sockets born in their namespaces.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::Outcome;
use crate::world::{CONTAINERS, World, addresses};

/// From each container to each address of the other. Says whether all came back.
pub(crate) fn all(world: &World, when: &str) -> Outcome<bool> {
    let mut whole = true;
    for (from, to) in [(0, 1), (1, 0)] {
        for address in addresses(to)? {
            let lost = lost(world, from, to, (address.addr(), 56))?;
            println!("{} to {} {}, {when}: {SENT} sent, {lost} lost", CONTAINERS[from], CONTAINERS[to], address.addr());
            whole &= lost == 0;
        }
    }
    println!();
    Ok(whole)
}

/// The same once more with datagrams that fill the MTU.
pub(crate) fn of_the_mtu(world: &World) -> Outcome<bool> {
    let mtu = world.mtu()?.get() as usize;
    let mut whole = true;
    for (address, headers) in addresses(1)?.iter().zip([20 + 8, 40 + 8]) {
        whole &= lost(world, 0, 1, (address.addr(), mtu - headers))? == 0;
    }
    Ok(whole)
}

const SENT: usize = 50;

fn lost(world: &World, from: usize, to: usize, (address, size): (IpAddr, usize)) -> Outcome<usize> {
    let any = match address {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let client = world.container(from).udp(any)?;
    let server = world.container(to).udp(SocketAddr::new(address, 0))?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    }
    client.connect(server.local_addr()?)?;
    let mut lost = 0;
    for number in 0..SENT {
        let mut datagram = vec![0; size];
        datagram[0] = number as u8;
        lost += usize::from(!comes_back(&client, &server, &datagram)?);
    }
    Ok(lost)
}

fn comes_back(client: &UdpSocket, server: &UdpSocket, datagram: &[u8]) -> io::Result<bool> {
    let mut buffer = vec![0; 65536];
    client.send(datagram)?;
    let Some((len, source)) = unless_late(server.recv_from(&mut buffer))? else { return Ok(false) };
    server.send_to(&buffer[..len], source)?;
    let answer = unless_late(client.recv(&mut buffer))?;
    Ok(answer.is_some_and(|len| buffer[..len] == *datagram))
}

fn unless_late<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        other => other.map(Some),
    }
}
