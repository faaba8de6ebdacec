//! Commands to a running node.

use std::io::{BufRead as _, Write as _};
use std::path::Path;

use overlay_core::NetworkId;
use overlay_driver::control::{AskError, ControlClient};
use overlay_driver::{PlaceStatus, SignedStatus, Status};
use overlay_examples::listing;
use overlay_node::{Control as _, Reference};
use serde::Serialize;
use serde_json::json;

use crate::Outcome;
use crate::agent::{now, random};
use crate::arguments::Command;
use crate::failure::{Changed, Failure};
use crate::question::{NodeAnswer, NodeQuestion};

pub(crate) async fn carry_out(socket: &Path, json: bool, command: Command) -> Outcome {
    let node = ControlClient::new(socket);
    node.connect().await?;
    match command {
        Command::Create(spec) => {
            let network = node.create_network(NetworkId::generate(random), *spec, now()).await?;
            show(json, &network, || network.id.to_string())
        }
        Command::Networks => {
            let networks = node.networks().await?;
            show(json, &networks, || listing::networks(&networks))
        }
        Command::Inspect(network) => {
            let network = node.network(&network.as_str().into()).await?;
            let endpoints = node.endpoints(network.id).await?;
            println!("{}", listing::inspect(&network, &endpoints).trim_end());
            Ok(())
        }
        Command::Remove { network, yes } => remove(&node, json, &network.as_str().into(), yes).await,
        Command::Serve(serve) => crate::services::create(&node, json, serve).await,
        Command::Services => {
            let services = node.services().await?;
            show(json, &services, || listing::services(&services))
        }
        Command::Service(service) => {
            let service = node.service(&service.as_str().into()).await?;
            let endpoints = crate::services::endpoints(&node, &service).await?;
            println!("{}", listing::inspect_service(&service, &endpoints).trim_end());
            Ok(())
        }
        Command::Unserve(service) => {
            let removed = node.remove_service(&service.as_str().into(), now()).await?;
            show(json, &removed, || removed.spec.name.to_string())
        }
        Command::Drain { endpoint, deadline } => crate::drain::until_done(&node, json, endpoint, deadline).await,
        Command::Watch(service) => crate::services::watch(&node, json, &service).await,
        Command::Node(question) => answer(json, ask(&node, &question).await?, &question),
        Command::Member(member) => crate::members::carry_out(&node, json, member).await,
    }
}

/// Shows what a node has answered.
fn answer(json: bool, answer: NodeAnswer, question: &NodeQuestion) -> Outcome {
    match answer {
        NodeAnswer::Attached { endpoint, interface } => {
            let addresses = endpoint.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let said = json!({ "endpoint": endpoint, "interface": interface });
            show(json, &said, || format!("{}   {interface}   {addresses}", endpoint.id))
        }
        NodeAnswer::Drained(drained) => show(json, &drained, || drained.to_string()),
        NodeAnswer::Resumed => show(json, &json!({ "resumed": true }), || "it gets new flows again".to_owned()),
        NodeAnswer::Detached(Some(detached)) => show(json, &detached, || detached.id.to_string()),
        NodeAnswer::Detached(None) => {
            let NodeQuestion::Detach(endpoint) = question else { return Err("the node answers something else".into()) };
            let failure = Failure::new("not_found", format!("endpoint {endpoint} not found"), Changed::Nothing);
            Err(failure.hint("overlay-node status shows what is plugged in here").into())
        }
        NodeAnswer::Explained { lines, way, whole } => {
            let said = json!({ "lines": lines, "whole": whole, "hops": way["hops"], "broken": way["broken"] });
            show(json, &said, || lines.join("\n"))?;
            let repair = way["broken"]["repair"].as_str().unwrap_or_default();
            let failure = Failure::new("not_reached", "it is not reached", Changed::Nothing).hint(repair);
            if whole { Ok(()) } else { Err(failure.into()) }
        }
        NodeAnswer::Rotating => show(json, &json!({ "rotating": true }), || {
            "the node changes its keys: status tells how far it is".to_owned()
        }),
        NodeAnswer::RotatingGossipKey => {
            let said = "all nodes change to a new key: status says when they have";
            show(json, &json!({ "rotating": true }), || said.to_owned())
        }
        NodeAnswer::Status(status) => show(json, &status, || self::status(&status)),
        NodeAnswer::Locked | NodeAnswer::Unlocked | NodeAnswer::UnlockKey(_) => Ok(()), // asked for by commands of their own
        NodeAnswer::TearingDown => {
            show(json, &json!({ "tearing_down": true }), || "the node removes what it has made, and ends".to_owned())
        }
    }
}

/// Warns before an ingress network goes, and asks: a person, that is.
async fn remove(node: &ControlClient, json: bool, network: &Reference, yes: bool) -> Outcome {
    if node.network(network).await?.spec.ingress && !yes {
        if json {
            let what = "this is an ingress network, by which ports are reached: nothing was removed";
            return Err(Failure::new("not_confirmed", what, Changed::Nothing).hint("say --yes").into());
        }
        println!(
            "WARNING! Ports that services publish in ingress mode are reached through this network. Without it no"
        );
        println!("service can publish any, until an ingress network is created again.");
        print!("Are you sure you want to continue? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Failure::new("not_confirmed", "not confirmed: nothing was removed", Changed::Nothing).into());
        }
    }
    let removed = node.remove_network(network, now()).await?;
    show(json, &removed, || removed.spec.name.to_string())
}

pub(crate) async fn ask(node: &ControlClient, question: &NodeQuestion) -> Outcome<NodeAnswer> {
    node.ask(question).await.map_err(|error| match error {
        AskError::Refused(refusal) => refusal.into(),
        other => other.into(),
    })
}

pub(crate) fn show(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Outcome {
    let text = if json { serde_json::to_string_pretty(value)? } else { text() };
    println!("{}", text.trim_end());
    Ok(())
}

fn status(status: &Status) -> String {
    let line = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let balanced = |it: &PlaceStatus| it.balancer.as_ref().map(|by| format!("services by {by}"));
    let mut rows = vec![line(["NODE", "ADDRESS", "STANDING"])];
    rows.extend(
        status.members.iter().map(|it| line([&it.node.short().to_string(), &it.address.to_string(), &it.standing])),
    );
    rows.push(line(["", "", ""]));
    rows.push(line(["GOSSIP", "KEYS", "REFUSED MESSAGES"]));
    rows.push(match &status.seal {
        Some(seal) => {
            let by = format!("sealed by {}, number {}, {}", seal.primary, seal.number, seal.stage);
            let lacking = seal.lacking.iter().map(|key| format!(", lacks {key}")).collect::<String>();
            line([&by, &format!("{}{lacking}", seal.keys.join(" ")), &seal.refused.to_string()])
        }
        None => line(["in the clear", "", ""]),
    });
    rows.push(match &status.signed {
        Some(it) => {
            let SignedStatus { forged, unsigned, unvouched, unverified } = it;
            let refused = format!("{forged} forged, {unsigned} unsigned, {unvouched} of nodes without a voucher, {unverified} not looked at");
            line(["signed", "", &refused])
        }
        None => line(["not signed", "", ""]),
    });
    rows.extend(status.unreadable.iter().map(|it| {
        line([
            &format!("what was plugged in cannot be read from {it}; detach it, and attach its container again"),
            "",
            "",
        ])
    }));
    rows.extend(status.contested.iter().map(|it| line([it, "", ""])));
    if let Some(keys) = &status.keys {
        rows.push(line(["", "", ""]));
        rows.push(line(["KEYS OF ENCRYPTED NETWORKS", "STAGE", "CHANGED LAST"]));
        let why = keys.cause.as_deref().unwrap_or("not yet");
        let left = format!("; {} times somebody was left behind", keys.left_behind);
        let left = if keys.left_behind > 0 { left.as_str() } else { "" };
        rows.push(line([&format!("epoch {}", keys.epoch), &keys.stage, &format!("{why}{left}")]));
    }
    rows.push(line(["", "", ""]));
    rows.push(line(["PLACE", "HOLDS", "WHY NOT, OR HOW"]));
    rows.extend(status.places.iter().flat_map(|it| {
        let said = it.failure.clone().or_else(|| balanced(it)).unwrap_or_default();
        let hindered = it.hindrances.iter().chain(&it.masqueraded).map(|reason| line(["", "", reason]));
        [line([&it.place, if it.holds { "yes" } else { "no" }, &said])].into_iter().chain(hindered).collect::<Vec<_>>()
    }));
    rows.push(line(["", "", ""]));
    rows.push(line(["ENDPOINT", "CONTAINER", "INTERFACE"]));
    let plugged = status.plugged.iter();
    rows.extend(plugged.map(|it| line([&it.endpoint.to_string(), it.container.as_str(), it.interface.as_str()])));
    listing::table(&rows)
}
