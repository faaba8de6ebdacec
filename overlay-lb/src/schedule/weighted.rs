//! Smooth weighted round robin.

use crate::Weight;

/// Weighted round robin that does not give the heavy ones several in a row: each gains its weight at every pick, and who
/// has gained most is picked and pays what all weigh.
///
/// In as many picks as all weigh together each is picked as often as it weighs, and never more than once ahead of its share
/// by more than one.
#[derive(Debug, Clone)]
pub struct SmoothWeighted {
    gains: Vec<(i64, i64)>,
    total: i64,
}

impl SmoothWeighted {
    /// Among as many as there are weights, known by their places from 0 on.
    pub fn new(weights: impl IntoIterator<Item = Weight>) -> Self {
        let gains: Vec<_> = weights.into_iter().map(|weight| (0, i64::from(weight.get()))).collect();
        Self { total: gains.iter().map(|(_, weight)| weight).sum(), gains }
    }

    /// The next; none where there is nobody. O(n).
    pub fn pick(&mut self) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        for (at, (gain, weight)) in self.gains.iter_mut().enumerate() {
            *gain += *weight;
            if best.is_none_or(|(_, most)| *gain > most) {
                best = Some((at, *gain));
            }
        }
        let (at, _) = best?;
        if let Some((gain, _)) = self.gains.get_mut(at) {
            *gain -= self.total;
        }
        Some(at)
    }
}
