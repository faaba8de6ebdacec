//! `cargo xtask ci [quick|full]`: all steps in order, each timed; stops at the first that fails.

use std::time::{Duration, Instant};

use crate::step::{Failure, Outcome, cargo, run_behind};
use crate::{VERBS, bench, fuzz, mission, test};

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
        let (start, before) = (Instant::now(), processor_time());
        let outcome = (step.run)();
        let spent = Spent { elapsed: start.elapsed(), processor: processor_time().saturating_sub(before) };
        times.push((step.name, spent));
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
        .map(|verb| match verb.name {
            "kernel" => Step::new(verb.name, || run_behind(&cargo(RELEASED), || (verb.run)(&[]))),
            _ => Step::new(verb.name, || (verb.run)(&[])),
        })
        .collect()
}

/// Builds the programs of the steps `bench` and `readme` while kernel tests wait, as they do for half of their time.
const RELEASED: &str = "build --locked --quiet --release --bin overlay-bench --bin quickstart";

const LONG: &[&str] = &["mission", "ci"];

/// The same, then the mission's page and longer seeds.
fn full() -> Vec<Step> {
    let longer = [
        Step::new("mission", || mission::run(&[])),
        Step::new("bench (on etcd, too)", || bench::run(&["--all-features".to_owned()])),
        Step::new("test (more cases)", || test::run_with_cases(CASES)),
        Step::new("test (more nodes)", || test::run_with_nodes(NODES)),
        Step::new("test (a whole day)", || test::run_for_hours(HOURS)),
        Step::new("fuzz (more rounds)", || fuzz::run_for(FUZZING)),
    ];
    quick().into_iter().chain(longer).collect()
}

/// What a step took.
#[derive(Clone, Copy)]
struct Spent {
    elapsed: Duration,
    /// Of all cores together: less than the time times the cores is a machine that waited.
    processor: Duration,
}

fn table(times: &[(&str, Spent)]) -> String {
    let sum = |of: fn(&Spent) -> Duration| times.iter().map(|(_, spent)| of(spent)).sum();
    let total = Spent { elapsed: sum(|spent| spent.elapsed), processor: sum(|spent| spent.processor) };
    let rows = times.iter().copied().chain([("total", total)]);
    rows.fold("\n".to_owned(), |text, (name, Spent { elapsed, processor })| {
        text + &format!(
            "{name:<20}{:>8.1} s{:>10.1} s of processor time\n",
            elapsed.as_secs_f64(),
            processor.as_secs_f64()
        )
    })
}

/// Of all processes that this one has waited for, and that those have. Nothing where `/proc` does not say.
fn processor_time() -> Duration {
    std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| children(&stat)).unwrap_or_default()
}

/// `cutime` and `cstime` of proc_pid_stat(5): in hundredths of a second for user space, whatever the kernel counts in.
fn children(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?; // a program's name may have spaces
    let mut fields = after_name.split_ascii_whitespace().skip(13).map(str::parse::<u64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(Duration::from_millis(10 * (user + system)))
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
        let times = times.map(|(name, elapsed)| (name, Spent { elapsed, processor: elapsed / 2 }));
        let said: Vec<String> =
            table(&times).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let row = |name, elapsed, processor| format!("{name} {elapsed} s {processor} s of processor time");
        assert_eq!(
            said,
            ["".to_owned(), row("fmt", "1.5", "0.8"), row("docs", "20.0", "10.0"), row("total", "21.5", "10.8")]
        );
    }

    #[test]
    fn the_time_of_what_ran_is_read_past_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 2019 68000 0 6 3 4 250 50 20 0 1 0 1234 0";
        assert_eq!(children(stat), Some(Duration::from_secs(3)));
        assert_eq!(children("7 (xtask) S 1"), None);
        let before = processor_time();
        let spins =
            std::process::Command::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]).status();
        assert!(spins.is_ok_and(|status| status.success()) && processor_time() > before);
    }

    #[test]
    fn another_form_is_refused() {
        let failure = run(&["slow".to_owned()]).unwrap_err().to_string();
        assert!(failure.contains("`quick` (the default) or `full`"), "{failure}");
    }
}
