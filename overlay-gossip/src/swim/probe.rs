//! Asking members, directly and through others, whether they live.

use std::net::SocketAddr;

use overlay_core::{Instant, NodeId};

use crate::Standing;
use crate::membership::Source;
use crate::swim::roster::{Index, ME, Slot};
use crate::swim::{Phase, Swim};
use crate::wire::{Ack, Kind, Nack, Ping, PingRequest, Update};

/// A probe under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) target: Index,
    sequence: u32,
    attempt: u8,
    /// When the running attempt has failed.
    pub(super) deadline: Instant,
    /// Nacks that a well node would have by now, and those it has.
    nacks_due: usize,
    nacks: usize,
}

/// A probe in another's stead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relay {
    /// Ours to the target.
    sequence: u32,
    /// Whom to answer, and how.
    origin: Source,
    origin_sequence: u32,
    /// When the target has not answered.
    until: Instant,
}

impl Relay {
    pub(super) const fn nack_at(&self) -> Option<Instant> {
        Some(self.until)
    }
}

/// Verifications that may run beside the probe in turn.
const VERIFICATIONS: usize = 8;
/// Probes in others' stead at a time; more are not answered, so that nobody can use this node as an amplifier.
const RELAYS: usize = 128;

impl Swim {
    pub(super) fn serve_probes(&mut self, now: Instant) {
        let due: Vec<Probe> = self.probes.extract_if(.., |probe| probe.deadline <= now).collect();
        due.into_iter().for_each(|probe| self.attempt_failed(probe, now));
        let silent: Vec<Relay> = self.relays.extract_if(.., |relay| relay.until <= now).collect();
        silent.into_iter().for_each(|relay| self.nack(relay, now));
        if self.probe_at <= now && self.phase == Phase::Member {
            self.probe_at = now + self.health.stretch(self.config.probe_period);
            if let Some(target) = self.roster.next_to_probe(&mut self.chance) {
                self.probe(target, now);
            }
        }
    }

    /// Whoever hears of a suspicion may probe the suspect at once.
    pub(super) fn verify(&mut self, at: Index, heard: &Update, now: Instant) {
        let first = self.roster.slot(at).and_then(|slot| slot.suspicion()).is_some_and(|s| s.start == now);
        if heard.standing == Standing::Suspected
            && first
            && self.probes.len() < VERIFICATIONS
            && self.probes.iter().all(|probe| probe.target != at)
            && self.chance.one_of(self.config.verifiers as usize, self.roster.live())
        {
            self.probe(at, now);
        }
    }

    fn probe(&mut self, target: Index, now: Instant) {
        if self.probes.iter().any(|probe| probe.target == target) {
            return;
        }
        self.counts.probes_begun += 1;
        let deadline = now + self.health.stretch(self.config.probe_timeout);
        let sequence = self.chance.number();
        let probe = Probe { target, sequence, attempt: 1, deadline, nacks_due: 0, nacks: 0 };
        self.probes.push(probe);
        self.ping(probe, now);
    }

    fn ping(&mut self, probe: Probe, now: Instant) {
        let Some(slot) = self.roster.slot(probe.target) else { return };
        let (id, address) = (slot.member.id, slot.member.address);
        let mut body = Vec::new();
        Ping { sequence: probe.sequence, digest: self.roster.digest(), target: Some(id) }.encode(&mut body);
        self.send((address, Some(id)), Kind::Ping, &body, now);
    }

    fn attempt_failed(&mut self, mut probe: Probe, now: Instant) {
        if !self.roster.slot(probe.target).is_some_and(Slot::is_live) {
            return;
        }
        if probe.attempt >= self.config.probe_attempts {
            self.counts.probes_failed += 1;
            self.health.worse(if probe.nacks_due > 0 { probe.nacks_due.saturating_sub(probe.nacks) } else { 1 });
            return self.accuse(probe.target, now);
        }
        probe.attempt += 1;
        probe.deadline = now + self.health.stretch(self.config.probe_timeout);
        let relays = self.roster.draw(self.config.indirect_probes, Some(probe.target), &mut self.chance);
        probe.nacks_due += relays.len();
        self.probes.push(probe);
        self.ping(probe, now);
        relays.into_iter().for_each(|relay| self.request(probe, relay, now));
    }

    fn request(&mut self, probe: Probe, relay: Index, now: Instant) {
        let (Some(target), Some(relay)) = (self.roster.slot(probe.target), self.roster.slot(relay)) else { return };
        let (to, address) = (relay.member.id, relay.member.address);
        let request =
            PingRequest { sequence: probe.sequence, target: target.member.id, address: target.member.address };
        let mut body = Vec::new();
        request.encode(&mut body);
        self.send((address, Some(to)), Kind::PingRequest, &body, now);
    }

    pub(super) fn on_ping(&mut self, from: Source, ping: Ping, now: Instant) {
        if ping.target.is_some_and(|target| self.roster.find(target) != Some(ME)) {
            self.counts.stray += 1;
            return;
        }
        self.compare(from, ping.digest, now);
        self.ack(from, ping.sequence, now);
    }

    fn ack(&mut self, to: Source, sequence: u32, now: Instant) {
        let mut body = Vec::new();
        Ack { sequence, digest: self.roster.digest() }.encode(&mut body);
        self.send((to.address, Some(to.node)), Kind::Ack, &body, now);
    }

    pub(super) fn on_ack(&mut self, from: Source, ack: Ack, now: Instant) {
        if let Some(place) = self.probes.iter().position(|probe| probe.sequence == ack.sequence) {
            self.probes.swap_remove(place);
            self.health.better();
        } else if let Some(place) = self.relays.iter().position(|relay| relay.sequence == ack.sequence) {
            let relay = self.relays.swap_remove(place);
            return self.ack(relay.origin, relay.origin_sequence, now);
        } else if !self.answered(from, ack.sequence, now) {
            self.counts.stray += 1;
            return;
        }
        self.compare(from, ack.digest, now);
    }

    pub(super) fn on_ping_request(&mut self, from: Source, request: PingRequest, now: Instant) {
        if self.relays.len() >= RELAYS {
            self.counts.stray += 1;
            return;
        }
        let sequence = self.chance.number();
        let until = now + self.config.probe_timeout.mul_f64(0.8);
        self.relays.push(Relay { sequence, origin: from, origin_sequence: request.sequence, until });
        let mut body = Vec::new();
        Ping { sequence, digest: self.roster.digest(), target: Some(request.target) }.encode(&mut body);
        let address = self.whereabouts(request.target, request.address);
        self.send((address, Some(request.target)), Kind::Ping, &body, now);
    }

    /// Where we know a node to be, or else where others say.
    pub(super) fn whereabouts(&self, node: NodeId, said: SocketAddr) -> SocketAddr {
        let known = self.roster.find(node).and_then(|at| self.roster.slot(at));
        known.map_or(said, |slot| slot.member.address)
    }

    fn nack(&mut self, relay: Relay, now: Instant) {
        let mut body = Vec::new();
        Nack { sequence: relay.origin_sequence }.encode(&mut body);
        self.send((relay.origin.address, Some(relay.origin.node)), Kind::Nack, &body, now);
    }

    pub(super) fn on_nack(&mut self, nack: Nack) {
        match self.probes.iter_mut().find(|probe| probe.sequence == nack.sequence) {
            Some(probe) => probe.nacks += 1,
            None => self.counts.stray += 1,
        }
    }
}
