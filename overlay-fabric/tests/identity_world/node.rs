//! What a node does about its certificate.

use std::time::Duration;

use overlay_core::testing::block_on;
use overlay_core::{NodeId, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Certificate, CertificateAuthority, Denied, Identity, Issued, Proof, Refusals, RenewRefusal, Renewal,
    RenewalConfig, RenewalEvent, Renewing, Role, SealingKey, SigningKey, SigningRequest, StoreAuthority, Trouble,
    Trusted, Usage, VerifyError,
};

use super::{RECOVERY, World, id_of};

pub(crate) struct Node {
    pub(crate) id: NodeId,
    key: SigningKey,
    pub(crate) issued: Issued,
    refusals: Refusals,
    heard: u64,
    renewal: Renewal,
    /// What it asks with, until it is answered: an answer that was lost is given again.
    pending: Option<(SigningKey, SigningRequest)>,
    next_seen: UnixTime,
    /// How far its clock is off, in milliseconds.
    pub(crate) skew: i64,
    /// Nothing reaches it until then.
    pub(crate) cut: UnixTime,
    /// Its clock is far off until then.
    pub(crate) jumped: Option<UnixTime>,
    /// It may be without until then: what happened to it is more than anybody promises to bear.
    pub(crate) excused: UnixTime,
    pub(crate) gone: bool,
    pub(crate) authority: Option<StoreAuthority>,
    pub(crate) sealing: Option<SealingKey>,
}

impl Node {
    pub(crate) fn new(at: usize, key: SigningKey, issued: Issued, seed: [u8; 32], now: UnixTime) -> Self {
        let config = RenewalConfig { rest_most: Duration::from_secs(240), ..RenewalConfig::default() };
        let validity = issued.certificate().unwrap().validity();
        Self {
            id: id_of(at),
            key,
            renewal: Renewal::new(config, validity, seed, now).unwrap(),
            heard: issued.revision,
            issued,
            refusals: Refusals::default(),
            pending: None,
            next_seen: now,
            skew: 0,
            cut: now,
            jumped: None,
            excused: now,
            gone: false,
            authority: None,
            sealing: None,
        }
    }

    pub(crate) fn own(&self) -> &Certificate {
        self.issued.certificate().unwrap()
    }

    pub(crate) fn role(&self) -> Role {
        self.own().identity().unwrap().role
    }

    pub(crate) fn clock(&self, now: UnixTime) -> UnixTime {
        UnixTime::from_millis(now.as_millis().saturating_add_signed(self.skew))
    }

    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether something is promised to it.
    pub(crate) fn counts(&self, now: UnixTime) -> bool {
        !self.gone && self.excused <= now && self.jumped.is_none()
    }

    pub(crate) fn verify(&self, chain: &[Certificate], usage: Usage, now: UnixTime) -> Result<Identity, VerifyError> {
        let (roots, refusals) = (self.issued.roots.clone(), self.refusals.clone());
        let (crosses, demoted) = Default::default();
        let trusted = Trusted { revision: self.heard, roots, crosses, refusals, demoted };
        trusted.verify(chain, usage, self.clock(now))
    }

    fn hear(&mut self, trusted: Trusted) {
        if trusted.revision > self.heard {
            (self.heard, self.issued.roots, self.refusals) = (trusted.revision, trusted.roots, trusted.refusals);
        }
    }

    /// Takes a certificate, with its roots where they are not older than those that it has.
    fn take(&mut self, key: SigningKey, issued: Issued, now: UnixTime) {
        let roots = if issued.revision > self.heard { issued.roots } else { self.issued.roots.clone() };
        self.key = key;
        self.issued = Issued { roots, ..issued };
        let (validity, clock) = (self.own().validity(), self.clock(now));
        self.renewal.handle_renewed(validity, clock);
    }
}

impl World {
    /// What a node does when it looks at the clock.
    pub(crate) fn live(&mut self, at: usize) {
        let clock = self.nodes[at].clock(self.now);
        self.nodes[at].renewal.handle_timeout(clock);
        while let Some(event) = self.nodes[at].renewal.poll_event() {
            match event {
                RenewalEvent::Ask => self.ask(at, false),
                RenewalEvent::Rescue => self.ask(at, true),
                RenewalEvent::Lost => {
                    let node = &self.nodes[at];
                    assert!(node.gone || node.jumped.is_some(), "seed {}: {at} is lost", self.seed);
                }
                _ => {}
            }
        }
        if self.nodes[at].next_seen <= self.now {
            let rest = 180 + self.dice.below(200) as u64;
            self.nodes[at].next_seen = self.now + Duration::from_secs(rest);
            self.report(at);
        }
        self.ask_for_sealing(at);
    }

    /// A manager that a node reaches, both believing each other; the node by what it proves if `rescue`.
    pub(crate) fn reach(&mut self, at: usize, rescue: bool) -> Option<usize> {
        let (now, from) = (self.now, &self.nodes[at]);
        if from.cut > now {
            return None;
        }
        let can = |(_, to): &(usize, &Node)| to.authority.is_some() && !to.gone && to.cut <= now;
        let managers: Vec<usize> = self.nodes.iter().enumerate().filter(can).map(|(to, _)| to).collect();
        let to = *managers.get(self.dice.below(managers.len()))?;
        if to != at && self.chaos && self.dice.one_in(8) {
            self.counts.lost += 1;
            return None;
        }
        let (from, server) = (&self.nodes[at], &self.nodes[to]);
        let serves = from.verify(&server.issued.chain, Usage::Server, now);
        let believed = if rescue { Ok(()) } else { server.verify(&from.issued.chain, Usage::Client, now).map(drop) };
        match (serves, believed) {
            (Ok(identity), Ok(())) if identity.role == Role::Manager => Some(to),
            _ => None,
        }
    }

    fn ask(&mut self, at: usize, rescue: bool) {
        let clock = self.nodes[at].clock(self.now);
        match self.answer(at, rescue) {
            Some(issued) => {
                let Some((key, _)) = self.nodes[at].pending.take() else { return };
                let (serial, digest) = (issued.certificate().unwrap().serial().clone(), key.digest());
                let first = *self.serials.entry(serial).or_insert(digest);
                assert_eq!(first, digest, "seed {}: two certificates have one number", self.seed);
                let now = self.now;
                self.nodes[at].take(key, issued, now);
                self.counts.renewals += 1;
                self.counts.rescues += u64::from(rescue);
            }
            None => self.nodes[at].renewal.handle_failed(clock),
        }
    }

    fn answer(&mut self, at: usize, rescue: bool) -> Option<Issued> {
        let through = self.reach(at, rescue)?;
        let signer = self.signer(through)?;
        let node = &mut self.nodes[at];
        let (_, request) = node.pending.get_or_insert_with(|| {
            let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
            let request = SigningRequest::create(&key).unwrap();
            (key, request)
        });
        let request = request.clone();
        let proof = match rescue {
            false => Proof::Session(node.own().clone()),
            true => Proof::of_key(node.own().clone(), &node.key, &request).unwrap(),
        };
        let by = &self.nodes[signer];
        let authority = by.authority.as_ref().unwrap();
        let answer = block_on(authority.renew(&Renewing { proof, request }, by.clock(self.now)));
        let is_deposed = self.deposed == Some(signer) && self.leader.is_some_and(|leader| leader != signer);
        match answer {
            Ok(_) if self.chaos && self.dice.one_in(8) => {
                self.counts.lost += 1;
                None
            }
            Ok(issued) => {
                assert!(!self.nodes[at].gone, "seed {}: {at} was removed, and got a certificate", self.seed);
                assert!(!is_deposed, "seed {}: {signer} was deposed, and signed", self.seed);
                Some(issued)
            }
            Err(Denied::Trouble(trouble)) => {
                self.trouble(signer, &trouble);
                None
            }
            Err(Denied::Refused(RenewRefusal::Expired { .. })) => None, // by the manager's clock
            Err(Denied::Refused(refusal)) => {
                assert!(self.nodes[at].gone, "seed {}: {at} was refused: {refusal}", self.seed);
                None
            }
        }
    }

    /// Shows its certificate, and hears how it stands and whom to believe.
    fn report(&mut self, at: usize) {
        let Some(to) = self.reach(at, false) else { return };
        let (server, shown) = (&self.nodes[to], self.nodes[at].own().clone());
        let authority = server.authority.as_ref().unwrap();
        let standing = match block_on(authority.seen(&shown, server.clock(self.now))) {
            Ok(standing) => standing,
            Err(Denied::Refused(refusal)) => {
                let expired = matches!(refusal, RenewRefusal::Expired { .. });
                assert!(self.nodes[at].gone || expired, "seed {}: {at} was refused: {refusal}", self.seed);
                return;
            }
            Err(Denied::Trouble(_)) => return,
        };
        assert!(!self.nodes[at].gone, "seed {}: {at} was removed, and stands", self.seed);
        let trusted = block_on(authority.trusted()).ok();
        let now = self.now;
        let node = &mut self.nodes[at];
        if let Some(trusted) = trusted.filter(|_| standing.revision > node.heard) {
            node.hear(trusted);
        }
        if standing.renew.is_some() {
            let clock = node.clock(now);
            node.renewal.force(clock);
        }
    }

    /// What a manager that leads was short of.
    fn trouble(&mut self, signer: usize, trouble: &Trouble) {
        match trouble {
            Trouble::Deposed => {
                self.counts.deposed += 1;
                if self.leader == Some(signer) {
                    self.leader = None;
                }
                if self.deposed == Some(signer) {
                    self.deposed = None;
                }
                if let Some(authority) = &self.nodes[signer].authority {
                    authority.follow();
                }
            }
            other => assert!(other.is_transient(), "seed {}: {other:?}", self.seed),
        }
    }

    /// From now on it may be without until some time after `until`.
    pub(crate) fn excuse(&mut self, at: usize, until: UnixTime) {
        let node = &mut self.nodes[at];
        node.excused = node.excused.max(until + RECOVERY);
    }
}
