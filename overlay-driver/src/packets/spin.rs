//! Looking again for a while before sleeping.

use std::time::Duration;

use overlay_core::Instant;

/// Whether a thread that has nothing more to do looks again for a while before it sleeps: who sleeps is woken late, the more so on a virtual machine whose
/// cores stop when they are idle, and an answer often comes soon after what was asked. It looks as long as that pays, a few times more, and then now and then.
#[derive(Debug)]
pub(super) struct Spin {
    time: Duration,
    /// It looks, until then.
    until: Option<Instant>,
    /// How many times in a row nothing came while it looked.
    missed: u32,
    /// How many times it does not look, before it tries again.
    rests: u32,
}

/// After so many misses in a row looking does not pay.
const MISSES: u32 = 8;
/// Then it looks once in so many times more.
const RESTS: u32 = 16;

impl Spin {
    pub(super) const fn new(time: Duration) -> Self {
        Self { time, until: None, missed: 0, rests: 0 }
    }

    /// Whether to look again rather than to sleep, having looked or slept until now, and whether something `came` by it.
    pub(super) fn again(&mut self, came: bool, now: Instant) -> bool {
        let looked = self.until.take();
        match (came, looked) {
            (true, _) => {
                if looked.is_some() {
                    self.missed = 0;
                }
                if self.pays() {
                    self.until = Some(now + self.time);
                }
            }
            (false, Some(until)) if now < until => self.until = looked,
            (false, Some(_)) => self.missed = self.missed.saturating_add(1),
            (false, None) => {}
        }
        self.until.is_some()
    }

    fn pays(&mut self) -> bool {
        if self.time.is_zero() {
            return false;
        }
        if self.missed >= MISSES && self.rests > 0 {
            self.rests -= 1;
            return false;
        }
        self.rests = RESTS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(50);

    /// How often it looked, of answers that each came `after` so long.
    fn looks(spin: &mut Spin, times: u32, after: Duration) -> u32 {
        let (mut now, mut looks) = (Instant::ZERO, 0);
        for _ in 0..times {
            let mut waited = Duration::ZERO;
            let mut again = spin.again(true, now);
            looks += u32::from(again);
            while again && waited < after {
                waited += Duration::from_micros(1);
                again = spin.again(false, now + waited);
            }
            now += after;
        }
        looks
    }

    #[test]
    fn it_looks_each_time_where_answers_come_soon_and_seldom_where_they_do_not() {
        let mut spin = Spin::new(TIME);
        assert_eq!(looks(&mut spin, 1_000, Duration::from_micros(20)), 1_000);
        let late = looks(&mut spin, 1_000, Duration::from_micros(500));
        assert!((MISSES..1_000 / 15 + MISSES).contains(&late), "{late}");
        // It finds out that they come soon again.
        let soon = looks(&mut spin, 1_000, Duration::from_micros(20));
        assert!(soon > 1_000 - 2 * RESTS, "{soon}");
    }

    #[test]
    fn it_looks_for_as_long_as_it_was_told_and_then_sleeps() {
        let mut spin = Spin::new(TIME);
        assert!(spin.again(true, Instant::ZERO));
        assert!(spin.again(false, Instant::ZERO + TIME / 2));
        assert!(!spin.again(false, Instant::ZERO + TIME));
        assert!(!spin.again(false, Instant::ZERO + TIME), "a timer that fell due is nothing that came");
    }

    #[test]
    fn told_not_to_it_never_looks() {
        let mut spin = Spin::new(Duration::ZERO);
        assert_eq!(looks(&mut spin, 100, Duration::ZERO), 0);
    }
}
