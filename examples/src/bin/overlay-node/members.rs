//! `node …`: commands about the cluster's nodes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt as _};
use overlay_core::{NodeId, Port};
use overlay_crypto::pki::{JoinToken, Known, Role};
use overlay_driver::control::ControlClient;
use overlay_examples::listing;
use overlay_node::{Control as _, Reference};
use serde_json::json;

use crate::Outcome;
use crate::commands::{ask, show};
use crate::lock::{self, Lock};
use crate::question::{NodeAnswer, NodeQuestion};
use crate::store::EtcdWords;
use crate::verbs::Verb;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Member {
    Init {
        address: IpAddr,
        state: PathBuf,
        etcd: EtcdWords,
    },
    Join {
        token: JoinToken,
        managers: Vec<SocketAddr>,
        state: PathBuf,
        etcd: EtcdWords,
    },
    Leave {
        force: bool,
    },
    List,
    SetRole(String, Role),
    /// And whether the tokens are to be changed.
    Remove(String, bool),
    Token {
        role: Role,
        rotate: bool,
    },
    Root {
        rotate: bool,
    },
    Lock(Lock),
}

/// A command, and whether `--json` stood behind it.
pub(crate) fn parse(verb: &Verb, word: &str, parser: &mut Parser) -> Result<(Member, bool), lexopt::Error> {
    let (mut json, mut state, mut role) = (false, PathBuf::from("/var/lib/overlay"), Role::Worker);
    let (mut address, mut token, mut words) = (None, None, Vec::new());
    let (mut force, mut rotate) = (false, false);
    let mut etcd = EtcdWords::default();
    while let Some(argument) = parser.next()? {
        verb.admit(&argument)?;
        match argument {
            Arg::Long("json") => json = true,
            Arg::Long("state") => state = parser.value()?.into(),
            Arg::Long("address") => address = Some(parser.value()?.parse::<IpAddr>()?),
            Arg::Long("token") => token = Some(parser.value()?.parse::<JoinToken>()?),
            Arg::Long("force") => force = true,
            Arg::Long("rotate") => rotate = true,
            Arg::Long(flag) if flag.starts_with("etcd") => etcd.take(format!("--{flag}"), parser)?,
            Arg::Long("manager") => role = Role::Manager,
            Arg::Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    // A command's only word, if it has one.
    let one = || match &words[..] {
        [node] => Ok(node.clone()),
        _ => Err(lexopt::Error::from("name one node, and nothing else")),
    };
    let flag = |known: &str| match &words[..] {
        [] => Ok(false),
        [word] if word == known => Ok(true),
        [first, ..] => Err(lexopt::Error::from(format!("{first} is not understood behind node {word}: see --help"))),
    };
    let alone = || match words.first() {
        None => Ok(()),
        Some(stray) => Err(lexopt::Error::from(format!("{stray} is not understood behind node {word}: see --help"))),
    };
    let member = match word {
        "init" => {
            alone()?;
            Member::Init { address: callable(address.ok_or("init needs --address")?)?, state, etcd }
        }
        "join" => {
            let managers = words.iter().map(|word| control(word)).collect::<Result<Vec<_>, _>>()?;
            if managers.is_empty() {
                return Err("join needs a manager's address".into());
            }
            Member::Join { token: token.ok_or("join needs --token")?, managers, state, etcd }
        }
        "leave" => alone().map(|()| Member::Leave { force })?,
        "ls" => alone().map(|()| Member::List)?,
        "promote" => Member::SetRole(one()?, Role::Manager),
        "demote" => Member::SetRole(one()?, Role::Worker),
        "rm" => Member::Remove(one()?, rotate),
        "token" => Member::Token { role, rotate: flag("rotate")? },
        "ca" => Member::Root { rotate: flag("rotate")? },
        "lock" => Member::Lock(Lock::Set { off: flag("off")? }),
        "unlock" => alone().map(|()| Member::Lock(Lock::Unlock))?,
        "unlock-key" => Member::Lock(if flag("rotate")? { Lock::Set { off: false } } else { Lock::Show }),
        other => return Err(format!("there is no command node {other}: see --help").into()),
    };
    Ok((member, json))
}

/// An address, if others can call it.
fn callable(address: IpAddr) -> Result<IpAddr, lexopt::Error> {
    match address.is_unspecified() || address.is_multicast() {
        true => Err(format!("nobody can call {address}: give an address of this host").into()),
        false => Ok(address),
    }
}

/// A manager's address, at the usual port.
fn control(text: &str) -> Result<SocketAddr, lexopt::Error> {
    let usual = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, Port::CONTROL.get()));
    text.parse().or_else(|_| usual()).map_err(|_| format!("{text} is no address: IP or IP:PORT").into())
}

pub(crate) async fn carry_out(node: &ControlClient, json: bool, member: Member) -> Outcome {
    match member {
        Member::Init { .. } | Member::Join { .. } => Ok(()), // of no node that runs
        Member::Lock(lock) => lock::carry_out(node, json, lock).await,
        Member::List => {
            let nodes = node.nodes().await?;
            let members = node.members().await.unwrap_or_default(); // a manager alone is told
            let role = |id: NodeId| members.iter().find(|it| it.node == id).map(|it| it.role.to_string());
            let rows = nodes.iter().map(|it| {
                let role = role(it.id).unwrap_or_default();
                vec![it.id.short().to_string(), it.spec.name.to_string(), role]
            });
            let head = ["ID", "NAME", "ROLE"].map(str::to_owned).to_vec();
            show(json, &nodes, || listing::table(&[head].into_iter().chain(rows).collect::<Vec<_>>()))
        }
        Member::Leave { force } => match ask(node, &NodeQuestion::Leave { force }).await? {
            NodeAnswer::TearingDown => {
                show(json, &json!({ "leaving": true }), || "the node leaves, and ends".to_owned())
            }
            other => Err(format!("it answers {other:?}").into()),
        },
        Member::SetRole(name, role) => {
            let id = id_of(node, &name).await?;
            node.set_role(id, role).await?;
            show(json, &json!({ "node": id, "role": role }), || {
                format!("{id} is a {role} from its next certificate on")
            })
        }
        Member::Remove(name, rotate) => remove(node, json, &name, rotate).await,
        Member::Token { role, rotate } => {
            let token = if rotate { node.rotate_token(role).await? } else { node.token(role).await? };
            show(json, &json!({ "role": role, "token": token }), || token.clone())
        }
        Member::Root { rotate } => {
            let progress = if rotate { Some(node.rotate_root().await?) } else { node.root_progress().await? };
            show(json, &progress, || match &progress {
                None => "the root is not being changed".to_owned(),
                Some(it) => format!(
                    "from {} to {}: {} nodes have followed, {} are waited for, {} are lost",
                    it.from,
                    it.to,
                    it.followed,
                    it.waiting.len(),
                    it.lost.len()
                ),
            })
        }
    }
}

/// Removes a node, and says what is to be changed for another as it knew it.
async fn remove(node: &ControlClient, json: bool, name: &str, rotate: bool) -> Outcome {
    let gone = node.remove_member(&Reference::from(name)).await?;
    let mut left = gone.knew.clone();
    if rotate {
        for role in [Role::Worker, Role::Manager] {
            node.rotate_token(role).await?;
        }
        left.retain(|known| *known != Known::Tokens);
    }
    let lines = left.iter().map(|known| match known {
        Known::GossipKey => "it knew the key of gossip: the nodes change to another by themselves",
        Known::Tokens => "it knew join tokens: node token rotate, node token --manager rotate",
        Known::Root => "it could unseal the root's key: node ca rotate",
        Known::UnlockKey => "it knew its own unlock key: those of other managers are others",
        _ => "it knew what this program has no name for",
    });
    show(json, &gone, || std::iter::once(name).chain(lines).collect::<Vec<_>>().join("\n"))
}

async fn id_of(node: &ControlClient, name: &str) -> Outcome<NodeId> {
    Ok(node.node(&Reference::from(name)).await?.id)
}
