//! A network of one's own, between containers on two hosts.

use std::time::Duration;

use overlay_node::{MemoryPlaces, NetworkSpec, Place, PlaceState, Places};

use crate::session::Session;
use overlay_examples::listing;

use crate::Outcome;

/// The mission's network.
const NAME: &str = "customoverlay";

pub(crate) fn create(session: &mut Session) -> Outcome {
    session.list()?;
    session.typed(1, &format!("network create -d overlay --attachable {NAME}"));
    let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay(NAME.parse()?) };
    let network = session.cluster.create_network(spec)?;
    session.shown(&network.id.to_string());
    session.list()?;
    session.check(
        "a network that was created has its subnet and VNI",
        network.vni.is_some() && network.subnets.len() == 1,
    );
    session.check(
        "a network is nowhere before a container needs it",
        (1..=3).all(|host| session.sandboxes(host).is_empty()),
    );
    Ok(())
}

pub(crate) fn attach(session: &mut Session) -> Outcome {
    for (container, host) in [("web", 1), ("db", 2)] {
        session.typed(host, &format!("run -d --name {container} --network {NAME}"));
        let endpoint = session.cluster.attach(container, host - 1, NAME)?;
        let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
        session.shown(&format!("{}   {}", endpoint.id.short(), addresses.join(", ")));
    }
    let settled = session.settle();
    session.check("what every host should hold is there, and nothing else", settled);
    let network = session.cluster.network(NAME)?;
    session.typed(1, &format!("network inspect {NAME}"));
    let endpoints = session.cluster.endpoints(network.id)?;
    session.shown(&listing::inspect(&network, &endpoints));
    session.check("inspect shows both containers", endpoints.len() == 2);
    dry_run(session, &Place::Network(network.id))
}

/// What host-1 has done, as the steps that lead there from an empty machine.
fn dry_run(session: &mut Session, place: &Place) -> Outcome {
    let held = session.cluster.places(0).and_then(|places| places.place(place)).ok_or("host-1 has no sandbox")?;
    let state = PlaceState { vxlan: held.vxlan.state(), firewall: held.firewall.state(), ..PlaceState::default() };
    let empty = MemoryPlaces::default();
    let plan = empty.clone().open(place)?.plan(&state)?;
    session.typed(1, &format!("plan {NAME}      # what an empty machine would do for it"));
    session.shown(&plan.to_string());
    let untouched = empty.place(place).is_some_and(|it| it.vxlan.state() == overlay_vxlan::State::default());
    session.check("a dry run changes nothing", !plan.is_empty() && untouched);
    Ok(())
}

/// What web and db tell each other.
const SAID: &[u8] = b"hello from next door";

pub(crate) fn talk(session: &mut Session) -> Outcome {
    let (there, back) = (session.ping(1, "web", "db"), session.ping(2, "db", "web"));
    session.check("web on host-1 and db on host-2 reach each other by name", there && back);
    let (there, back) = (session.exchange(1, "web", "db", SAID), session.exchange(2, "db", "web", SAID));
    let seen = session.seen_on_the_cable(SAID);
    session.check("packets go there and back, by ping and TCP", there && back);
    session.check("and are seen on host-1's cable", seen >= 4);
    Ok(())
}

/// The network comes to a host with its first container, and goes with its last.
pub(crate) fn third_host(session: &mut Session) -> Outcome {
    let before = session.list_local(3)?;
    session.typed(3, &format!("run -d --name cache --network {NAME}"));
    let endpoint = session.cluster.attach("cache", 2, NAME)?;
    session.shown(&endpoint.id.short().to_string());
    let settled = session.settle();
    let during = session.list_local(3)?;
    let reached = session.ping(3, "cache", "db");
    session.check("the network is absent on host-3 until it is needed", before == 0 && during == 1 && settled);
    session.check("a container on host-3 reaches the others then", reached);
    session.typed(3, "rm -f cache");
    session.cluster.stop("cache")?;
    session.shown("cache");
    let gone = session.settle() && session.list_local(3)? == 0;
    session.check("and absent again when it is not needed any more", gone);
    Ok(())
}

/// Somebody flushes what host-1 holds; it is found and put back.
pub(crate) fn drift(session: &mut Session) -> Outcome {
    let place = Place::Network(session.cluster.network(NAME)?.id);
    let held = session.cluster.places(0).and_then(|places| places.place(&place)).ok_or("host-1 has no sandbox")?;
    session.typed(1, "bridge fdb flush      # somebody's mistake");
    held.vxlan.update(|state| state.segments.values_mut().for_each(|segment| segment.peers.clear()));
    println!();
    let broken = !session.ping(1, "web", "db");
    session.cluster.run_for(Duration::from_secs(6));
    let repaired = session.ping(1, "web", "db");
    session.check("what somebody else removed is found missing and put back", broken && repaired);
    Ok(())
}

/// The database moves; everybody sends to where it is.
pub(crate) fn relocate(session: &mut Session) -> Outcome {
    session.typed(1, "move db host-3");
    session.cluster.relocate("db", 2)?;
    session.shown("db");
    let settled = session.settle();
    let reached = session.ping(1, "web", "db");
    session
        .check("a container that moved is reached at its new host under its old name and address", settled && reached);
    session.check(
        "nothing is left on the host it has left",
        session.cluster.places(1).is_some_and(|it| it.places().is_empty()),
    );
    Ok(())
}

pub(crate) fn remove(session: &mut Session) -> Outcome {
    session.typed(1, &format!("network rm {NAME}"));
    let refused = match session.cluster.remove_network(NAME) {
        Ok(_) => "removed".to_owned(),
        Err(error) => format!("Error: {error}"),
    };
    session.shown(&refused);
    session.check(
        "a network that is used is not removed, and its user is named",
        refused.contains("web") || refused.contains("db"),
    );
    session.typed(1, &format!("rm -f web db && network rm {NAME}"));
    session.cluster.stop("web")?;
    session.cluster.stop("db")?;
    session.cluster.remove_network(NAME)?;
    session.shown(NAME);
    let settled = session.settle();
    let empty = (0..3).all(|host| session.cluster.places(host).is_some_and(|places| places.places().is_empty()));
    session.check("after removal nothing is left on any host", settled && empty);
    Ok(())
}
