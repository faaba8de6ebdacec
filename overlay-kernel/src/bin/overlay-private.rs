//! Runs a command as root of private user, network and mount namespaces: `overlay-private COMMAND [ARGUMENT …]`.
//!
//! So an ordinary user runs the kernel tests; as a cargo runner, too.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let program = args.next().ok_or("usage: overlay-private COMMAND [ARGUMENT …]")?;
    overlay_kernel::enter_private()?;
    Err(Command::new(program).args(args).exec().into())
}
