//! Whose word on a member is taken: its own alone, where members sign.
//!
//! What a member says of itself is signed under each number that it gives itself, and travels with its signature. Whoever hears of a greater number, or of
//! somebody new, verifies it; where it does not know yet by what, it keeps that as a claim and asks who told of it for what the member
//! has shown of itself. What others *think* of a member, at a number that is known, needs no signature: the member objects.

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{Instant, NodeId};

use crate::Standing;
use crate::membership::Source;
use crate::rate_limit::RateLimit;
use crate::swim::Swim;
use crate::swim::roster::{ME, Slot};
use crate::swim::statements::{presence, statement};
use crate::tables::{Disbelief, FORGERIES, FORGERIES_AT_ONCE, Group, Signature, Verify};
use crate::wire::{Kind, Proofs, Prove, Update};

/// Who speaks in one message, and what came of it.
#[derive(Debug)]
pub(super) struct Teller {
    node: NodeId,
    /// Where it can be asked; none if that is not known.
    address: Option<SocketAddr>,
    way: Way,
    /// Whether it told something forged: then the rest of the message is not looked at, so that a message costs one signature.
    lied: bool,
    /// Of whom it has told what is yet to be proved.
    unproved: Vec<NodeId>,
}

/// How it comes to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By itself, to be told on.
    News,
    /// By itself, for this node alone.
    Push,
    /// On a stream, of itself, to be told on: verified as an answer is, or who is new could be kept out by what others say.
    Itself,
    /// It was asked: all of it is verified, however much was forged of late.
    Answer,
}

impl Teller {
    pub(super) const fn new(node: NodeId, address: Option<SocketAddr>, way: Way) -> Self {
        Self { node, address, way, lied: false, unproved: Vec::new() }
    }

    fn is_limited(&self) -> bool {
        matches!(self.way, Way::News | Way::Push)
    }
}

/// What was said of members that nobody here can verify yet.
#[derive(Debug)]
pub(super) struct Claims {
    by_start: BTreeMap<Start, Claim>,
    /// The oldest first.
    order: BTreeSet<(Instant, Start)>,
    forgeries: RateLimit,
    questions: RateLimit,
    /// Not the forgeries' own: who forges words would have every proof dropped that comes.
    false_proofs: RateLimit,
    /// What was shown and believed, for the tables.
    shown: VecDeque<Group>,
}

/// One start of a node: each has a key of its own.
type Start = (NodeId, u64);

#[derive(Debug)]
struct Claim {
    update: Update,
    since: Instant,
    asked: Instant,
    /// Whether it came as news, and is to be told on.
    news: bool,
}

/// Claims that are kept; the oldest makes room. Each waits for one answer only.
const CLAIMS: usize = 16_384;
/// After so long somebody else is asked.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A claim is kept for so long.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Members asked about at once.
const AT_ONCE: usize = 1_024;

impl Claims {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            by_start: BTreeMap::new(),
            order: BTreeSet::new(),
            forgeries: RateLimit::new(FORGERIES, FORGERIES_AT_ONCE, now),
            questions: RateLimit::new(FORGERIES, FORGERIES_AT_ONCE, now),
            false_proofs: RateLimit::new(FORGERIES, FORGERIES_AT_ONCE, now),
            shown: VecDeque::new(),
        }
    }

    /// Keeps what was said; whether its teller is to be asked.
    fn keep(&mut self, update: &Update, teller: &Teller, now: Instant) -> bool {
        let start = (update.member.id, update.member.incarnation);
        let waits = self.by_start.get(&start).is_some_and(|claim| now - claim.asked < ASK_AGAIN);
        // Who answers is asked in any case: whoever was asked before may have told of it only not to prove it.
        let asks = !teller.is_limited() || (!waits && self.questions.take(now));
        let news = matches!(teller.way, Way::News | Way::Itself);
        match self.by_start.entry(start) {
            Entry::Occupied(mut kept) => {
                let claim = kept.get_mut();
                claim.news |= news;
                if asks {
                    claim.asked = now;
                }
                if claim.update.revision < update.revision {
                    claim.update = update.clone();
                }
            }
            Entry::Vacant(place) if asks => {
                place.insert(Claim { update: update.clone(), since: now, asked: now, news });
                self.order.insert((now, start));
            }
            Entry::Vacant(_) => {}
        }
        if self.by_start.len() > CLAIMS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.by_start.remove(&oldest);
        }
        asks
    }

    /// Drops what nobody could prove.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, start)) = self.order.first().copied().filter(|(since, _)| *since + KEPT_FOR <= now) {
            self.remove(start);
        }
    }

    fn remove(&mut self, start: Start) -> Option<Claim> {
        let claim = self.by_start.remove(&start)?;
        self.order.remove(&(claim.since, start));
        Some(claim)
    }

    pub(super) fn len(&self) -> usize {
        self.by_start.len()
    }

    pub(super) fn poll_shown(&mut self) -> Option<Group> {
        self.shown.pop_front()
    }
}

impl Swim {
    /// Whether what is said with a greater number, or of who is not known, or as a goodbye, is the member's own word; if that cannot be said yet, it is kept as a claim.
    pub(super) fn believes(&mut self, update: &Update, teller: &mut Teller, now: Instant) -> bool {
        let Some(verify) = self.config.tables.verify.clone() else { return true };
        if teller.lied || (teller.is_limited() && !self.claims.forgeries.is_left(now)) {
            self.counts.unverified += 1;
            return false;
        }
        let signs = |slot: &Slot| slot.member.id == update.member.id && !slot.signature.is_empty();
        if update.signature.is_empty() && self.roster.slot(ME).is_some_and(signs) {
            self.counts.unsigned += 1; // others' words may be taken unsigned; one's own are not, once one signs
            return false;
        }
        let verified = verify.verify(update.member.id, &statement(update), &update.signature);
        let left = update.standing == Standing::Left;
        match verified {
            Ok(()) => return true,
            Err(Disbelief::Unsigned) if !left => self.counts.unsigned += 1,
            // What a start has shown that has left is kept by nobody.
            Err(why) if why != Disbelief::Unsigned && self.is_of_unknown_key(update, why) => {
                if !left {
                    self.claim(update, teller, now);
                }
            }
            Err(_) => {
                *if left { &mut self.counts.forged_leaves } else { &mut self.counts.forged } += 1;
                teller.lied = true;
                self.claims.forgeries.take(now);
            }
        }
        false
    }

    /// Whether a signature may be by a key that is not known here: each start has its own.
    fn is_of_unknown_key(&self, update: &Update, why: Disbelief) -> bool {
        why == Disbelief::Unvouched || self.start_of(update.member.id) < Some(update.member.incarnation)
    }

    fn claim(&mut self, update: &Update, teller: &mut Teller, now: Instant) {
        if teller.address.is_some() && self.claims.keep(update, teller, now) {
            teller.unproved.push(update.member.id);
        }
    }

    /// Asks who told of them for what the members of claims have shown of themselves.
    pub(super) fn ask(&mut self, teller: &Teller) {
        let (Some(to), Some(me)) = (teller.address, self.roster.slot(ME)) else { return };
        let address = me.member.address;
        for members in teller.unproved.chunks(AT_ONCE) {
            self.counts.proofs_asked += members.len() as u64;
            let mut body = Vec::new();
            Prove { address, members: members.to_vec() }.encode(&mut body);
            self.stream(to, Some(teller.node), Kind::Prove, &body);
        }
    }

    /// Takes what members have shown of themselves, where it was asked for, and by it what was claimed of them.
    pub(super) fn on_proofs(&mut self, from: Source, proofs: &Proofs, now: Instant) {
        let Some(verify) = self.config.tables.verify.clone() else {
            self.counts.stray += 1;
            return;
        };
        let mut teller = Teller::new(from.node, None, Way::Answer);
        for shown in &proofs.shown {
            let start = (shown.owner, shown.incarnation);
            if !self.claims.by_start.contains_key(&start) || !self.claims.false_proofs.is_left(now) {
                self.counts.stray += 1;
                continue;
            }
            if self.start_of(shown.owner) > Some(shown.incarnation) {
                self.claims.remove(start); // what counts now is of a later start
                continue;
            }
            if shown.introduce(&*verify).is_err() {
                self.counts.forged += 1;
                self.claims.false_proofs.take(now);
                return;
            }
            if let Some(claim) = self.claims.remove(start) {
                self.take_claim(&claim, &mut teller, now);
            }
            match self.roster.find(shown.owner) {
                Some(ME) => verify.forget(shown.owner), // a later start of this very node: it is known of now, and no more
                Some(_) if self.start_of(shown.owner) == Some(shown.incarnation) => {
                    self.claims.shown.push_back(shown.clone());
                }
                _ => {}
            }
        }
    }

    /// Which start of a node is known.
    fn start_of(&self, node: NodeId) -> Option<u64> {
        Some(self.roster.slot(self.roster.find(node)?)?.member.incarnation)
    }

    fn take_claim(&mut self, claim: &Claim, teller: &mut Teller, now: Instant) {
        let is_new = self.roster.find(claim.update.member.id).is_none();
        if claim.news {
            self.on_news(&claim.update, teller, now);
        } else if let Some(at) = self.take(&claim.update, teller, now).filter(|_| !is_new) {
            self.news.add(at);
        }
        teller.lied = false; // each is proved by itself
    }

    /// Signs what this node says of itself, as it stands.
    pub(super) fn sign_me(&mut self) {
        let Some(verify) = &self.config.tables.verify else { return };
        let Some(me) = self.roster.slot_mut(ME) else { return };
        me.signature = signed(&**verify, presence(&me.member, me.revision));
    }
}

/// A statement's signature; nothing if there is none to be had, or it is longer than was said.
pub(super) fn signed(verify: &dyn Verify, statement: Vec<u8>) -> Box<[u8]> {
    let signature = verify.sign(&[statement]).pop();
    let fit = signature.filter(|signature| signature.as_bytes().len() <= verify.longest());
    fit.as_ref().map_or(&[][..], Signature::as_bytes).into()
}
