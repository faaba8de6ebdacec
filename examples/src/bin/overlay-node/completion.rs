//! `completion SHELL`: a script that asks this program what may come next; and its answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use overlay_driver::control::ControlClient;
use overlay_node::Control as _;
use tokio::time::timeout;

use crate::question::{NodeAnswer, NodeQuestion};
use crate::verbs::{COMMON, Flag, Takes, VERBS, Verb};

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    pub(crate) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "bash" => Self::Bash,
            "zsh" => Self::Zsh,
            "fish" => Self::Fish,
            _ => return None,
        })
    }

    pub(crate) const fn script(self) -> &'static str {
        match self {
            Self::Bash => BASH,
            Self::Zsh => ZSH,
            Self::Fish => FISH,
        }
    }
}

// Where nothing is found, shells go on with names of files.
const BASH: &str = r#"_overlay_node() {
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -o default -F _overlay_node overlay-node"#;

const ZSH: &str = r#"#compdef overlay-node
_overlay_node() {
    local -a found
    found=("${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _overlay_node overlay-node"#;

const FISH: &str = r#"function __overlay_node
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] complete -- $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c overlay-node -f -a '(__overlay_node)'"#;

/// How long a node is waited for that is to say its names.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the last of these words may be.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Words(Vec<String>),
    /// A name that the node knows at this socket.
    Named(Takes, PathBuf),
}

/// What may stand in place of the last word, which was begun: one a line.
pub(crate) async fn complete(words: &[String]) -> Vec<String> {
    let begun = words.last().map(String::as_str).filter(|word| *word != "=").unwrap_or_default();
    let (begun, kept) = match begun.split_once('=').filter(|_| begun.starts_with("--")) {
        Some((flag, value)) => (value, format!("{flag}=")),
        None => (begun, String::new()),
    };
    let all = match next(words) {
        Next::Words(words) => words,
        Next::Named(what, socket) => {
            timeout(PATIENCE, named(what, &socket)).await.ok().and_then(Result::ok).unwrap_or_default()
        }
    };
    all.into_iter().filter(|word| word.starts_with(begun)).map(|word| format!("{kept}{word}")).collect()
}

fn next(words: &[String]) -> Next {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut socket = PathBuf::from("/run/overlay/control.sock");
    let (mut path, mut verb, mut places) = (Vec::new(), None::<&Verb>, 0);
    let mut open: Option<Flag> = None;
    for word in before.iter().map(String::as_str).filter(|word| *word != "=") {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if let Some(flag) = open.take() {
            if flag.long == "socket" {
                socket = word.into();
            }
        } else if word.starts_with('-') {
            open = Verb::flag(verb, name).filter(|flag| flag.takes.is_some());
            if let (Some(flag), Some(value)) = (open, value) {
                if flag.long == "socket" {
                    socket = value.into();
                }
                open = None;
            }
        } else if verb.is_none() {
            path.push(word);
            verb = Verb::of(&path);
        } else {
            places += 1;
        }
    }
    let of = |takes: Takes| match takes {
        Takes::OneOf(words) => Next::Words(words.iter().map(|word| (*word).to_owned()).collect()),
        Takes::File | Takes::Text => Next::Words(Vec::new()),
        what => Next::Named(what, socket.clone()),
    };
    if let Some(takes) = open.and_then(|flag| flag.takes) {
        return of(takes);
    }
    if let Some((flag, _)) = last.split_once('=')
        && let Some(takes) = Verb::flag(verb, flag).and_then(|flag| flag.takes)
    {
        return of(takes);
    }
    if last.starts_with('-') {
        let flags = verb.map_or(COMMON, |verb| verb.flags).iter();
        return Next::Words(flags.map(|flag| format!("--{}", flag.long)).collect());
    }
    match verb {
        Some(verb) => {
            verb.places.get(places).or_else(|| verb.places.last()).map_or(Next::Words(Vec::new()), |takes| of(*takes))
        }
        None => {
            let begun = VERBS.iter().filter(|verb| verb.words.starts_with(&path));
            let mut words: Vec<String> =
                begun.filter_map(|verb| verb.words.get(path.len())).map(|word| (*word).to_owned()).collect();
            words.dedup();
            Next::Words(words)
        }
    }
}

/// What the node knows.
async fn named(what: Takes, socket: &Path) -> crate::Outcome<Vec<String>> {
    let node = ControlClient::new(socket);
    Ok(match what {
        Takes::Network => node.networks().await?.iter().map(|it| it.spec.name.to_string()).collect(),
        Takes::Service => node.services().await?.iter().map(|it| it.spec.name.to_string()).collect(),
        Takes::Node => node.nodes().await?.iter().map(|it| it.spec.name.to_string()).collect(),
        Takes::NodeId => node.nodes().await?.iter().map(|it| it.id.to_string()).collect(),
        Takes::Endpoint => match node.ask(&NodeQuestion::Status).await {
            Ok(NodeAnswer::Status(status)) => status.plugged.iter().map(|it| it.endpoint.to_string()).collect(),
            _ => Vec::new(),
        },
        Takes::OneOf(_) | Takes::File | Takes::Text => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn completed(text: &str) -> Vec<String> {
        complete(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).await
    }

    #[tokio::test]
    async fn what_may_come_next_is_told() {
        for (text, wanted) in [
            ("netw", &["network"][..]),
            ("network ", &["create", "ls", "inspect", "rm"]),
            ("--json network i", &["inspect"]),
            ("--socket /x network i", &["inspect"]),
            ("network create --at", &["--attachable"]),
            ("network create -d b", &["bridge"]),
            ("network create --driver=m", &["--driver=macvlan"]),
            ("network create --driver = m", &["macvlan"]),
            ("run --backend ", &["kernel", "userspace"]),
            ("service create --scheduler source", &["source-hash"]),
            ("node lock ", &["off"]),
            ("network ls ", &[]),
            ("network fly ", &[]),
            ("--s", &["--socket"]),
            ("completion ", &["bash", "zsh", "fish"]),
        ] {
            assert_eq!(completed(text).await, wanted, "{text}");
        }
        assert_eq!(completed("").await.len(), 13);
        let socket = PathBuf::from("/nowhere");
        let words = ["--socket", "/nowhere", "attach", "fr"].map(str::to_owned);
        assert_eq!(next(&words), Next::Named(Takes::Network, socket));
        assert_eq!(complete(&words).await, Vec::<String>::new(), "nobody is there, and nothing is said");
    }
}
