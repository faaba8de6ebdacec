//! Datagrams from clients.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::batch;
use super::core::{Core, stopped};
use crate::{Client, Handled, RecordSource, Transport};

/// Answers what comes to a socket, as many at once as have come.
pub(super) async fn serve<S: RecordSource + Send + 'static>(
    core: Arc<Core<S>>,
    socket: Arc<UdpSocket>,
    token: u64,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let ready = tokio::select! {
            biased;
            ready = socket.readable() => ready,
            () = stopped(&mut stopping) => return,
        };
        if ready.is_err() || *stopping.borrow() {
            return;
        }
        let mut is_full = false;
        let answered = socket.try_io(Interest::READABLE, || {
            is_full = answer(&core, &socket, token)?;
            if is_full { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) } // nothing is left: wait for more
        });
        match answered {
            Ok(()) => tokio::task::yield_now().await, // others have their turn, however much comes here
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => tokio::time::sleep(PAUSE).await, // whatever it is, it need not take the processor
        }
    }
}

/// How long a socket rests that has failed.
const PAUSE: Duration = Duration::from_millis(10);

/// Answers one batch; whether there may be more.
fn answer<S: RecordSource + Send + 'static>(core: &Arc<Core<S>>, socket: &UdpSocket, token: u64) -> io::Result<bool> {
    let is_ipv6 = socket.local_addr()?.is_ipv6();
    batch::exchange(socket.as_raw_fd(), is_ipv6, |datagrams| {
        core.with(|state, now| {
            datagrams.each(|address, query, reply| {
                let client = Client { address, transport: Transport::Udp, token };
                state.resolver.handle_query(client, query, reply, now) == Handled::Reply
            });
        });
    })
}
