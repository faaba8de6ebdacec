//! Second opinions.

use std::process::Command;

use crate::Namespace;

/// What a tool prints when it is run inside a namespace: `judge(&namespace, "ip", &["-d", "link"])`. A child process
/// inherits the namespace of the thread that starts it.
///
/// # Panics
/// If the tool cannot be started or fails: a test has no use for half an opinion.
#[expect(clippy::panic, reason = "a test kit tells a test that it cannot go on")]
pub fn judge(namespace: &Namespace, tool: &str, args: &[&str]) -> String {
    let asked = namespace.run(|| Command::new(tool).args(args).output());
    match asked {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        other => panic!("{tool} {args:?}: {other:?}"),
    }
}
