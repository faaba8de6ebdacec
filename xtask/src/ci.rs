//! `cargo xtask ci [quick|full]`: all steps in order, each timed; stops at the first that fails.

use std::time::{Duration, Instant};

use crate::step::{Failure, Outcome};
use crate::{VERBS, fuzz, mission, test};

/// Cases of each property test in the long form (256 otherwise).
const CASES: u32 = 4_096;
/// Nodes of the long form's largest cluster.
const NODES: u32 = 1_000;
/// Hours of the long form's longest run of a cluster, in virtual time.
const HOURS: u32 = 24;
/// How long the long form mutates corpora.
const FUZZING: Duration = Duration::from_secs(120);

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let steps = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["quick"] => quick(),
        ["full"] => full(),
        _ => return Err(Failure::new(format!("ci is `quick` (the default) or `full`, not {arguments:?}"))),
    };
    let mut times = Vec::new();
    for step in &steps {
        println!("\n=== {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)();
        times.push((step.name, start.elapsed()));
        if let Err(failure) = outcome {
            print!("{}", table(&times));
            return Err(Failure::new(format!(
                "{failure}\nCI FAILED at {} ({} of {})",
                step.name,
                times.len(),
                steps.len()
            )));
        }
        println!("=== {} passed in {:.1} s", step.name, start.elapsed().as_secs_f64());
    }
    print!("{}", table(&times));
    println!("CI PASSED: {} steps", steps.len());
    Ok(())
}

struct Step {
    name: &'static str,
    run: Box<dyn Fn() -> Outcome>,
}

impl Step {
    fn new(name: &'static str, run: impl Fn() -> Outcome + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Every verb but this one, and but the one that runs again what others have run.
fn quick() -> Vec<Step> {
    VERBS
        .iter()
        .filter(|verb| !LONG.contains(&verb.name))
        .map(|verb| Step::new(verb.name, || (verb.run)(&[])))
        .collect()
}

const LONG: &[&str] = &["mission", "ci"];

/// The same, then the mission's page and longer seeds.
fn full() -> Vec<Step> {
    let longer = [
        Step::new("mission", || mission::run(&[])),
        Step::new("test (more cases)", || test::run_with_cases(CASES)),
        Step::new("test (more nodes)", || test::run_with_nodes(NODES)),
        Step::new("test (a whole day)", || test::run_for_hours(HOURS)),
        Step::new("fuzz (more rounds)", || fuzz::run_for(FUZZING)),
    ];
    quick().into_iter().chain(longer).collect()
}

fn table(times: &[(&str, Duration)]) -> String {
    let total = times.iter().map(|(_, time)| *time).sum();
    let rows = times.iter().copied().chain([("total", total)]);
    rows.fold("\n".to_owned(), |text, (name, time)| text + &format!("{name:<20}{:>8.1} s\n", time.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_has_all_of_the_quick_one_and_more() {
        let names = |steps: Vec<Step>| steps.iter().map(|step| step.name).collect::<Vec<_>>();
        assert!(names(full()).starts_with(&names(quick())));
        assert!(full().len() > quick().len());
        assert_eq!(quick().len(), VERBS.len() - LONG.len());
    }

    #[test]
    fn the_table_has_each_step_and_the_sum() {
        let times = [("fmt", Duration::from_millis(1_500)), ("docs", Duration::from_secs(20))];
        assert_eq!(
            table(&times).split_whitespace().collect::<Vec<_>>().join(" "),
            "fmt 1.5 s docs 20.0 s total 21.5 s"
        );
    }

    #[test]
    fn another_form_is_refused() {
        let failure = run(&["slow".to_owned()]).unwrap_err().to_string();
        assert!(failure.contains("`quick` (the default) or `full`"), "{failure}");
    }
}
