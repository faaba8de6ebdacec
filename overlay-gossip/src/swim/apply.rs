//! What is believed of members, and what makes it change.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::Instant;

use crate::membership::{Source, Urgency};
use crate::swim::claims::{Teller, Way};
use crate::swim::roster::{Index, ME, Slot};
use crate::swim::suspicion::{Suspicion, time_to_object};
use crate::swim::{Phase, Swim};
use crate::wire::{Kind, News, Number, Ping, Update};
use crate::{Event, Member, Standing};

impl Swim {
    pub(super) fn on_all_news(&mut self, from: Source, news: &News, now: Instant) {
        let mut teller = Teller::new(from.node, Some(from.address), Way::News);
        news.updates.iter().for_each(|update| self.on_news(update, &mut teller, now));
        self.ask(&teller);
    }

    /// News from whomever.
    pub(super) fn on_news(&mut self, update: &Update, teller: &mut Teller, now: Instant) {
        if let Some(at) = self.take(update, teller, now) {
            self.news.add(at);
            self.verify(at, update, now);
        }
    }

    /// Believes an update, if it is newer than what is known; gives the member if something changed.
    pub(super) fn take(&mut self, update: &Update, teller: &mut Teller, now: Instant) -> Option<Index> {
        match self.roster.find(update.member.id) {
            Some(ME) => {
                self.defend(update, teller, now);
                None
            }
            Some(at) => self.take_known(at, update, teller, now).then_some(at),
            None => self.take_unknown(update, teller, now),
        }
    }

    fn take_unknown(&mut self, update: &Update, teller: &mut Teller, now: Instant) -> Option<Index> {
        let gone = is_gone(update.standing);
        if gone && update.age >= self.config.expire_after {
            return None;
        }
        if !self.believes(update, teller, now) {
            return None;
        }
        if self.roster.len() >= self.config.member_limit && !self.make_room() {
            self.counts.refused_full += 1;
            return None;
        }
        self.signed |= update.has_flag();
        let since = if gone { now - update.age } else { now };
        let at = self.roster.insert(update.clone(), since, &mut self.chance);
        if gone {
            self.expiries.insert((since + self.config.expire_after, at));
        }
        match update.standing {
            Standing::Alive | Standing::Suspected => self.events.push_back(Event::Up(update.member.clone())),
            Standing::Suspended => {
                self.events.push_back(Event::Suspended(update.member.id));
                self.schedule_call(now);
            }
            Standing::Left => self.events.push_back(Event::Left(update.member.id)),
        }
        if update.standing == Standing::Suspected {
            self.suspect(at, update, now);
        }
        Some(at)
    }

    /// Who is known here is gone for as long as it is known to be, however long others say. Its age is but the word of who tells it: by a
    /// great one a member would be forgotten at once, and its entries with it, without the time in which it objects.
    fn take_known(&mut self, at: Index, update: &Update, teller: &mut Teller, now: Instant) -> bool {
        let Some(slot) = self.roster.slot(at) else { return false };
        let (old, order) = (slot.standing, update.number().cmp(&slot.number()));
        // For how long it is known to be gone here: not at all, if it was alive until now.
        let known = if is_gone(old) { now - slot.since } else { Duration::ZERO };
        let younger = (is_gone(update.standing) && update.age > known).then(|| Update { age: known, ..update.clone() });
        let update = younger.as_ref().unwrap_or(update);
        match (order, update.standing) {
            (Ordering::Less, _) => false,
            (Ordering::Greater, _) if !self.believes(update, teller, now) => false,
            (Ordering::Greater, _) => {
                self.renew(at, update, now);
                true
            }
            (Ordering::Equal, Standing::Suspected) if !is_gone(old) => self.suspect(at, update, now),
            (Ordering::Equal, new) if old >= new => false,
            (Ordering::Equal, Standing::Left) if !self.believes(update, teller, now) => false,
            (Ordering::Equal, _) => self.stand_down(at, update, now),
        }
    }

    /// The member itself has spoken: what was believed of its former number is void.
    fn renew(&mut self, at: Index, update: &Update, now: Instant) {
        let Some(slot) = self.roster.slot(at) else { return };
        let (was, number, old) = (slot.standing, slot.number(), slot.member.clone());
        self.forget_deadlines(at);
        self.signed |= update.has_flag();
        // Who says goodbye signs its number alone.
        let said = if update.standing == Standing::Left { &old } else { &update.member };
        let member = Member { incarnation: update.member.incarnation, ..said.clone() };
        let renewed = |slot: &mut Slot| {
            slot.member = member.clone();
            slot.revision = update.revision;
            slot.signature = update.signature.clone();
            slot.standing = Standing::Alive;
            slot.since = now;
            slot.trouble = None;
        };
        self.roster.change(at, renewed, &mut self.chance);
        let restarted = number.incarnation != member.incarnation;
        let event = match was {
            Standing::Suspended | Standing::Left => Some(Event::Up(member)),
            _ if restarted || old != member => Some(Event::Changed(member)),
            Standing::Suspected => Some(Event::Cleared(member.id)),
            Standing::Alive => None,
        };
        if !(is_gone(update.standing) && is_gone(was)) {
            self.events.extend(event);
        }
        match update.standing {
            Standing::Alive => {}
            Standing::Suspected => {
                self.suspect(at, update, now);
            }
            Standing::Suspended | Standing::Left => {
                self.stand_down(at, update, now);
            }
        }
    }

    /// Notes an accusation, one's own or another's; true if it was new.
    pub(super) fn suspect(&mut self, at: Index, update: &Update, now: Instant) -> bool {
        let (limit, n) = (usize::from(self.config.confirmations) + 1, self.roster.live() + 1);
        let Some(slot) = self.roster.slot_mut(at) else { return false };
        let (id, fresh) = (slot.member.id, slot.suspicion().is_none());
        let suspicion = slot.trouble_mut().suspicion.get_or_insert_with(|| Suspicion {
            start: now,
            deadline: Instant::FAR_FUTURE,
            accusers: Vec::new(),
        });
        if !suspicion.confirm(update.accusers.iter().copied(), limit) && !fresh {
            return false;
        }
        self.suspects.remove(&(suspicion.deadline, at));
        let deadline = suspicion.start + time_to_object(&self.config, n, suspicion.accusers.len());
        suspicion.deadline = deadline.max(now);
        self.suspects.insert((suspicion.deadline, at));
        if fresh {
            self.counts.suspicions += 1;
            self.roster.change(at, |slot| slot.standing = Standing::Suspected, &mut self.chance);
            self.events.push_back(Event::Suspected(id));
        }
        true
    }

    /// Accuses a member that did not answer.
    pub(super) fn accuse(&mut self, at: Index, now: Instant) {
        let me = self.roster.slot(ME).map(|slot| slot.member.id);
        let Some(slot) = self.roster.slot(at) else { return };
        let update = Update { standing: Standing::Suspected, accusers: me.into_iter().collect(), ..slot.update(now) };
        if self.suspect(at, &update, now) {
            self.counts.accusations += 1;
            self.news.add(at);
        }
    }

    pub(super) fn serve_suspicions(&mut self, now: Instant) {
        while let Some((deadline, at)) = self.suspects.first().copied() {
            if deadline > now {
                break;
            }
            self.suspects.pop_first();
            self.counts.declared += 1;
            let Some(slot) = self.roster.slot(at) else { continue };
            let update = Update { standing: Standing::Suspended, age: Duration::ZERO, ..slot.update(now) };
            self.stand_down(at, &update, now);
            self.news.add(at);
        }
    }

    /// A live or suspended member becomes suspended or left.
    fn stand_down(&mut self, at: Index, update: &Update, now: Instant) -> bool {
        let (standing, since) = (update.standing, now - update.age);
        self.forget_deadlines(at);
        let stood = |slot: &mut Slot| {
            slot.standing = standing;
            slot.since = since;
            slot.settle();
            if standing == Standing::Left {
                slot.signature = update.signature.clone();
            }
        };
        self.roster.change(at, stood, &mut self.chance);
        self.expiries.insert((since + self.config.expire_after, at));
        let Some(id) = self.roster.slot(at).map(|slot| slot.member.id) else { return false };
        if standing == Standing::Left {
            self.events.push_back(Event::Left(id));
        } else {
            self.events.push_back(Event::Suspended(id));
            self.schedule_call(since);
        }
        true
    }

    pub(super) fn serve_expiries(&mut self, now: Instant) {
        while let Some((at, member)) = self.expiries.first().copied() {
            if at > now {
                break;
            }
            self.forget(member);
        }
    }

    /// Forgets whoever has been suspended or left the longest; false if there is nobody.
    fn make_room(&mut self) -> bool {
        let Some((_, member)) = self.expiries.first().copied() else { return false };
        self.forget(member);
        true
    }

    fn forget(&mut self, at: Index) {
        let gone = self.roster.slot(at).map(|slot| (slot.member.id, slot.standing));
        self.forget_deadlines(at);
        self.news.remove(at);
        self.probes.retain(|probe| probe.target != at);
        self.roster.remove(at);
        if let Some((id, Standing::Suspended)) = gone {
            self.events.push_back(Event::Expired(id));
        }
    }

    fn forget_deadlines(&mut self, at: Index) {
        let Some(slot) = self.roster.slot(at) else { return };
        self.expiries.remove(&(slot.since + self.config.expire_after, at));
        if let Some(suspicion) = slot.suspicion() {
            self.suspects.remove(&(suspicion.deadline, at));
        }
    }

    /// Somebody speaks of this node itself. Whatever is not as it is, and may be believed, it objects to with a greater number.
    fn defend(&mut self, update: &Update, teller: &mut Teller, now: Instant) {
        let Some(slot) = self.roster.slot(ME) else { return };
        let (said, mine) = (update.number(), slot.number());
        let agreed = said < mine || (said == mine && update.standing == slot.standing && update.member == slot.member);
        // At its own number an accusation needs no signature.
        if agreed || (said > mine && !self.believes(update, teller, now)) {
            return;
        }
        if said.incarnation > mine.incarnation {
            return self.superseded(said.incarnation);
        }
        if self.phase != Phase::Member {
            return;
        }
        match update.standing {
            Standing::Left => self.counts.forged_leaves += 1,
            Standing::Suspected | Standing::Suspended => self.health.worse(1),
            Standing::Alive => {}
        }
        self.counts.refutations += 1;
        let Number { incarnation, revision } = said;
        if revision == u32::MAX {
            return self.superseded(incarnation); // there is no greater one to object with
        }
        self.revise(now, |slot| slot.revision = slot.revision.max(revision));
    }

    /// What this machine says is believed by nobody any more: says so to its user, once for each incarnation.
    fn superseded(&mut self, incarnation: u64) {
        if self.superseded_by < Some(incarnation) {
            self.superseded_by = Some(incarnation);
            self.events.push_back(Event::Superseded { incarnation });
        }
    }

    /// Gives oneself a greater number, for whatever `change` does, and tells everybody at once.
    pub(super) fn revise(&mut self, now: Instant, change: impl FnOnce(&mut Slot)) {
        let revised = |slot: &mut Slot| {
            change(slot);
            slot.revision = slot.revision.saturating_add(1);
            slot.since = now;
        };
        self.roster.change(ME, revised, &mut self.chance);
        self.sign_me();
        self.news.add(ME);
        self.urgency = Urgency::Now;
    }

    /// A node that writes although it is suspended or left does not know: it is told, but not at every word.
    pub(super) fn tell_if_wronged(&mut self, from: Source, now: Instant) {
        let Some(at) = self.roster.find(from.node) else { return };
        let Some(slot) = self.roster.slot(at) else { return };
        if at != ME && is_gone(slot.standing) && now - slot.told() >= self.config.probe_timeout {
            self.challenge(at, slot.member.address, now);
        }
    }

    /// Probes a member that is believed gone, or an earlier start of it at another address; the probe tells it so.
    pub(super) fn challenge(&mut self, at: Index, address: SocketAddr, now: Instant) {
        let Some(id) = self.roster.slot(at).map(|slot| slot.member.id) else { return };
        let ping = Ping { sequence: self.call_number(), digest: self.roster.digest(), target: Some(id) };
        let mut body = Vec::new();
        ping.encode(&mut body);
        self.send((address, Some(id)), Kind::Ping, &body, now);
    }
}

pub(super) const fn is_gone(standing: Standing) -> bool {
    matches!(standing, Standing::Suspended | Standing::Left)
}
