//! Associations at work: who seals and who opens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_crypto::{Direction, Opener, Sa, SaId, SaKey, Sealer, Spi, State, UdpEncapsulation, Usage, Verdict};

use crate::guards::Guards;
use crate::tables::Map;
use crate::{Buffer, Reason};

/// Sealers and openers of the associations that a state has; each is made once, and takes its key.
#[derive(Debug, Default)]
pub(crate) struct Protection {
    sealers: Map<SaId, Sending>,
    openers: Map<SaId, (SaKey, Opener)>,
    lacking: BTreeSet<SaId>,
}

#[derive(Debug)]
struct Sending {
    key: SaKey,
    sealer: Sealer,
    udp: Option<UdpEncapsulation>,
    /// At this much it ends.
    most: Usage,
}

impl Sending {
    fn used(&self) -> Usage {
        let counts = self.sealer.counts();
        Usage { bytes: counts.bytes, packets: counts.packets }
    }

    fn is_spent(&self) -> bool {
        let used = self.used();
        self.sealer.remaining() == 0 || used.bytes >= self.most.bytes || used.packets >= self.most.packets
    }
}

impl Protection {
    /// Makes those that are new, and forgets those that are gone. O(n log n) for n associations.
    pub(crate) fn follow(&mut self, state: &State) {
        let same = |id: &SaId, key: &SaKey| state.sas.get(id).is_some_and(|sa| sa.key == *key);
        self.sealers.retain(|id, sending| same(id, &sending.key));
        self.openers.retain(|id, (key, _)| same(id, key));
        self.lacking.clear();
        for (id, sa) in &state.sas {
            if self.put(*id, sa).is_none() {
                self.lacking.insert(*id);
            }
        }
    }

    /// Associations that cannot be used: somebody else has put their keys to work.
    pub(crate) const fn lacking(&self) -> &BTreeSet<SaId> {
        &self.lacking
    }

    /// How much each association has sealed.
    pub(crate) fn usage(&self) -> BTreeMap<SaId, Usage> {
        self.sealers.iter().map(|(id, sending)| (*id, sending.used())).collect()
    }

    fn put(&mut self, id: SaId, sa: &Sa) -> Option<()> {
        match sa.direction {
            Direction::Out => {
                let most = sa.limits.map_or(Usage { bytes: u64::MAX, packets: u64::MAX }, |limits| limits.hard);
                if let Some(sending) = self.sealers.get_mut(&id) {
                    (sending.udp, sending.most) = (sa.udp, most);
                    return Some(());
                }
                let sealer = Sealer::new(id.spi, &sa.key, sa.numbers).ok()?;
                self.sealers.insert(id, Sending { key: sa.key.clone(), sealer, udp: sa.udp, most });
            }
            Direction::In if self.openers.contains_key(&id) => {}
            Direction::In => {
                let opener = Opener::new(id.spi, &sa.key, sa.numbers, sa.window).ok()?;
                self.openers.insert(id, (sa.key.clone(), opener));
            }
        }
        Some(())
    }

    /// Seals the UDP datagram of the IP packet in a buffer, whose header has so many bytes and no options.
    pub(crate) fn seal(&mut self, id: &SaId, buffer: &mut Buffer, header_len: usize) -> Result<(), Reason> {
        let sending = self.sealers.get_mut(id).filter(|sending| !sending.is_spent()).ok_or(Reason::NoAssociation)?;
        let mut header = [0; 40];
        let header = header.get_mut(..header_len).ok_or(Reason::Room)?;
        header.copy_from_slice(buffer.packet().get(..header_len).ok_or(Reason::Malformed)?);
        let packet = buffer.range();
        let sealed = sending.sealer.seal(buffer.whole(), packet.start + header_len..packet.end, UDP);
        let sealed = sealed.map_err(|_| Reason::Room)?;
        let (mut at, mut protocol) = (sealed.start, ESP);
        if let Some(udp) = sending.udp {
            let headroom = buffer.whole().get_mut(..at).ok_or(Reason::Room)?;
            at = udp.prepend(headroom, sealed.len()).ok_or(Reason::Room)?;
            protocol = UDP;
        }
        let start = at.checked_sub(header_len).ok_or(Reason::Room)?;
        buffer.set(start..sealed.end).ok_or(Reason::Room)?;
        buffer.packet_mut().get_mut(..header_len).ok_or(Reason::Room)?.copy_from_slice(header);
        crate::tunnel::carry(buffer.packet_mut(), protocol).ok_or(Reason::Room)
    }

    /// Opens the ESP packet that begins at `at` in the IP packet of a buffer, for that destination: then the buffer has the IP packet as it was
    /// before it was sealed. Gives the association.
    pub(crate) fn open(
        &mut self,
        guards: &Guards,
        destination: IpAddr,
        (header_len, at): (usize, usize),
        buffer: &mut Buffer,
    ) -> Result<SaId, Reason> {
        let packet = buffer.packet_mut();
        let esp = packet.get_mut(at..).ok_or(Reason::Malformed)?;
        let spi = esp.first_chunk().map(|spi| u32::from_be_bytes(*spi)).ok_or(Reason::Malformed)?;
        let spi = Spi::new(spi).map_err(|_| Reason::ForeignSpi)?;
        let Verdict::Open(id) = guards.sealed(destination, spi) else { return Err(Reason::ForeignSpi) };
        let (_, opener) = self.openers.get_mut(&id).ok_or(Reason::ForeignSpi)?;
        let opened = opener.open(esp).map_err(|_| Reason::Unopened)?;
        let (len, next_header) = (opened.payload.len(), opened.next_header);
        if next_header != UDP {
            return Err(Reason::Malformed);
        }
        let payload = at + Sealer::HEADROOM;
        packet.copy_within(..header_len, payload - header_len);
        let start = buffer.range().start + payload - header_len;
        buffer.set(start..start + header_len + len).ok_or(Reason::Malformed)?;
        crate::tunnel::carry(buffer.packet_mut(), UDP).ok_or(Reason::Malformed)?;
        Ok(id)
    }
}

pub(crate) const UDP: u8 = 17;
pub(crate) const ESP: u8 = 50;
