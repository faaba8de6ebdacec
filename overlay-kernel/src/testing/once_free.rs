//! Waiting for what another process holds for a moment.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// Opens what may still be held by a program that a test beside this one is starting: between fork and exec, its process
/// holds whatever this one had open, so a port or a device that was let go is not free yet.
///
/// # Panics
///
/// With what `open` said last, if that fails for 20 seconds.
#[expect(clippy::disallowed_methods, reason = "part of the kit for tests, which waits for what another process does")]
pub fn once_free<T, E: Debug>(open: impl Fn() -> Result<T, E>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match open() {
            Ok(it) => return it,
            Err(error) => assert!(Instant::now() < until, "{error:?}"),
        }
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::once_free;

    #[test]
    fn it_is_tried_until_it_is_free() {
        let tries = Cell::new(0);
        let open = || {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err("held") } else { Ok(7) }
        };
        assert_eq!((once_free(open), tries.get()), (7, 3));
    }
}
