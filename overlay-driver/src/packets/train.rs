//! Datagrams that leave in one send.

use std::net::SocketAddr;

use quinn_udp::{EcnCodepoint, Transmit};

/// Datagrams to one node, one behind the other: all but the last of one length, as `UDP_SEGMENT` takes them.
#[derive(Debug)]
pub(super) struct Train {
    to: Option<(SocketAddr, u8)>,
    size: usize,
    count: usize,
    bytes: Vec<u8>,
    /// The last was shorter.
    ends: bool,
}

/// The longest payload of one datagram, which is the longest that one send may be in all.
const MOST: usize = 65_507;

impl Train {
    pub(super) fn new() -> Self {
        Self { to: None, size: 0, count: 0, bytes: Vec::with_capacity(MOST), ends: false }
    }

    /// Appends a datagram, to an address and with that of congestion; `false` if it has to go in another train.
    pub(super) fn append(&mut self, to: (SocketAddr, u8), payload: &[u8], most: usize) -> bool {
        if self.count == 0 {
            (self.to, self.size) = (Some(to), payload.len());
        }
        let fits = self.to == Some(to)
            && !self.ends
            && self.count < most
            && (1..=self.size).contains(&payload.len())
            && self.bytes.len() + payload.len() <= MOST;
        if fits {
            self.bytes.extend_from_slice(payload);
            self.count += 1;
            self.ends = payload.len() < self.size;
        }
        fits
    }

    /// How many it has.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// What is to be sent, if it has any.
    pub(super) fn transmit(&self) -> Option<Transmit<'_>> {
        let (destination, congestion) = self.to.filter(|_| self.count > 0)?;
        Some(Transmit {
            destination,
            ecn: EcnCodepoint::from_bits(congestion),
            contents: &self.bytes,
            segment_size: (self.count > 1).then_some(self.size),
            src_ip: None,
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.to, self.count, self.ends) = (None, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> (SocketAddr, u8) {
        (SocketAddr::from(([192, 0, 2, 1], port)), 0)
    }

    #[test]
    fn a_train_is_of_one_length_but_the_last() {
        let mut train = Train::new();
        let sizes = [100, 100, 40, 100].map(|size| train.append(to(1), &vec![0; size], 64));
        assert_eq!(sizes, [true, true, true, false]);
        let sent = train.transmit().unwrap();
        assert_eq!((sent.contents.len(), sent.segment_size, sent.destination), (240, Some(100), to(1).0));
        train.clear();
        assert!(train.transmit().is_none());
    }

    #[test]
    fn what_is_longer_or_of_another_goes_elsewhere() {
        let mut train = Train::new();
        assert!(train.append(to(1), &[0; 100], 2));
        assert!(!train.append(to(1), &[0; 101], 2));
        assert!(!train.append(to(2), &[0; 100], 2));
        assert!(!train.append((to(1).0, 3), &[0; 100], 2));
        assert!(train.append(to(1), &[0; 100], 2));
        assert!(!train.append(to(1), &[0; 100], 2), "two are the most");
        assert_eq!(train.count(), 2);
    }

    #[test]
    fn one_alone_is_not_said_to_be_cut() {
        let mut train = Train::new();
        assert!(train.append(to(1), &[0; 100], 64));
        assert_eq!(train.transmit().unwrap().segment_size, None);
    }
}
