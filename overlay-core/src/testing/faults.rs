//! Chance from a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Call, Fault};

/// Throws that are a function of a seed, the same on every machine and in every release.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice whose throws `seed` decides.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// A number from 0 up to, not including, `sides`; 0 for no sides.
    pub fn below(&mut self, sides: usize) -> usize {
        match sides {
            0 => 0,
            _ => (self.0.next_u64() % sides as u64) as usize,
        }
    }

    /// True once in `sides` throws.
    pub fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    /// A seed for something else.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}

/// Makes one call in `rate` fail, in a way and at a step that `dice` choose: for [`Flaky`](crate::Flaky).
///
/// ```
/// use overlay_core::testing::{Dice, Lamps, seeded_faults};
/// use overlay_core::{Flaky, Memory, reconcile};
///
/// let lit = Lamps::from([("hall", 80)]);
/// let mut table = Flaky::new(Memory::<Lamps>::default(), seeded_faults(Dice::new([7; 32]), 2));
/// while reconcile(&mut table, &lit).is_err() {}
/// ```
pub fn seeded_faults(mut dice: Dice, rate: usize) -> impl FnMut(Call) -> Option<Fault> + Send {
    move |call| {
        let Call::Apply { steps } = call else {
            return dice.one_in(rate).then_some(Fault::Refuse);
        };
        if !dice.one_in(rate) {
            return None;
        }
        Some(match dice.below(3) {
            0 => Fault::Refuse,
            1 => Fault::Stop { after: dice.below(steps) },
            _ => Fault::LoseReply { after: dice.below(steps + 1) },
        })
    }
}
