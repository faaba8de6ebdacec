//! The interface of a container, as its stack of protocols sees it.

use std::collections::VecDeque;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Frames on their way between a stack and its port. Their buffers are used again.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Longest frame that the stack sends.
    pub(crate) most: usize,
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) sent: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

/// Buffers that are kept.
const SPARE: usize = 256;
/// The most frames that wait to be read: what is more is lost, as by a ring of descriptors.
const RING: usize = 4096;

impl Wire {
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, received: VecDeque::new(), sent: VecDeque::new(), spare: Vec::new() }
    }

    pub(crate) fn deliver(&mut self, frame: &[u8]) {
        if self.received.len() >= RING {
            return;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(frame);
        self.received.push_back(buffer);
    }

    pub(crate) fn recycle(&mut self, frame: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(frame);
        }
    }
}

impl Device for Wire {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.most;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        let (into, spare) = (&mut self.sent, &mut self.spare);
        // The answer takes another buffer than what it answers.
        let buffer = spare.pop().unwrap_or_default();
        Some((Received { frame, spare }, Sending { into, buffer }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        let buffer = self.spare.pop().unwrap_or_default();
        Some(Sending { into: &mut self.sent, buffer })
    }
}

pub(crate) struct Received<'w> {
    frame: Vec<u8>,
    spare: &'w mut Vec<Vec<u8>>,
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.frame);
        if self.spare.len() < SPARE {
            self.spare.push(self.frame);
        }
        result
    }
}

pub(crate) struct Sending<'w> {
    into: &'w mut VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, write: F) -> R {
        self.buffer.clear();
        self.buffer.resize(len, 0);
        let result = write(&mut self.buffer);
        self.into.push_back(self.buffer);
        result
    }
}
