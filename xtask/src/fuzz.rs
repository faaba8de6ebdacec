//! `cargo xtask fuzz [SECONDS]`: the fuzz bodies over their committed corpora and over seeded mutations of these.

use std::time::{Duration, Instant};

use crate::step::{Failure, Outcome, cargo, run as execute};

/// Mutations of each entry in one round; the README's test command makes fewer.
const MUTATIONS: u32 = 250;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    match arguments {
        [] => round(0),
        [seconds] => {
            let seconds = seconds.parse().map_err(|_| Failure::new(format!("{seconds:?} is no number of seconds")))?;
            run_for(Duration::from_secs(seconds))
        }
        _ => Err(Failure::new("this verb takes a number of seconds, or nothing for one round")),
    }
}

/// Rounds with seeds 0, 1, 2, … until `time` is over; one at least.
pub(crate) fn run_for(time: Duration) -> Outcome {
    let start = Instant::now();
    for seed in 0.. {
        round(seed)?;
        if start.elapsed() >= time {
            break;
        }
    }
    Ok(())
}

fn round(seed: u64) -> Outcome {
    // Of the whole workspace, so that nothing is built again after its tests.
    let mut command = cargo("test --locked --quiet --workspace --test replay");
    command.env("OVERLAY_FUZZ_SEED", seed.to_string()).env("OVERLAY_FUZZ_MUTATIONS", MUTATIONS.to_string());
    execute(&mut command)
}
