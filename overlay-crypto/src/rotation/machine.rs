//! The machine.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use overlay_core::Instant;
use serde::Serialize;

use super::{RotationConfig, RotationConfigError};
use crate::Chance;

/// When a key of a node is changed for another: not before all can open what is sealed with the new one, and the old one goes when nobody seals with it.
///
/// It knows neither keys nor peers, only in which [`Stage`] things are. Its caller holds to that: who has which key, what is published, what is sealed with which. It is told
/// when that [is in effect here](Self::handle_held), and when all others [have confirmed](Self::handle_confirmed) that they act upon what was published. Both for the keys that
/// nodes have for each other ([`EpochSecret`](crate::EpochSecret)) and for one that all share ([`Keyring`](crate::gossip::Keyring)).
///
/// Two nodes that rotate at once do not disturb each other, if each has, for all that the other has published, the keys with all its own, before it says that it is in effect.
///
/// Time counts by what is seen of it: a clock that jumps ahead brings a rotation on, but nobody is left behind for it.
///
/// ```
/// use overlay_core::Instant;
/// use overlay_crypto::{Cause, Rotation, RotationConfig, RotationEvent, Stage};
///
/// let now = Instant::ZERO;
/// let mut rotation = Rotation::new(RotationConfig::default(), [7; 32], now)?;
/// rotation.rotate(Cause::Demand, now);
/// assert_eq!(rotation.poll_event(), Some(RotationEvent::Began(Cause::Demand)));
/// assert_eq!(rotation.stage(), Stage::Installing); // make the next key, open by it, then publish it as next
///
/// rotation.handle_held(Stage::Installing, now);
/// rotation.handle_confirmed(Stage::Installing, now);
/// assert_eq!(rotation.stage(), Stage::Promoted); // seal with it, publish it as the present one
///
/// rotation.handle_held(Stage::Promoted, now);
/// rotation.handle_confirmed(Stage::Promoted, now);
/// while rotation.stage() == Stage::Promoted {
///     let next = rotation.poll_timeout().unwrap_or(now); // it rests, for what is on its way
///     rotation.handle_timeout(next);
/// }
/// assert_eq!(rotation.stage(), Stage::Steady); // forget the old one
/// # Ok::<(), overlay_crypto::RotationConfigError>(())
/// ```
#[derive(Debug)]
pub struct Rotation {
    config: RotationConfig,
    chance: Chance,
    stage: Stage,
    held: bool,
    confirmed: bool,
    /// How long this stage has waited for others, or rested, up to `seen`.
    waited: Duration,
    seen: Instant,
    /// When the next begins by itself.
    due: Instant,
    /// Why the last began.
    cause: Option<Cause>,
    /// Why another is to begin after this one.
    again: Option<Cause>,
    events: VecDeque<RotationEvent>,
    counts: RotationCounts,
}

/// What there is of keys, and what they are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// There is one key: it seals and opens.
    Steady,
    /// The next opens too, here first, and is published as *next* when it does; the present one seals. Others are waited for to open by it.
    Installing,
    /// The next is the present one, published as such: it seals, here and elsewhere, and the *previous* opens too. Others are waited for to seal by it.
    Promoted,
}

/// Why a key is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked for it.
    Demand,
    /// A node was removed: what it knew is to be of no use.
    Removal,
    /// It was used for as long as it may be.
    Time,
    /// As much was sealed with it as may be.
    Usage,
    /// No further keys come of it for somebody: with a peer that has an older one than before, say.
    Spent,
}

/// What was sealed with a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of payloads.
    pub bytes: u64,
    /// Packets, or messages.
    pub packets: u64,
}

impl Usage {
    /// As much as is safe under one key: 2³⁴·⁵ blocks of 16 bytes, which RFC 8446 §5.5 allows AES-GCM, are 388 GB, or 2²⁸ packets of 1,400 bytes with what each adds. RFC 4106 and
    /// RFC 7634 set no bound of their own but that no nonce comes twice, of which there are 2⁶⁴.
    pub const MOST: Self = Self { bytes: 380_000_000_000, packets: 1 << 28 };
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RotationEvent {
    /// A rotation began: another key is to be made.
    Began(Cause),
    /// Somebody has not confirmed this stage within the limit, and is not waited for. Who that is, knows who is asked for confirmations.
    LeftBehind(Stage),
    /// The old key is to be forgotten.
    Ended,
}

/// What a [`Rotation`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RotationCounts {
    /// Rotations that began.
    pub began: u64,
    /// Those that ended.
    pub ended: u64,
    /// Stages that left somebody behind.
    pub left_behind: u64,
    /// Why they began.
    pub causes: Causes,
}

/// How many rotations began why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Causes {
    /// Somebody asked for it.
    pub demand: u64,
    /// A node was removed.
    pub removal: u64,
    /// By time.
    pub time: u64,
    /// By usage.
    pub usage: u64,
    /// No further keys came of the old one for somebody.
    pub spent: u64,
}

impl RotationCounts {
    /// Counts what happened.
    pub const fn count(&mut self, event: RotationEvent) {
        match event {
            RotationEvent::Began(cause) => {
                self.began += 1;
                match cause {
                    Cause::Demand => self.causes.demand += 1,
                    Cause::Removal => self.causes.removal += 1,
                    Cause::Time => self.causes.time += 1,
                    Cause::Usage => self.causes.usage += 1,
                    Cause::Spent => self.causes.spent += 1,
                }
            }
            RotationEvent::LeftBehind(_) => self.left_behind += 1,
            RotationEvent::Ended => self.ended += 1,
        }
    }
}

/// So much of a wait one look at the clock counts for at most.
const LOOK: Duration = Duration::from_millis(500);

impl Rotation {
    /// A machine at rest, whose key is as old as this call. `seed` is for all that is chosen by chance: how long a key is used.
    ///
    /// # Errors
    /// If a field of `config` is out of range.
    pub fn new(config: RotationConfig, seed: [u8; 32], now: Instant) -> Result<Self, RotationConfigError> {
        config.check()?;
        let mut new = Self {
            config,
            chance: Chance::new(seed),
            stage: Stage::Steady,
            held: false,
            confirmed: false,
            waited: Duration::ZERO,
            seen: now,
            due: now,
            cause: None,
            again: None,
            events: VecDeque::new(),
            counts: RotationCounts::default(),
        };
        new.due = now + new.lifetime();
        Ok(new)
    }

    /// In which stage things are to be.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Why the last rotation began, the present one if there is one; `None` before the first.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Begins a rotation; while one is under way, another after it.
    pub fn rotate(&mut self, cause: Cause, now: Instant) {
        self.look(now);
        match self.stage {
            Stage::Steady => self.begin(cause, now),
            Stage::Installing | Stage::Promoted => {
                self.again.get_or_insert(cause);
            }
        }
    }

    /// What was sealed with the key that seals, in all: with that of its associations of which it is most. While another is installed it is not asked, as this one goes.
    pub fn handle_usage(&mut self, usage: Usage, now: Instant) {
        let Usage { bytes, packets } = self.config.usage;
        if self.stage != Stage::Installing && (usage.bytes >= bytes || usage.packets >= packets) {
            self.rotate(Cause::Usage, now);
        }
    }

    /// What that stage asks of this node is in effect. Nothing happens if it is not the present one.
    pub fn handle_held(&mut self, stage: Stage, now: Instant) {
        self.held |= self.stage == stage;
        self.handle_timeout(now);
    }

    /// All others that are there act upon what this node published in that stage. Nothing happens if it is not the present one.
    pub fn handle_confirmed(&mut self, stage: Stage, now: Instant) {
        if self.stage == stage && !self.confirmed {
            self.look(now);
            self.confirmed = true;
            self.waited = Duration::ZERO;
        }
        self.handle_timeout(now);
    }

    /// Goes on to the next stage, if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.look(now);
        match self.stage {
            Stage::Steady if self.due <= now => self.begin(Cause::Time, now),
            Stage::Steady => {}
            Stage::Installing | Stage::Promoted => self.go_on(now),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Steady => Some(self.due),
            Stage::Installing | Stage::Promoted => {
                self.left().map(|left| self.seen + left.min(LOOK).max(Duration::from_millis(1)))
            }
        }
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<RotationEvent> {
        self.events.pop_front()
    }

    /// What was done.
    pub fn counts(&self) -> RotationCounts {
        self.counts
    }

    fn begin(&mut self, cause: Cause, now: Instant) {
        self.enter(Stage::Installing, now);
        self.cause = Some(cause);
        self.tell(RotationEvent::Began(cause));
    }

    fn tell(&mut self, event: RotationEvent) {
        self.counts.count(event);
        self.events.push_back(event);
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        (self.stage, self.held, self.confirmed) = (stage, false, false);
        (self.waited, self.seen) = (Duration::ZERO, now);
    }

    /// Counts the time since the last look, though not more than a look may be.
    fn look(&mut self, now: Instant) {
        let passed = now - self.seen;
        if self.held {
            self.waited += passed.min(LOOK);
        }
        self.seen = self.seen.max(now);
    }

    /// How long the stage lasts at most from here; `None` while this node is not as it asks, which nothing makes up for.
    fn left(&self) -> Option<Duration> {
        let all = match (self.stage, self.confirmed) {
            (Stage::Promoted, true) => self.config.rest,
            _ => self.config.limit,
        };
        self.held.then(|| all.saturating_sub(self.waited))
    }

    fn go_on(&mut self, now: Instant) {
        let waits = self.left().is_none_or(|left| !left.is_zero());
        match (self.stage, self.confirmed) {
            (Stage::Installing, true) if self.held => self.enter(Stage::Promoted, now),
            _ if waits => {}
            (stage, false) => {
                self.tell(RotationEvent::LeftBehind(stage));
                match stage {
                    Stage::Installing => self.enter(Stage::Promoted, now),
                    _ => self.end(now),
                }
            }
            (_, true) => self.end(now),
        }
    }

    fn end(&mut self, now: Instant) {
        self.enter(Stage::Steady, now);
        self.due = now + self.lifetime();
        self.tell(RotationEvent::Ended);
        if let Some(cause) = self.again.take() {
            self.begin(cause, now);
        }
    }

    /// The interval, a tenth more or less.
    fn lifetime(&mut self) -> Duration {
        let mut bytes = [0; 2];
        self.chance.draw(&mut bytes);
        self.config.interval.mul_f64(0.9 + 0.2 * f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Steady => "steady",
            Self::Installing => "installing",
            Self::Promoted => "promoted",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Demand => "on demand",
            Self::Removal => "a node was removed",
            Self::Time => "by time",
            Self::Usage => "by usage",
            Self::Spent => "no further keys come of it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn new() -> Rotation {
        Rotation::new(RotationConfig::default(), [7; 32], Instant::ZERO).unwrap()
    }

    /// Calls it when it asks to be called, until then.
    fn run(rotation: &mut Rotation, until: Instant) {
        while let Some(next) = rotation.poll_timeout().filter(|next| *next <= until) {
            rotation.handle_timeout(next);
        }
        rotation.handle_timeout(until);
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_stage_waits_for_this_node_and_for_all_others_in_either_order() {
        for first in [true, false] {
            let mut rotation = new();
            rotation.rotate(Cause::Demand, at(1));
            let now = at(2);
            if first {
                rotation.handle_held(Stage::Installing, now);
            } else {
                rotation.handle_confirmed(Stage::Installing, now);
            }
            assert_eq!(rotation.stage(), Stage::Installing);
            rotation.handle_held(Stage::Installing, now);
            rotation.handle_confirmed(Stage::Installing, now);
            assert_eq!(rotation.stage(), Stage::Promoted);
            rotation.handle_held(Stage::Installing, now);
            rotation.handle_confirmed(Stage::Installing, now);
            run(&mut rotation, at(7));
            assert_eq!(rotation.stage(), Stage::Promoted, "words of an earlier stage count for nothing");
        }
    }

    #[test]
    fn the_old_key_rests_after_all_have_confirmed() {
        let mut rotation = new();
        rotation.rotate(Cause::Demand, at(0));
        for stage in [Stage::Installing, Stage::Promoted] {
            rotation.handle_held(stage, at(10));
            rotation.handle_confirmed(stage, at(10));
        }
        run(&mut rotation, at(14));
        assert_eq!(rotation.stage(), Stage::Promoted);
        run(&mut rotation, at(15));
        assert_eq!(rotation.stage(), Stage::Steady);
        assert_eq!(rotation.poll_event(), Some(RotationEvent::Began(Cause::Demand)));
        assert_eq!((rotation.poll_event(), rotation.poll_event()), (Some(RotationEvent::Ended), None));
        let causes = Causes { demand: 1, ..Causes::default() };
        assert_eq!(rotation.counts(), RotationCounts { began: 1, ended: 1, left_behind: 0, causes });
        assert_eq!(rotation.cause(), Some(Cause::Demand));
    }

    #[test]
    fn who_never_confirms_is_left_behind_after_the_limit_and_said_so() {
        let mut rotation = new();
        rotation.rotate(Cause::Removal, at(0));
        rotation.handle_held(Stage::Installing, at(0));
        run(&mut rotation, at(59));
        assert_eq!(rotation.stage(), Stage::Installing);
        run(&mut rotation, at(60));
        assert_eq!(rotation.stage(), Stage::Promoted);
        rotation.handle_held(Stage::Promoted, at(60));
        run(&mut rotation, at(120));
        assert_eq!(rotation.stage(), Stage::Steady);
        let events: Vec<_> = std::iter::from_fn(|| rotation.poll_event()).collect();
        let left = [Stage::Installing, Stage::Promoted].map(RotationEvent::LeftBehind);
        assert_eq!(events, [RotationEvent::Began(Cause::Removal), left[0], left[1], RotationEvent::Ended]);
    }

    #[test]
    fn what_is_not_in_effect_here_is_waited_for_as_long_as_it_takes() {
        let mut rotation = new();
        rotation.rotate(Cause::Demand, at(0));
        rotation.handle_confirmed(Stage::Installing, at(1));
        assert_eq!(rotation.poll_timeout(), None);
        rotation.handle_timeout(at(1_000_000));
        assert_eq!(rotation.stage(), Stage::Installing);
        rotation.handle_held(Stage::Installing, at(1_000_001));
        assert_eq!(rotation.stage(), Stage::Promoted);
    }

    #[test]
    fn a_clock_that_jumps_leaves_nobody_behind() {
        let mut rotation = new();
        rotation.rotate(Cause::Demand, at(0));
        rotation.handle_held(Stage::Installing, at(0));
        run(&mut rotation, at(10));
        rotation.handle_timeout(at(100_000));
        assert_eq!(rotation.stage(), Stage::Installing, "a day is one look");
        rotation.handle_timeout(at(3)); // a clock that goes back: not to be, and no harm
        run(&mut rotation, at(100_049));
        assert_eq!(rotation.stage(), Stage::Installing);
        run(&mut rotation, at(100_051));
        assert_eq!(rotation.stage(), Stage::Promoted);
    }

    #[test]
    fn it_begins_by_time_by_usage_and_once_more_for_what_was_asked_meanwhile() {
        let mut rotation = new();
        let due = rotation.poll_timeout().unwrap();
        let hours = (due - Instant::ZERO).as_secs_f64() / 3600.0;
        assert!((10.7..13.3).contains(&hours), "{hours}");
        rotation.handle_usage(Usage { bytes: 1, packets: 1 << 27 }, at(1));
        assert_eq!(rotation.stage(), Stage::Steady);
        rotation.handle_timeout(due);
        assert_eq!(rotation.poll_event(), Some(RotationEvent::Began(Cause::Time)));
        rotation.rotate(Cause::Removal, due);
        rotation.rotate(Cause::Demand, due);
        for stage in [Stage::Installing, Stage::Promoted] {
            rotation.handle_held(stage, due);
            rotation.handle_confirmed(stage, due);
        }
        run(&mut rotation, due + 5 * SECOND);
        let events: Vec<_> = std::iter::from_fn(|| rotation.poll_event()).collect();
        assert_eq!(events, [RotationEvent::Ended, RotationEvent::Began(Cause::Removal)]);

        let mut rotation = new();
        rotation.handle_usage(Usage { bytes: 400_000_000_000, packets: 1 }, at(1));
        assert_eq!(rotation.poll_event(), Some(RotationEvent::Began(Cause::Usage)));
    }
}
