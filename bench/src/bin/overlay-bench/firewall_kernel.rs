//! later
use overlay_bench::Bench;
use std::io;
pub(crate) fn run(_bench: &mut Bench<'_>) -> io::Result<()> {
    Ok(())
}
