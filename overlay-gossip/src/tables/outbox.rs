//! Messages that wait to be sent.

use std::collections::VecDeque;

use overlay_core::NodeId;

use crate::Class;
use crate::room;
use crate::tables::wire::Message;

/// One message of the tables to another node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TablesTransmit {
    pub(crate) to: NodeId,
    pub(crate) class: Class,
    pub(crate) body: Vec<u8>,
}

/// Messages in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<TablesTransmit>,
    bytes: usize,
}

impl Outbox {
    /// Adds a message, as a datagram if it has up to `datagram` bytes.
    pub(crate) fn push(&mut self, to: NodeId, message: &Message, datagram: usize) {
        let class = if message.encoded_len() <= datagram { Class::Datagram } else { Class::Stream };
        self.push_class(to, message, class);
    }

    /// Adds a message that may not get lost for being a datagram.
    pub(crate) fn push_stream(&mut self, to: NodeId, message: &Message) {
        self.push_class(to, message, Class::Stream);
    }

    pub(crate) fn pop(&mut self) -> Option<TablesTransmit> {
        let transmit = room::pop(&mut self.queue)?;
        self.bytes -= transmit.body.len();
        Some(transmit)
    }

    /// The next message's body, if it goes to this node in a datagram and `fits` its length.
    pub(crate) fn pop_along(&mut self, to: NodeId, fits: impl FnOnce(usize) -> bool) -> Option<Vec<u8>> {
        let next = self.queue.front()?;
        let along = next.to == to && next.class == Class::Datagram && fits(next.body.len());
        if along { self.pop().map(|transmit| transmit.body) } else { None }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn push_class(&mut self, to: NodeId, message: &Message, class: Class) {
        let mut body = Vec::with_capacity(message.encoded_len());
        message.encode(&mut body);
        self.bytes += body.len();
        self.queue.push_back(TablesTransmit { to, class, body });
    }
}
