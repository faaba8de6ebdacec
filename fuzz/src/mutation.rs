//! Small seeded damage to bytes.

use overlay_core::testing::Dice;

/// The longest a mutation grows: above a jumbo frame, below what makes a replay slow.
const MAX_LEN: usize = 10_000;

/// One to four changes to `entry` that `dice` choose: flips, other bytes, cuts, doublings, pieces of `other`.
pub fn mutate(entry: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = entry.to_vec();
    for _ in 0..=dice.below(4) {
        change(&mut bytes, other, dice);
    }
    bytes.truncate(MAX_LEN);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    match dice.below(8) {
        0 => alter(bytes, at, |byte| byte ^ 1 << (dice.below(8))),
        1 => alter(bytes, at, |_| [0x00, 0x01, 0x7f, 0x80, 0xff][dice.below(5)]),
        2 => alter(bytes, at, |_| byte(dice)),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(..at)),
        5 => bytes.insert(at, byte(dice)),
        6 => {
            let piece = piece(&bytes.clone(), dice).to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let end = at + dice.below(bytes.len() - at + 1);
            bytes.splice(at..end, piece(other, dice).iter().copied());
        }
    }
}

fn alter(bytes: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte);
    }
}

fn byte(dice: &mut Dice) -> u8 {
    dice.seed()[0]
}

fn piece<'a>(bytes: &'a [u8], dice: &mut Dice) -> &'a [u8] {
    let start = dice.below(bytes.len());
    let end = start + dice.below(bytes.len() - start + 1);
    &bytes[start..end]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn mutations(seed: u8, entry: &[u8]) -> Vec<Vec<u8>> {
        let mut dice = Dice::new([seed; 32]);
        (0..200).map(|_| mutate(entry, b"other", &mut dice)).collect()
    }

    #[test]
    fn mutations_are_a_function_of_the_seed() {
        assert_eq!(mutations(1, b"entry"), mutations(1, b"entry"));
        assert_ne!(mutations(1, b"entry"), mutations(2, b"entry"));
    }

    #[test]
    fn most_of_them_differ_and_some_are_shorter_longer_and_as_long() {
        let all = mutations(3, b"entry");
        assert!(all.iter().collect::<BTreeSet<_>>().len() > 150);
        assert!(all.iter().any(|bytes| bytes.len() < 5) && all.iter().any(|bytes| bytes.len() > 5));
        assert!(all.iter().any(|bytes| bytes.len() == 5 && bytes != b"entry"));
    }

    #[test]
    fn nothing_at_all_can_be_mutated_and_growth_is_bounded() {
        assert!(mutations(4, b"").iter().any(|bytes| !bytes.is_empty()));
        assert!(mutations(5, &[7; MAX_LEN]).iter().all(|bytes| bytes.len() <= MAX_LEN));
    }
}
