//! Chance, of which keys are made.

use std::io;

use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes, by `getrandom(2)`: which needs no file, so it does not lack where all that may be open are.
///
/// # Errors
/// If the kernel has none to give.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("the kernel has no random bytes to give"))
}

/// The same where nobody can be told: without chance the process ends, rather than go on with what everybody knows.
pub(crate) fn random(bytes: &mut [u8]) {
    if fill(bytes).is_err() {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        let draw = || {
            let mut bytes = [0; 32];
            fill(&mut bytes).unwrap();
            bytes
        };
        assert_ne!(draw(), draw());
    }
}
