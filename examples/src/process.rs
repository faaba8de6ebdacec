//! What a program has of the process that it is: open files, and chance.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ring::rand::{SecureRandom, SystemRandom};

/// Has the process hold as many open files as it may: shells and service managers begin programs with 1,024, for `select(2)`'s sake, and a node has some for each container,
/// and one for each connection. Gives how many that are now.
///
/// # Errors
/// If the kernel refuses: then it is as it was.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Random bytes, by `getrandom(2)`: which needs no file, so it does not lack where all that may be open are.
///
/// # Errors
/// If the kernel has none to give. Then the bytes are not to be used.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("the kernel has no random bytes to give"))
}
