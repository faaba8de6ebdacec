//! What is typed after the program's name.

/// How it is called.
pub(crate) const USAGE: &str = "\
usage: quickstart [--backend memory|kernel]

  --backend memory   three hosts in this process, on a virtual clock; needs no privilege (the default)
  --backend kernel   three hosts of namespaces in this machine's kernel: not there yet
  --help             this text";

/// Where the three hosts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Memory,
    Kernel,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Run(Backend),
    Help,
}

/// Reads arguments; what is wrong with them otherwise.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Asked, String> {
    let mut backend = Backend::Memory;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let value = match argument.split_once('=') {
            Some(("--backend", value)) => Some(value.to_owned()),
            _ if argument == "--backend" => arguments.next(),
            _ if argument == "--help" || argument == "-h" => return Ok(Asked::Help),
            _ => return Err(format!("unknown argument {argument:?}")),
        };
        backend = match value.as_deref() {
            Some("memory") => Backend::Memory,
            Some("kernel") => Backend::Kernel,
            Some(other) => return Err(format!("no backend is called {other:?}")),
            None => return Err("--backend needs a value".to_owned()),
        };
    }
    Ok(Asked::Run(backend))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Asked, String> {
        parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_backend_is_named_in_either_form_and_memory_is_the_default() {
        assert_eq!(parsed(""), Ok(Asked::Run(Backend::Memory)));
        assert_eq!(parsed("--backend memory"), Ok(Asked::Run(Backend::Memory)));
        assert_eq!(parsed("--backend=kernel"), Ok(Asked::Run(Backend::Kernel)));
        assert_eq!(parsed("--help"), Ok(Asked::Help));
    }

    #[test]
    fn whatever_else_is_typed_is_refused_by_name() {
        assert_eq!(parsed("--fast"), Err("unknown argument \"--fast\"".to_owned()));
        assert_eq!(parsed("--backend"), Err("--backend needs a value".to_owned()));
        assert_eq!(parsed("--backend=cloud"), Err("no backend is called \"cloud\"".to_owned()));
        assert_eq!(parsed("memory"), Err("unknown argument \"memory\"".to_owned()));
    }
}
