//! What is typed after the program's name.

use crate::kernel::Wishes;

/// How it is called.
pub(crate) const USAGE: &str = "\
usage: quickstart [--backend kernel|userspace|memory] [--pcap FILE] [--keep]

  --backend kernel      three hosts of namespaces in this machine's kernel, which carries the packets; the default where it has ESP
  --backend userspace   the same hosts, whose packets are carried in user space; the default where it has none, but TAPs
  --backend memory      three hosts in this process, on a virtual clock; needs no privilege
  --pcap FILE           what goes over host-1's cable, for tcpdump and wireshark
  --keep                but in memory: hosts and containers stay until Enter is pressed
  --help                this text";

/// Where the three hosts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Memory,
    Userspace,
    Kernel,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// There, or where it can be had.
    Run(Option<Backend>, Wishes),
    Help,
}

/// Reads arguments; what is wrong with them otherwise.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Asked, String> {
    let (mut backend, mut wishes) = (None, Wishes::default());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let value = match argument.split_once('=') {
            Some(("--backend", value)) => Some(value.to_owned()),
            _ if argument == "--backend" => arguments.next(),
            _ if argument == "--keep" => {
                wishes.keep = true;
                continue;
            }
            _ if argument == "--pcap" => {
                wishes.pcap = Some(arguments.next().ok_or("--pcap needs a file")?);
                continue;
            }
            _ if argument == "--help" || argument == "-h" => return Ok(Asked::Help),
            _ => return Err(format!("unknown argument {argument:?}")),
        };
        backend = match value.as_deref() {
            Some("memory") => Some(Backend::Memory),
            Some("kernel") => Some(Backend::Kernel),
            Some("userspace") => Some(Backend::Userspace),
            Some(other) => return Err(format!("no backend is called {other:?}")),
            None => return Err("--backend needs a value".to_owned()),
        };
    }
    if backend == Some(Backend::Memory) && wishes.keep {
        return Err("--keep needs the kernel".to_owned());
    }
    Ok(Asked::Run(backend, wishes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Asked, String> {
        parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_backend_is_named_in_either_form_and_none_is_the_default() {
        let run = |backend| Ok(Asked::Run(backend, Wishes::default()));
        assert_eq!(parsed(""), run(None));
        assert_eq!(parsed("--backend memory"), run(Some(Backend::Memory)));
        assert_eq!(parsed("--backend=kernel"), run(Some(Backend::Kernel)));
        assert_eq!(parsed("--backend userspace"), run(Some(Backend::Userspace)));
        let wishes = Wishes { pcap: Some("x.pcap".to_owned()), keep: true };
        assert_eq!(parsed("--keep --pcap x.pcap"), Ok(Asked::Run(None, wishes)));
        assert_eq!(parsed("--help"), Ok(Asked::Help));
    }

    #[test]
    fn whatever_else_is_typed_is_refused_by_name() {
        assert_eq!(parsed("--fast"), Err("unknown argument \"--fast\"".to_owned()));
        assert_eq!(parsed("--backend"), Err("--backend needs a value".to_owned()));
        assert_eq!(parsed("--backend=cloud"), Err("no backend is called \"cloud\"".to_owned()));
        assert_eq!(parsed("--backend memory --keep"), Err("--keep needs the kernel".to_owned()));
        assert_eq!(parsed("memory"), Err("unknown argument \"memory\"".to_owned()));
    }
}
