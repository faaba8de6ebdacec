//! The table of commands: what stands behind which. What is typed is held to it, and shells complete by it.

use lexopt::{Arg, Error};

/// Somebody asks for help in the middle of a command.
#[derive(Debug, thiserror::Error)]
#[error("help is asked for")]
pub(crate) struct HelpAsked;

/// A command.
#[derive(Debug)]
pub(crate) struct Verb {
    /// Its words.
    pub(crate) words: &'static [&'static str],
    /// What stands behind them; of the last there may be several.
    pub(crate) places: &'static [Takes],
    pub(crate) flags: &'static [Flag],
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    /// What stands behind it.
    pub(crate) takes: Option<Takes>,
}

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// One of these.
    OneOf(&'static [&'static str]),
    /// The name of a network.
    Network,
    Service,
    Node,
    /// The id of a node: one that was removed has no name.
    NodeId,
    /// The id of an endpoint that is plugged in.
    Endpoint,
    File,
    Text,
}

use Takes::{Endpoint, File, Network, Node, NodeId, OneOf, Service, Text};

const fn flag(long: &'static str) -> Flag {
    Flag { long, short: None, takes: None }
}

const fn value(long: &'static str, takes: Takes) -> Flag {
    Flag { long, short: None, takes: Some(takes) }
}

const fn short(long: &'static str, short: char, takes: Takes) -> Flag {
    Flag { long, short: Some(short), takes: Some(takes) }
}

/// Of all commands.
pub(crate) const COMMON: &[Flag] =
    &[value("socket", File), flag("json"), Flag { long: "help", short: Some('h'), takes: None }];

const JSON: Flag = flag("json");
const STATE: Flag = value("state", File);
const ETCD: Flag = value("etcd", Text);
const PREFIX: Flag = value("etcd-prefix", Text);
const CA: Flag = value("etcd-ca", File);
const CERT: Flag = value("etcd-cert", File);
const KEY: Flag = value("etcd-key", File);
const PLAIN: &[Flag] = &[JSON];

const fn verb(words: &'static [&'static str], places: &'static [Takes], flags: &'static [Flag]) -> Verb {
    Verb { words, places, flags }
}

const CREATE_NETWORK: &[Flag] = &[
    short("driver", 'd', OneOf(&["overlay", "bridge", "macvlan"])),
    flag("attachable"),
    flag("internal"),
    flag("ingress"),
    value("subnet", Text),
    value("ip-range", Text),
    value("gateway", Text),
    value("aux-address", Text),
    short("opt", 'o', OneOf(&["encrypted", "encrypted=own", "parent=", "macvlan_mode="])),
    JSON,
];

const CREATE_SERVICE: &[Flag] = &[
    value("name", Text),
    value("network", Network),
    value("endpoint-mode", OneOf(&["vip", "dnsrr"])),
    value("replicas", Text),
    value("scheduler", OneOf(SCHEDULERS)),
    value("affinity", Text),
    value("idle", Text),
    short("publish", 'p', Text),
    JSON,
];

const SCHEDULERS: &[&str] =
    &["round-robin", "weighted-round-robin", "least-connection", "weighted-least-connection", "source-hash", "maglev"];

const RUN: &[Flag] = &[
    value("name", Text),
    value("address", Text),
    flag("manager"),
    value("manager-socket", File),
    value("join", Text),
    value("gossip-key", File),
    value("dir", File),
    STATE,
    value("backend", OneOf(&["kernel", "userspace"])),
    value("metrics", Text),
];

const ATTACH: &[Flag] = &[
    value("name", Text),
    value("netns", File),
    value("pid", Text),
    flag("tap"),
    value("interface", Text),
    value("ip", Text),
    value("mac", Text),
    value("service", Service),
    value("weight", Text),
    JSON,
];

/// All there are.
pub(crate) const VERBS: &[Verb] = &[
    verb(&["run"], &[], RUN),
    verb(&["completion"], &[OneOf(&["bash", "zsh", "fish"])], &[]),
    verb(&["network", "create"], &[Text], CREATE_NETWORK),
    verb(&["network", "ls"], &[], PLAIN),
    verb(&["network", "inspect"], &[Network], PLAIN),
    verb(&["network", "rm"], &[Network], &[Flag { long: "yes", short: Some('y'), takes: None }, JSON]),
    verb(&["service", "create"], &[], CREATE_SERVICE),
    verb(&["service", "ls"], &[], PLAIN),
    verb(&["service", "inspect"], &[Service], PLAIN),
    verb(&["service", "rm"], &[Service], PLAIN),
    verb(&["service", "watch"], &[Service], PLAIN),
    verb(&["attach"], &[Network], ATTACH),
    verb(&["drain"], &[Endpoint], &[value("deadline", Text), JSON]),
    verb(&["resume"], &[Endpoint], PLAIN),
    verb(&["detach"], &[Endpoint], PLAIN),
    verb(&["explain"], &[Endpoint, Text], &[value("client", Text), value("at", Text), value("interface", Text), JSON]),
    verb(&["node", "init"], &[], &[value("address", Text), STATE, ETCD, PREFIX, CA, CERT, KEY, JSON]),
    verb(&["node", "join"], &[Text], &[value("token", Text), STATE, ETCD, PREFIX, CA, CERT, KEY, JSON]),
    verb(&["node", "ls"], &[], PLAIN),
    verb(&["node", "rotate-keys"], &[], PLAIN),
    verb(&["node", "leave"], &[], &[flag("force"), JSON]),
    verb(&["node", "promote"], &[Node], PLAIN),
    verb(&["node", "demote"], &[Node], PLAIN),
    verb(&["node", "rm"], &[Node], &[flag("rotate"), JSON]),
    verb(&["node", "token"], &[OneOf(&["rotate"])], &[flag("manager"), JSON]),
    verb(&["node", "ca"], &[OneOf(&["rotate"])], PLAIN),
    verb(&["node", "lock"], &[OneOf(&["off"])], PLAIN),
    verb(&["node", "unlock"], &[], PLAIN),
    verb(&["node", "unlock-key"], &[OneOf(&["rotate"])], PLAIN),
    verb(&["gossip-key", "rotate"], &[], &[value("without", NodeId), JSON]),
    verb(&["status"], &[], PLAIN),
    verb(&["teardown"], &[], &[flag("force"), JSON]),
];

impl Verb {
    /// The command of these words.
    pub(crate) fn of(words: &[&str]) -> Option<&'static Self> {
        VERBS.iter().find(|verb| verb.words == words)
    }

    /// Commands whose words begin with this one have a second.
    pub(crate) fn has_second(first: &str) -> bool {
        VERBS.iter().any(|verb| verb.words.len() > 1 && verb.words.first() == Some(&first))
    }

    /// Whether an argument may stand behind the command.
    pub(crate) fn admit(&self, argument: &Arg<'_>) -> Result<(), Error> {
        let (is_known, shown) = match *argument {
            Arg::Long(long) => (self.flags.iter().any(|flag| flag.long == long), format!("--{long}")),
            Arg::Short(short) => (self.flags.iter().any(|flag| flag.short == Some(short)), format!("-{short}")),
            Arg::Value(_) => return Ok(()),
        };
        match is_known {
            true => Ok(()),
            false if matches!(argument, Arg::Long("help") | Arg::Short('h')) => Err(Error::Custom(HelpAsked.into())),
            false => Err(format!("{shown} is not understood behind {}: see --help", self.words.join(" ")).into()),
        }
    }

    /// The flag that a word names, of the command or of all.
    pub(crate) fn flag(of: Option<&Self>, word: &str) -> Option<Flag> {
        let all = of.map_or(&[][..], |verb| verb.flags).iter().chain(COMMON);
        let is = |flag: &Flag| match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(long), _) => flag.long == long,
            (None, Some(short)) => flag.short.is_some_and(|its| short == its.to_string()),
            _ => false,
        };
        all.copied().find(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{USAGE, parse};

    /// A word that may stand for what is asked for, if that is not a name.
    fn sample(flag: &Flag) -> &'static str {
        match flag.long {
            "mac" => "02:00:00:00:00:01",
            "without" => "0250za67mbtgh1tvq6ktn8q2p",
            "subnet" | "ip-range" => "10.0.0.0/24",
            "gateway" | "ip" | "client" | "at" | "address" => "10.0.0.1",
            "aux-address" => "a=10.0.0.9",
            "join" => "10.0.0.1:1",
            "publish" | "pid" | "weight" | "metrics" | "affinity" | "idle" | "deadline" | "replicas" => "80",
            _ => match flag.takes {
                Some(OneOf(words)) => words[0],
                _ => "word",
            },
        }
    }

    #[test]
    fn each_flag_of_the_table_is_read_by_the_command_that_has_it_and_refused_by_the_others() {
        let every: Vec<Flag> = VERBS.iter().flat_map(|verb| verb.flags).copied().collect();
        for verb in VERBS.iter().filter(|verb| verb.words != ["completion"]) {
            for flag in &every {
                let long = format!("--{}", flag.long);
                let has = verb.flags.iter().find(|its| its.long == flag.long);
                let words = ["overlay-node"].iter().chain(verb.words).copied().map(str::to_owned);
                let flag = has.unwrap_or(flag);
                let value = flag.takes.map(|_| sample(flag).to_owned());
                let said = parse(lexopt::Parser::from_iter(words.chain([long.clone()]).chain(value)));
                let said = said.map(drop).map_err(|error| error.to_string()).err().unwrap_or_default();
                let unknown = said.contains("is not understood behind") && said.starts_with(&long)
                    || said.contains("invalid option");
                assert_eq!(unknown, has.is_none(), "{:?} {long}: {said}", verb.words);
            }
        }
    }

    #[test]
    fn the_help_tells_of_each_command_and_flag() {
        for verb in VERBS {
            let told = match verb.words {
                ["node", "promote" | "demote"] => "node promote|demote".to_owned(),
                words => words.join(" "),
            };
            assert!(USAGE.contains(&told), "{told}");
            for flag in verb.flags {
                let short = flag.short.map(|short| format!("-{short} "));
                let is_told =
                    USAGE.contains(&format!("--{}", flag.long)) || short.is_some_and(|it| USAGE.contains(&it));
                assert!(is_told, "{told} --{}", flag.long);
            }
        }
        let schedulers = overlay_lb::Scheduler::ALL.map(|it| it.to_string().replace(' ', "-"));
        assert_eq!(SCHEDULERS, schedulers);
    }
}
