//! What passes a link, kept, and written as pcapng.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use overlay_core::{Instant, Name, UnixTime};

/// Somewhere packets can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// A node's end of the underlay: whole IP packets, as they leave it and as they come.
    Node(usize),
    /// All interfaces of a container: Ethernet frames, both ways.
    Container(Name),
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node-{node}"),
            Self::Container(name) => name.fmt(f),
        }
    }
}

/// What passed the links that are captured, in the order in which it passed.
///
/// ```
/// use overlay_fabric::Capture;
///
/// let bytes = Capture::default().pcapng(); // nothing was captured: a header alone
/// assert_eq!(bytes.len(), 28);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Capture {
    links: BTreeSet<Link>,
    packets: Vec<Captured>,
    bytes: usize,
    missed: u64,
    began: Option<UnixTime>,
}

/// One packet that passed a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// Where.
    pub link: Link,
    /// What: an IP packet at a [`Link::Node`], otherwise an Ethernet frame.
    pub bytes: Vec<u8>,
}

/// Bytes of packets that are kept, at most.
const MOST: usize = 64 << 20;

impl Capture {
    pub(crate) const fn new(began: UnixTime) -> Self {
        Self { links: BTreeSet::new(), packets: Vec::new(), bytes: 0, missed: 0, began: Some(began) }
    }

    pub(crate) fn open(&mut self, link: Link) {
        self.links.insert(link);
    }

    pub(crate) fn note_node(&mut self, node: usize, bytes: &[u8], at: Instant) {
        if !self.links.is_empty() && self.links.contains(&Link::Node(node)) {
            self.keep(Link::Node(node), bytes, at);
        }
    }

    pub(crate) fn note_container(&mut self, name: &Name, bytes: &[u8], at: Instant) {
        if !self.links.is_empty() {
            let link = Link::Container(name.clone());
            if self.links.contains(&link) {
                self.keep(link, bytes, at);
            }
        }
    }

    fn keep(&mut self, link: Link, bytes: &[u8], at: Instant) {
        if self.bytes + bytes.len() > MOST {
            self.missed += 1;
            return;
        }
        self.bytes += bytes.len();
        self.packets.push(Captured { at, link, bytes: bytes.to_vec() });
    }

    /// The links that are captured.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    /// What passed, the first first.
    pub fn packets(&self) -> &[Captured] {
        &self.packets
    }

    /// How many packets were not kept, since 64 MiB are the most.
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// All of it in one file, with an interface for each link, as Wireshark and its kin read it.
    pub fn pcapng(&self) -> Vec<u8> {
        let mut file = Vec::with_capacity(self.bytes + 64 * self.packets.len() + 256);
        block(&mut file, SECTION, &[&MAGIC.to_le_bytes(), &1_u16.to_le_bytes(), &0_u16.to_le_bytes(), &[0xff; 8]]);
        let numbers: BTreeMap<&Link, u32> = self.links.iter().zip(0..).collect();
        for link in &self.links {
            let kind = if matches!(link, Link::Node(_)) { RAW } else { ETHERNET };
            let options = [option(IF_NAME, link.to_string().as_bytes()), option(IF_TSRESOL, &[9]), option(0, &[])];
            block(&mut file, INTERFACE, &[&kind.to_le_bytes(), &[0; 6], &options.concat()]);
        }
        let began = self.began.unwrap_or(UnixTime::EPOCH).as_millis().saturating_mul(1_000_000);
        for packet in &self.packets {
            let Some(number) = numbers.get(&packet.link) else { continue };
            let at = began.saturating_add(packet.at.as_nanos());
            let (high, low) = ((at >> 32) as u32, at as u32);
            let len = packet.bytes.len() as u32;
            let head: Vec<u8> = [*number, high, low, len, len].into_iter().flat_map(u32::to_le_bytes).collect();
            block(&mut file, PACKET, &[&head, &packet.bytes]);
        }
        file
    }
}

/// One block: its type, its length before and behind, and what is in it, to a multiple of 4.
fn block(file: &mut Vec<u8>, kind: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let padding = len.next_multiple_of(4) - len;
    let total = ((12 + len + padding) as u32).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(total);
    parts.iter().for_each(|part| file.extend_from_slice(part));
    file.extend(&[0; 3][..padding]);
    file.extend(total);
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let padding = value.len().next_multiple_of(4) - value.len();
    [&code.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value, &[0; 3][..padding]].concat()
}

// draft-ietf-opsawg-pcapng §4
const SECTION: u32 = 0x0a0d_0d0a;
const MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const ETHERNET: u16 = 1;
const RAW: u16 = 101;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_what_is_not_is_counted() {
        let mut capture = Capture::new(UnixTime::EPOCH);
        capture.open(Link::Node(0));
        let packet = vec![0; MOST / 2];
        (0..3).for_each(|_| capture.note_node(0, &packet, Instant::ZERO));
        capture.note_node(1, &packet, Instant::ZERO);
        assert_eq!((capture.packets().len(), capture.missed()), (2, 1));
    }
}
