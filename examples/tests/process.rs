//! What programs have of their processes.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use overlay_examples::process::{raise_open_files, random};

/// The one test of this process that opens files.
#[test]
fn as_many_files_may_be_open_as_the_process_may_have() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64.min(hard), hard).unwrap();
    assert_eq!(raise_open_files().unwrap(), hard);
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    assert_eq!(raise_open_files().unwrap(), hard, "again, there is nothing to do");
    // Where no file may be opened there is chance all the same.
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let mut drawn = [[0; 32]; 2];
    drawn.iter_mut().for_each(|bytes| random(bytes).unwrap());
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(drawn[0] != drawn[1] && !drawn.contains(&[0; 32]));
}
