use std::collections::BTreeSet;

use super::*;

/// Answers what is expected, but to one question in so many.
struct Told {
    wrong_at: Option<usize>,
    asked: usize,
    waits: bool,
}

impl Ground for Told {
    fn lacks(&self, need: Need) -> Option<&'static str> {
        (need == Need::Outside).then_some("nobody is outside")
    }

    fn change(&mut self, _: Change) {}

    fn ask(&mut self, ask: &Ask) -> Outcome {
        self.asked += 1;
        match &ask.expected {
            Outcome::Unanswered if self.wrong_at == Some(self.asked) => Outcome::answered("who ought not", CLIENT),
            _ if self.wrong_at == Some(self.asked) => Outcome::Unanswered,
            expected => expected.clone(),
        }
    }

    fn wait(&mut self, _: usize) -> bool {
        self.waits
    }
}

#[test]
fn the_list_is_of_what_there_is_and_says_each_thing_once() {
    let all = scenarios();
    let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name).collect();
    assert!(names.len() == all.len() && all.len() >= 15);
    for ask in all.iter().flat_map(|scenario| &scenario.asks) {
        assert!(ask.times > 0 && (ask.from == OUTSIDE || home(ask.from).name == ask.from));
        match ask.to {
            To::At(container, network, _) => assert!(home(container).on.contains(&network), "{ask}"),
            To::Vip(service, network, _) => {
                assert!(SERVICES.iter().any(|it| (it.name, it.network) == (service, network)));
            }
            To::Node(node) => assert!(node < NODES),
            To::Named(..) => {}
        }
    }
    let of_both =
        |wanted| all.iter().flat_map(|it| &it.asks).any(|ask| matches!(ask.to, To::At(.., family) if family == wanted));
    assert!([IpFamily::V4, IpFamily::V6].into_iter().all(of_both));
}

#[test]
fn who_answers_as_expected_has_played_it_all_but_for_what_he_lacks() {
    let played = play(&mut Told { wrong_at: None, asked: 0, waits: false });
    assert_eq!((played.held.len(), played.skipped.len()), (scenarios().len() - 1, 1));
}

#[test]
fn one_wrong_answer_among_all_is_found_and_an_answer_that_ought_not_be_is_no_matter_of_waiting() {
    let asked = play(&mut Told { wrong_at: None, asked: 0, waits: false }).asked;
    let fails = |wrong_at, waits| {
        std::panic::catch_unwind(|| play(&mut Told { wrong_at: Some(wrong_at), asked: 0, waits })).is_err()
    };
    assert!((1..=asked).all(|at| fails(at, false)), "whichever it is");
    // Who may wait is asked again, but not who was answered by one that he must not reach.
    let leaks = (1..=asked).filter(|at| fails(*at, true)).count();
    let never = scenarios().into_iter().filter(|it| it.change.is_none()).flat_map(|it| it.asks);
    let never = never.filter(|ask| matches!(ask.expected, Outcome::Unanswered | Outcome::NoName)).count();
    assert_eq!(leaks, never);
}
