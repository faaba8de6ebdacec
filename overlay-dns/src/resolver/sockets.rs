//! Which socket a query leaves by.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;

/// One socket among those that queries leave by. The driver opens it, at a port that the kernel chooses at random,
/// when it is first named; a new `generation` of a `number` takes the old one's place, which is closed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    /// From 0 up to [`Config::sockets`](crate::Config::sockets).
    pub number: u16,
    /// Counts from 0.
    pub generation: u32,
}

/// All of them, and how worn each is.
#[derive(Debug)]
pub(super) struct Sockets(Vec<Socket>);

#[derive(Debug, Clone, Copy, Default)]
struct Socket {
    generation: u32,
    queries: u32,
    open: u32,
}

/// After so many queries a socket is changed for another as soon as none of them waits any more,
const WORN: u32 = 64;
/// and after so many in any case: whoever watches a port learns little by it.
const WORN_OUT: u32 = 4096;

impl Sockets {
    pub(super) fn new(count: u16) -> Self {
        Self(vec![Socket::default(); usize::from(count)])
    }

    /// One by chance.
    pub(super) fn choose(&mut self, rng: &mut ChaCha12Rng) -> SocketId {
        let number = ((u64::from(rng.next_u32()) * self.0.len() as u64) >> 32) as usize;
        let Some(socket) = self.0.get_mut(number) else { return SocketId { number: 0, generation: 0 } };
        if socket.queries >= WORN_OUT || socket.queries >= WORN && socket.open == 0 {
            *socket = Socket { generation: socket.generation.wrapping_add(1), queries: 0, open: 0 };
        }
        socket.queries += 1;
        socket.open += 1;
        SocketId { number: number as u16, generation: socket.generation }
    }

    /// A query that left by it waits no more.
    pub(super) fn done(&mut self, id: SocketId) {
        if let Some(socket) = self.0.get_mut(usize::from(id.number)).filter(|it| it.generation == id.generation) {
            socket.open = socket.open.saturating_sub(1);
        }
    }
}
