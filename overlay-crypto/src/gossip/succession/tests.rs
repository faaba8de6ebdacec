use proptest::prelude::*;

use super::*;

const PUBLIC: PublicKey = PublicKey::from_bytes([9; 32]);

fn key(byte: u8) -> GossipKey {
    GossipKey::from_bytes([byte; 32])
}

fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 16])
}

fn two() -> (Succession, Succession) {
    (Succession::new(key(1)), Succession::new(key(1)))
}

fn ids(of: &Succession) -> Vec<KeyId> {
    of.keys().map(GossipKey::id).collect()
}

#[test]
fn a_key_follows_another_step_by_step_and_all_agree() {
    let (mut ann, mut bob) = two();
    let next = ann.succeed(key(2)).unwrap();
    assert_eq!((next.number, ann.primary().id), (2, key(1).id()), "it opens only");
    assert!(!bob.hear(&ann.record(PUBLIC)), "what is held elsewhere changes nothing");
    bob.take(key(2), next).unwrap();
    ann.lead(next.id).unwrap();
    ann.aim_at(next, []);
    assert!(bob.hear(&ann.record(PUBLIC)));
    assert_eq!((bob.primary(), bob.keys().count(), bob.aim()), (next, 2, next));
    ann.reach();
    assert!(bob.hear(&ann.record(PUBLIC)));
    assert_eq!((ids(&ann), ids(&bob)), (vec![next.id], vec![next.id]));
    assert!(!bob.hear(&ann.record(PUBLIC)) && ann == bob);
}

#[test]
fn of_two_that_are_made_at_once_one_wins_and_nobody_lacks_either() {
    let (mut ann, mut bob) = two();
    let (anns, bobs) = (ann.succeed(key(2)).unwrap(), bob.succeed(key(3)).unwrap());
    assert_eq!(anns.number, bobs.number);
    ann.take(key(3), bobs).unwrap();
    bob.take(key(2), anns).unwrap();
    ann.lead(anns.id).unwrap();
    bob.lead(bobs.id).unwrap();
    let (said, answered) = (ann.record(PUBLIC), bob.record(PUBLIC));
    ann.hear(&answered);
    bob.hear(&said);
    assert_eq!((ann.primary(), bob.primary()), (anns.max(bobs), anns.max(bobs)));
}

#[test]
fn who_lacks_the_key_that_all_seal_with_keeps_what_it_has() {
    let (mut ann, mut bob) = two();
    let next = ann.succeed(key(2)).unwrap();
    ann.lead(next.id).unwrap();
    ann.aim_at(next, []);
    ann.reach();
    bob.hear(&ann.record(PUBLIC));
    assert_eq!((ids(&bob), bob.floor()), (vec![key(1).id()], Generation::NONE));
    bob.install(key(2)).unwrap(); // somebody brought it
    bob.hear(&ann.record(PUBLIC));
    assert_eq!((ids(&bob), bob.floor(), bob.primary()), (vec![key(2).id()], next, next));
}

#[test]
fn a_file_that_is_older_than_what_is_known_brings_nothing_back() {
    let mut ann = Succession::new(key(1));
    let next = ann.succeed(key(2)).unwrap();
    ann.lead(next.id).unwrap();
    ann.retire(key(1).id()).unwrap();
    let mut again: Succession = ann.to_text().parse().unwrap();
    assert_eq!(again, ann);
    assert_eq!(again.remember(key(1)), Ok(false));
    assert_eq!(again.remember(key(3)), Ok(true), "nobody has seen it before");
    assert_eq!(again.primary(), next);
    again.install(key(1)).unwrap();
    assert!(again.get(key(1).id()).is_some(), "who insists has it again");
}

#[test]
fn what_a_hand_promotes_becomes_the_latest_everywhere() {
    let (mut ann, mut bob) = two();
    for it in [&mut ann, &mut bob] {
        it.install(key(2)).unwrap();
        it.install(key(3)).unwrap();
    }
    for byte in [2, 1, 3, 2] {
        ann.lead(key(byte).id()).unwrap();
        bob.hear(&ann.record(PUBLIC));
        assert_eq!((ann.primary().id, bob.primary()), (key(byte).id(), ann.primary()));
    }
    assert_eq!(ann.lead(key(9).id()), Err(KeyringError::Unknown(key(9).id())));
    assert_eq!(ann.retire(key(2).id()), Err(KeyringError::Primary(key(2).id())));
    assert_eq!(ann.retire(key(9).id()), Err(KeyringError::Unknown(key(9).id())));
}

#[test]
fn who_is_left_out_is_so_for_all_until_older_keys_are_gone_and_it_is_let_in() {
    let (mut ann, mut bob) = two();
    let next = ann.succeed(key(2)).unwrap();
    ann.aim_at(next, [node(3)]);
    bob.hear(&ann.record(PUBLIC));
    assert_eq!(bob.without(), &[node(3)].into());
    bob.let_in(|_| false);
    assert_eq!(bob.without().len(), 1, "not before older keys are gone");
    bob.take(key(2), next).unwrap();
    ann.lead(next.id).unwrap();
    bob.hear(&ann.record(PUBLIC));
    bob.reach();
    ann.hear(&bob.record(PUBLIC));
    assert!(ann.without() == bob.without() && ann.floor() == next);
    bob.let_in(|_| false);
    let before = ann.record(PUBLIC);
    bob.hear(&before);
    bob.hear(&SuccessionRecord { without: [node(4)].into(), ..before });
    assert!(bob.without().is_empty(), "what is over counts no more");
}

#[test]
fn numbers_far_ahead_of_all_that_are_known_are_a_liars_and_use_nothing_up() {
    let (mut ann, mut bob) = two();
    let next = ann.succeed(key(2)).unwrap();
    bob.take(key(2), next).unwrap();
    ann.lead(next.id).unwrap();
    let record = ann.record(PUBLIC);
    let ahead = |number| SuccessionRecord { primary: Generation { number, ..record.primary }, ..record.clone() };
    let most = next.number + 1 + AHEAD;
    for number in [most + 1, Generation::MOST] {
        let before = bob.clone();
        assert!(!bob.hear(&ahead(number)) && bob == before, "{number}");
    }
    assert!(bob.hear(&record), "what is near counts");
    assert!(bob.succeed(key(3)).unwrap().number <= next.number + 1, "and there are numbers left");
    assert!(Succession::new(key(2)).hear(&ahead(AHEAD)), "a new node may lack so many");
}

#[test]
fn what_is_no_such_file_is_refused_without_a_word_of_it() {
    let text = Succession::new(key(1)).to_text();
    let refused = |text: &str| text.parse::<Succession>().unwrap_err().to_string();
    assert_eq!(refused(""), "it does not begin with \"overlay keys of gossip 1\"");
    assert_eq!(refused("overlay keys of gossip 1\n"), "it has no key that seals");
    for wrong in
        ["key 1 00", "key -1 00", "floor 1", "floor 1.0", "retired +1234567", "retired é", "nothing", "", "without 1"]
    {
        let said = refused(&format!("{}{wrong}\n", text.as_str()));
        assert_eq!(said, "line 6 is no line of such a file", "{wrong}");
    }
    assert!(!format!("{:?}", Succession::new(key(0xab))).contains("abab"));
}

#[test]
fn a_later_key_has_room_always_and_an_earlier_one_does_not() {
    let mut ann = Succession::new(key(1));
    let first = ann.succeed(key(2)).unwrap();
    for byte in 3..9 {
        ann.succeed(key(byte)).unwrap();
    }
    assert_eq!(ann.install(key(20)), Err(KeyringError::Full { most: 8 }), "by hand nothing is thrown out");
    ann.succeed(key(9)).unwrap();
    assert!(ann.get(first.id).is_none() && ann.get(key(1).id()).is_some(), "the primary stays");
    ann.lead(key(9).id()).unwrap();
    let early = Generation { number: 2, id: key(30).id() };
    assert_eq!(ann.take(key(30), early), Err(KeyringError::Full { most: 8 }));
}

proptest! {
    /// Three nodes that make keys, hand them on, promote, reach and hear of each other in any order.
    #[test]
    fn whatever_happens_all_agree_once_each_has_what_the_others_have(steps in prop::collection::vec((0..5, 0..3_usize, 0..3_usize, 2_u8..250), 0..60)) {
        let mut all = [(); 3].map(|()| Succession::new(key(1)));
        for (made, (step, from, to, byte)) in (2..).zip(steps) {
            let held: Vec<_> = all[from].generations().collect();
            let _ = match step {
                0 => all[from].succeed(key(made)).map(drop), // none twice
                1 => {
                    let generation = held[usize::from(byte) % held.len()];
                    let key = all[from].get(generation.id).unwrap().clone();
                    all[to].take(key, generation)
                }
                2 => all[from].lead(held[usize::from(byte) % held.len()].id),
                3 => {
                    let primary = all[from].primary();
                    all[from].aim_at(primary, []);
                    if all.iter().all(|it| it.primary() >= primary) {
                        all[from].reach();
                    }
                    Ok(())
                }
                _ => {
                    let record = all[from].record(PUBLIC);
                    all[to].hear(&record);
                    Ok(())
                }
            };
            for it in &all {
                prop_assert!(it.get(it.primary().id).is_some() && it.primary() >= it.floor());
                prop_assert!(it.keys().count() <= Keyring::LIMIT);
                prop_assert_eq!(&it.to_text().parse::<Succession>().unwrap(), it);
            }
        }
        for _ in 0..6 {
            for from in 0..3 {
                let (record, primary) = (all[from].record(PUBLIC), all[from].primary());
                let key = all[from].get(primary.id).unwrap().clone();
                for other in &mut all {
                    let _ = other.take(key.clone(), primary);
                    other.hear(&record);
                }
            }
        }
        prop_assert!(all.iter().all(|it| it.primary() == all[0].primary()));
    }
}
