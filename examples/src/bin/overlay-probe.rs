//! What can this machine do for an overlay network? `cargo run --bin overlay-probe [-- --json] [-- --private]`
//!
//! As root it tries everything in a namespace that is thrown away. With `--private` it first enters a user namespace,
//! as an ordinary user must: what is available then is what an ordinary user can have.

use std::error::Error;
use std::io::{self, Write};
use std::process::{Command, ExitCode};

use overlay_core::BackendError;
use overlay_kernel::{Feature, Finding, Found, Report, enter_private, probe};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).find(|arg| !matches!(*arg, "--json" | "--private" | TRY)) {
        Some(other) => return Err(format!("{other}: only --json and --private are known").into()),
        None if args.iter().any(|arg| arg == TRY) => return Ok(try_private()),
        None => {}
    }
    let user_namespaces = Finding { feature: Feature::UserNamespaces, found: ask_a_child()? };
    if args.iter().any(|arg| arg == "--private") {
        enter_private()?;
    }
    let mut report = probe();
    report.findings.insert(1, user_namespaces);
    let mut out = io::stdout().lock();
    if args.iter().any(|arg| arg == "--json") {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        table(&mut out, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(out: &mut impl Write, report: &Report) -> io::Result<()> {
    report.findings.iter().try_for_each(|finding| writeln!(out, "{finding}"))?;
    writeln!(out, "{:<20} {} bytes", "send buffer", report.buffers.send)?;
    writeln!(out, "{:<20} {} bytes", "receive buffer", report.buffers.receive)
}

/// There is no way back from a user namespace, so a child tries it.
fn ask_a_child() -> Result<Found, Box<dyn Error>> {
    let output = Command::new(std::env::current_exe()?).arg(TRY).output()?;
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(if output.status.success() { Found::Available } else { Found::Missing { reason } })
}

fn try_private() -> ExitCode {
    let Err(error) = enter_private() else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "{}", with_cause(&error));
    ExitCode::FAILURE
}

fn with_cause(error: &BackendError) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

const TRY: &str = "--try-user-namespace";
