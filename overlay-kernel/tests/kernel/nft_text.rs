//! Tables as text mean to `nft` what they mean to us.

use std::io::Write;
use std::process::{Command, Stdio};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Backend, State as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::nft::testing::state;
use overlay_kernel::nft::{Family, Rule, State};
use overlay_kernel::testing::judge;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::nft::{everything, one, open, owner};

/// Feeds a text to `nft -f -` inside a namespace.
fn feed(home: &Namespace, text: &str) {
    let fed = home.run(|| {
        let mut nft =
            Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        nft.wait_with_output().unwrap()
    });
    let fed = fed.unwrap();
    assert!(fed.status.success(), "{}\n{text}", String::from_utf8_lossy(&fed.stderr));
}

/// Version 1.0.6 calls a computed number an integer, and looks it up in no map of marks; it knows of no ports of flows, and gives a key that
/// is put into a map four registers, however long it is. A zone of flows it looks up in no map of marks either.
fn is_said_by_nft(rule: &Rule) -> bool {
    let text = format!("{rule:?}");
    let computed = text.contains("Numgen") || text.contains("hash");
    let ports = text.contains("Ct { to: 0, key: 12");
    let long = text.contains("key: 0, value: 10, seconds");
    let zone = text.contains("SetCt { from: 0, key: 17");
    !(ports || long || zone || computed && text.contains("Lookup"))
}

#[test]
fn a_text_of_everything_is_taken_by_nft_and_means_the_same() {
    kernel_test(Kernel::Host, "kernel::nft_a_text_of_everything_means_the_same", || {
        let mut table = everything();
        table.chains.values_mut().for_each(|chain| chain.rules.retain(is_said_by_nft));
        let wanted = one(Family::Inet, table);
        let text = wanted.to_nft(&owner("a"));
        let home = Namespace::create().unwrap();
        feed(&home, &text);
        let found = open("a", &home).observe().unwrap();
        let left: Vec<_> = found.plan(&wanted).iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted, "{left:?}\n{text}\n{}", found.to_nft(&owner("a")));
    });
}

/// What `nft` lists of ours it takes back, and it means the same.
#[test]
fn what_nft_lists_of_ours_it_takes_back() {
    kernel_test(Kernel::Host, "kernel::nft_what_it_lists_of_ours_it_takes_back", || {
        let (home, other) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let mut table = everything();
        table.chains.values_mut().for_each(|chain| chain.rules.retain(is_said_by_nft));
        // Maps of addresses with ports it lists in a way that it does not read.
        table.chains.get_mut("pre").unwrap().rules.retain(|rule| rule.id() != "lb6");
        let wanted = one(Family::Inet, table);
        reconcile(&mut open("a", &home), &wanted).unwrap();
        feed(&other, &judge(&home, "nft", &["list", "ruleset"]));
        judge(&other, "nft", &["list", "ruleset"]);
    });
}

#[test]
fn texts_of_random_tables_are_taken_by_nft_and_mean_the_same() {
    kernel_test(Kernel::Host, "kernel::nft_texts_of_random_tables_mean_the_same", || {
        let cases = (ProptestConfig::default().cases / if crate::is_thorough() { 4 } else { 10 }).max(1);
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let result = TestRunner::new(config).run(&state(), |state| {
            // In these the family says which header is there.
            let tables = state.tables.into_iter().filter(|(key, _)| key.family == Family::Ip);
            let mut wanted = State { tables: tables.collect() };
            let chains = wanted.tables.values_mut().flat_map(|table| table.chains.values_mut());
            chains.for_each(|chain| chain.rules.retain(is_said_by_nft));
            let text = wanted.to_nft(&owner("a"));
            let home = Namespace::create().unwrap();
            feed(&home, &text);
            let found = open("a", &home).observe().unwrap();
            prop_assert_eq!(&found, &wanted, "{}\n{}", text, found.to_nft(&owner("a")));
            Ok(())
        });
        if let Err(TestError::Fail(reason, _)) = &result {
            panic!("{reason}");
        }
        result.unwrap();
    });
}
