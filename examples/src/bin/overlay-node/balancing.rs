//! How the work of a service is shared, as it is typed.

use std::time::Duration;

use overlay_lb::{Scheduler, Timeouts};

/// A scheduler by its name.
pub(crate) fn scheduler(text: &str) -> Result<Scheduler, String> {
    let name = |scheduler: &Scheduler| scheduler.to_string().replace(' ', "-");
    let found = Scheduler::ALL.into_iter().find(|scheduler| name(scheduler) == text);
    found.ok_or_else(|| {
        let names: Vec<String> = Scheduler::ALL.iter().map(name).collect();
        format!("there is no scheduler {text}: {}", names.join(", "))
    })
}

/// Whole seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|error| format!("{text} is no number of seconds: {error}"))
}

/// Idle timeouts: one for all, or three.
pub(crate) fn idle(text: &str) -> Result<Timeouts, String> {
    let all: Vec<Duration> = text.split(',').map(seconds).collect::<Result<_, _>>()?;
    match all[..] {
        [all] => Ok(Timeouts { established: all, transitory: all, datagram: all }),
        [established, transitory, datagram] => Ok(Timeouts { established, transitory, datagram }),
        _ => Err(format!("{text}: give one for all, or three: standing, opening or closing, datagrams")),
    }
}
