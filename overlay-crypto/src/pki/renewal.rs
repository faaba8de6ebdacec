//! When a node asks for its next certificate.

use std::collections::VecDeque;
use std::time::Duration;

use overlay_core::UnixTime;

use super::Validity;
use crate::Chance;

/// The machine that has a node's certificate renewed in time: at a moment by chance in 50 to 80 % of its life, then again with longer and longer rests until it worked; at once where
/// that is asked for. It counts by the date, as certificates do, and does what is due when it sees that it is. A clock that jumps ahead brings a renewal on; where what comes is over or due by that clock, it rests as
/// after a failure. One that jumps back puts nothing off by more than the longest rest, if whoever waits for it looks at the clock as often.
///
/// ```
/// use std::time::Duration;
/// use overlay_core::UnixTime;
/// use overlay_crypto::pki::{Renewal, RenewalConfig, RenewalEvent, Validity};
///
/// let from = UnixTime::from_millis(1_800_000_000_000);
/// let validity = Validity { from, until: from + Duration::from_secs(1000) };
/// let mut renewal = Renewal::new(RenewalConfig::default(), validity, [7; 32], from)?;
/// let due = renewal.poll_timeout();
/// assert!((500..=800).contains(&(due - from).as_secs()));
///
/// renewal.handle_timeout(due);
/// assert_eq!(renewal.poll_event(), Some(RenewalEvent::Ask));
/// renewal.handle_renewed(Validity { from: due, until: due + Duration::from_secs(1000) }, due);
/// # Ok::<(), overlay_crypto::pki::RenewalConfigError>(())
/// ```
#[derive(Debug)]
pub struct Renewal {
    config: RenewalConfig,
    chance: Chance,
    validity: Validity,
    /// When the certificate is due to be renewed.
    due: UnixTime,
    /// When it is asked next.
    at: UnixTime,
    /// How long it rests after the next failure.
    rest: Duration,
    /// Whether an answer is awaited, and until when.
    asking: Option<UnixTime>,
    told: Told,
    events: VecDeque<RenewalEvent>,
}

/// What was told of a certificate that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Expired,
    Lost,
}

/// How a [`Renewal`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalConfig {
    /// How long it rests after the first failure; twice as long after each further: 5 s.
    pub rest_first: Duration,
    /// And no longer than that: an hour.
    pub rest_most: Duration,
    /// How long an answer is waited for: 30 s.
    pub patience: Duration,
    /// How long after its end a certificate's key still proves who asks, if the node is a member: 30 days. Then it has to join anew.
    pub grace: Duration,
}

/// A thousand years: whoever rests longer does not notice.
const AGES: Duration = Duration::from_secs(1_000 * 366 * 24 * 3600);

/// A setting that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "rests from {first:?} to {most:?} with patience of {patience:?}: each above zero, the first no longer than the most"
)]
pub struct RenewalConfigError {
    /// The first rest.
    pub first: Duration,
    /// The longest.
    pub most: Duration,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// What a node is to do, or to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RenewalEvent {
    /// Ask for a certificate, with a new key, by the present one.
    Ask,
    /// Ask for one, though the present one is over: by its key, as a member.
    Rescue,
    /// The certificate is over. The node goes on asking.
    Expired {
        /// Since when.
        until: UnixTime,
    },
    /// It is over for so long that nobody answers any more: the node has to join anew.
    Lost,
}

impl Default for RenewalConfig {
    fn default() -> Self {
        Self {
            rest_first: Duration::from_secs(5),
            rest_most: Duration::from_secs(3600),
            patience: Duration::from_secs(30),
            grace: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl RenewalConfig {
    fn check(&self) -> Result<(), RenewalConfigError> {
        let Self { rest_first: first, rest_most: most, patience, grace: _ } = *self;
        let right = !first.is_zero() && first <= most && !patience.is_zero();
        if right { Ok(()) } else { Err(RenewalConfigError { first, most, patience }) }
    }
}

impl Renewal {
    /// For a certificate that counts so long. `seed` is for what is chosen by chance.
    ///
    /// # Errors
    /// If `config` makes no sense.
    pub fn new(
        config: RenewalConfig,
        validity: Validity,
        seed: [u8; 32],
        now: UnixTime,
    ) -> Result<Self, RenewalConfigError> {
        config.check()?;
        let (rest, chance) = (config.rest_first, Chance::new(seed));
        let (told, events) = (Told::Nothing, VecDeque::new());
        let mut new = Self { config, chance, validity, due: now, at: now, rest, asking: None, told, events };
        new.due = new.choose();
        new.at = new.due;
        new.handle_timeout(now);
        Ok(new)
    }

    /// There is another certificate.
    pub fn handle_renewed(&mut self, validity: Validity, now: UnixTime) {
        (self.validity, self.asking, self.told) = (validity, None, Told::Nothing);
        self.due = self.choose();
        if self.due <= now {
            self.rest(now); // by a clock that is wrong, or from a root that ends: asking at once would not end
        } else {
            (self.at, self.rest) = (self.due, self.config.rest_first);
        }
        self.handle_timeout(now);
    }

    /// The moment by chance at which the certificate is to be renewed.
    fn choose(&mut self) -> UnixTime {
        let part = 0.5 + 0.3 * self.share();
        self.validity.from + self.validity.life().mul_f64(part)
    }

    fn rest(&mut self, now: UnixTime) {
        let part = 0.75 + 0.5 * self.share();
        self.at = now + self.rest.min(AGES).mul_f64(part).min(self.config.rest_most);
        self.rest = self.rest.saturating_mul(2).min(self.config.rest_most);
    }

    /// There is none, this time.
    pub fn handle_failed(&mut self, now: UnixTime) {
        if self.asking.take().is_some() {
            self.rest(now);
        }
        self.handle_timeout(now);
    }

    /// Another certificate is wanted now: for another role, say, or from another root.
    pub fn force(&mut self, now: UnixTime) {
        (self.at, self.rest) = (now, self.config.rest_first);
        self.handle_timeout(now);
    }

    /// Does what is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        self.mind_the_clock(now);
        if self.asking.is_some_and(|until| until <= now) {
            return self.handle_failed(now);
        }
        let until = self.validity.until;
        if until < now && self.told < Told::Expired {
            self.told = Told::Expired;
            self.events.push_back(RenewalEvent::Expired { until });
        }
        if self.is_lost(now) {
            if self.told < Told::Lost {
                self.told = Told::Lost;
                self.events.push_back(RenewalEvent::Lost);
            }
        } else if self.asking.is_none() && self.at <= now {
            self.asking = Some(now + self.config.patience);
            let rescue = until < now;
            self.events.push_back(if rescue { RenewalEvent::Rescue } else { RenewalEvent::Ask });
        }
    }

    /// A clock that was set back takes what was told by it back, and puts nothing off.
    fn mind_the_clock(&mut self, now: UnixTime) {
        if now <= self.validity.until {
            self.told = Told::Nothing;
        } else if !self.is_lost(now) {
            self.told = self.told.min(Told::Expired);
        }
        self.at = self.at.min(self.due.max(now + self.config.rest_most));
        self.asking = self.asking.map(|until| until.min(now + self.config.patience));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> UnixTime {
        let over = match self.told {
            Told::Nothing => Some(self.validity.until + Duration::from_secs(1)),
            Told::Expired => Some(self.validity.until + self.config.grace + Duration::from_secs(1)),
            Told::Lost => None,
        };
        let next = match self.told {
            Told::Lost => None,
            _ => Some(self.asking.unwrap_or(self.at)),
        };
        over.into_iter().chain(next).min().unwrap_or(UnixTime::from_millis(u64::MAX))
    }

    /// What is to be done, in order.
    pub fn poll_event(&mut self) -> Option<RenewalEvent> {
        self.events.pop_front()
    }

    /// Of 1, by chance.
    fn share(&mut self) -> f64 {
        let mut bytes = [0; 2];
        self.chance.draw(&mut bytes);
        f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
    }

    fn is_lost(&self, now: UnixTime) -> bool {
        self.validity.until + self.config.grace < now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFE: u64 = 90 * 24 * 3600;
    const DAY: u64 = 24 * 3600;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_millis((1_800_000_000 + seconds) * 1000)
    }

    fn of(from: u64) -> Validity {
        Validity { from: at(from), until: at(from + LIFE) }
    }

    fn new(seed: u8) -> Renewal {
        Renewal::new(RenewalConfig::default(), of(0), [seed; 32], at(0)).unwrap()
    }

    /// What it asks for until then, and when; nobody answers, or all say no.
    fn run(renewal: &mut Renewal, until: UnixTime, answer: bool) -> Vec<(u64, RenewalEvent)> {
        let mut all = Vec::new();
        loop {
            while let Some(event) = renewal.poll_event() {
                all.push(event);
            }
            let next = renewal.poll_timeout();
            if next > until {
                return all.into_iter().map(|event| (0, event)).collect();
            }
            renewal.handle_timeout(next);
            while let Some(event) = renewal.poll_event() {
                all.push(event);
                if answer && matches!(event, RenewalEvent::Ask | RenewalEvent::Rescue) {
                    renewal.handle_failed(next);
                }
            }
        }
    }

    #[test]
    fn it_asks_at_a_moment_by_chance_between_half_and_four_fifths_of_its_life() {
        let when: Vec<f64> =
            (0..100).map(|seed| (new(seed).poll_timeout() - at(0)).as_secs_f64() / LIFE as f64).collect();
        assert!(when.iter().all(|part| (0.5..=0.8).contains(part)));
        let (least, most) = when.iter().fold((1.0_f64, 0.0_f64), |(least, most), it| (least.min(*it), most.max(*it)));
        assert!(least < 0.55 && most > 0.75, "{least} to {most}");
    }

    #[test]
    fn whoever_is_refused_or_not_answered_asks_again_more_and_more_seldom_and_to_the_end_of_the_grace() {
        for answer in [true, false] {
            let mut renewal = new(7);
            let all: Vec<RenewalEvent> =
                run(&mut renewal, at(LIFE + 40 * DAY), answer).into_iter().map(|it| it.1).collect();
            let asked = all.iter().filter(|event| **event == RenewalEvent::Ask).count();
            let rescues = all.iter().filter(|event| **event == RenewalEvent::Rescue).count();
            assert!((400..1500).contains(&asked) && (650..900).contains(&rescues), "{asked} and {rescues}");
            let over: Vec<_> =
                all.iter().filter(|it| !matches!(it, RenewalEvent::Ask | RenewalEvent::Rescue)).collect();
            assert_eq!(over, [&RenewalEvent::Expired { until: at(LIFE) }, &RenewalEvent::Lost]);
            assert_eq!(all.last(), Some(&RenewalEvent::Lost));
            assert_eq!(renewal.poll_timeout(), UnixTime::from_millis(u64::MAX));
        }
    }

    #[test]
    fn an_answer_ends_it_and_a_certificate_that_was_over_is_one_again() {
        let mut renewal = new(7);
        renewal.handle_timeout(at(LIFE + DAY));
        let events: Vec<_> = std::iter::from_fn(|| renewal.poll_event()).collect();
        assert_eq!(events, [RenewalEvent::Expired { until: at(LIFE) }, RenewalEvent::Rescue]);
        renewal.handle_renewed(of(LIFE + DAY), at(LIFE + DAY));
        assert_eq!(renewal.poll_event(), None);
        assert!(renewal.poll_timeout() > at(LIFE + 40 * DAY));
        renewal.handle_failed(at(LIFE + DAY)); // too late
        assert!(renewal.poll_timeout() > at(LIFE + 40 * DAY));
    }

    #[test]
    fn where_it_is_forced_it_asks_at_once() {
        let mut renewal = new(7);
        renewal.force(at(10));
        assert_eq!(renewal.poll_event(), Some(RenewalEvent::Ask));
        renewal.force(at(11));
        assert_eq!(renewal.poll_event(), None, "it asks already");
        renewal.handle_failed(at(12));
        assert!((3..8).contains(&(renewal.poll_timeout() - at(12)).as_secs()));
    }

    #[test]
    fn a_clock_that_was_far_ahead_for_a_while_neither_floods_nor_puts_off() {
        let mut renewal = new(7);
        let (mut now, mut asked) = (at(10 * LIFE), 0);
        let end = now + Duration::from_secs(DAY);
        while now < end {
            renewal.handle_timeout(now);
            while let Some(event) = renewal.poll_event() {
                if matches!(event, RenewalEvent::Ask | RenewalEvent::Rescue) {
                    asked += 1;
                    renewal.handle_renewed(of(0), now);
                }
            }
            now = now + Duration::from_secs(10);
        }
        assert!(asked == 0, "nobody rescues it then: {asked}");
        let mut renewal = new(7);
        let mut now = at(LIFE + DAY);
        while now < at(LIFE + 2 * DAY) {
            renewal.handle_timeout(now);
            while let Some(event) = renewal.poll_event() {
                if matches!(event, RenewalEvent::Ask | RenewalEvent::Rescue) {
                    asked += 1;
                    renewal.handle_renewed(of(0), now);
                }
            }
            now = now + Duration::from_secs(10);
        }
        assert!((20..50).contains(&asked), "{asked}");
        renewal.handle_timeout(at(DAY)); // set right
        assert!(renewal.poll_timeout() <= at(LIFE * 8 / 10));
        renewal.handle_timeout(at(LIFE * 8 / 10 + 3601));
        assert_eq!(std::iter::from_fn(|| renewal.poll_event()).last(), Some(RenewalEvent::Ask));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let config = RenewalConfig { rest_first: Duration::from_secs(7200), ..RenewalConfig::default() };
        assert!(Renewal::new(config, of(0), [1; 32], at(0)).is_err());
        let config = RenewalConfig { patience: Duration::ZERO, ..RenewalConfig::default() };
        assert!(Renewal::new(config, of(0), [1; 32], at(0)).is_err());
    }

    #[test]
    fn whoever_would_rest_for_ever_does() {
        let config = RenewalConfig { rest_first: Duration::MAX, rest_most: Duration::MAX, ..RenewalConfig::default() };
        let mut renewal = Renewal::new(config, of(0), [7; 32], at(0)).unwrap();
        for day in [80, 81, 82] {
            renewal.force(at(day * DAY));
            renewal.handle_failed(at(day * DAY));
        }
        assert!(renewal.poll_timeout() > at(LIFE), "{:?}", renewal.poll_timeout());
    }

    proptest! {
        /// However the clock jumps: it never asks twice at once, and what is due is never put off for longer than the clock jumped.
        #[test]
        fn a_clock_that_jumps_neither_floods_nor_stops_it(jumps in prop::collection::vec(0..LIFE * 2, 1..60), seed: [u8; 32]) {
            let mut renewal = Renewal::new(RenewalConfig::default(), of(0), seed, at(0)).unwrap();
            let mut asking = false;
            for now in jumps {
                renewal.handle_timeout(at(now));
                let asked = std::iter::from_fn(|| renewal.poll_event());
                let asked = asked.filter(|event| matches!(event, RenewalEvent::Ask | RenewalEvent::Rescue)).count();
                prop_assert!(asked <= 1);
                asking |= asked == 1;
                if !asking && now > LIFE * 8 / 10 && now <= LIFE {
                    prop_assert!(renewal.asking.is_some() || renewal.at > at(now));
                }
            }
        }
    }
}
