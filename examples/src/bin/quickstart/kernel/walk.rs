//! What an operator does, and what is found true.

use std::time::Duration;

use overlay_core::{IfName, NetworkId};
use overlay_driver::Attached;
use overlay_driver::testing::{Container, date, node};
use overlay_ipam::{Gateway, SubnetRequest};
use overlay_kernel::Namespace;
use overlay_kernel::netlink::{Family, Flags, Requests};
use overlay_node::{Control, NetworkSpec, Reference};

use super::town::{HOSTS, Town, fill};
use super::{encrypted, form, rules, services};
use overlay_examples::listing;

use crate::Outcome;

/// The mission's network.
const NAME: &str = "customoverlay";

pub(crate) fn all(town: &mut Town) -> Outcome {
    let carried = if town.is_in_user_space() { "Their agents carry the packets, in user space. " } else { "" };
    println!(
        "Three hosts of namespaces on one wire, in a private world of this machine's kernel. {carried}host-1 has founded a cluster.\n"
    );
    form::by_token(town)?;
    let known = |town: &Town| {
        let all: Outcome<Vec<bool>> =
            (0..HOSTS).map(|host| Ok(town.wait(town.driver(host)?.status())?.members.len() == HOSTS)).collect();
        Ok(all?.into_iter().all(|all| all))
    };
    let joined = town.until(known).is_some();
    town.check("three hosts find one another", joined);
    let network = create(town)?;
    let (web, at_web) = town.run(0, "web", NAME)?;
    let (db, attached) = town.run(1, "db", NAME)?;
    inspect(town, network)?;
    let (there, back) = (town.ping(0, &web, "db")?, town.ping(1, &db, "web")?);
    town.check("web on host-1 and db on host-2 reach each other by name", there && back);
    third_host(town, &db)?;
    rules::show(town, (&web, &at_web), &attached)?;
    services::show(town, NAME, (&web, &at_web))?;
    drift(town, network, &web)?;
    restart(town, &web, &attached)?;
    relocate(town, &web, &db, &attached)?;
    encrypted::show(town)?;
    replace_ingress(town)
}

fn create(town: &mut Town) -> Outcome<NetworkId> {
    town.list()?;
    town.typed(0, &format!("network create -d overlay --attachable {NAME}"));
    let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay(NAME.parse()?) };
    let network = town.wait(town.manager.create_network(NetworkId::generate(fill), spec, date()))?;
    town.shown(&network.id.to_string());
    town.list()?;
    town.check(
        "a network that was created has its subnet and VNI",
        network.vni.is_some() && network.subnets.len() == 1,
    );
    let nowhere = (0..HOSTS).all(|host| matches!(town.sandboxes(host), Ok(0)));
    town.check("a network is nowhere before a container needs it", nowhere);
    Ok(network.id)
}

fn inspect(town: &mut Town, id: NetworkId) -> Outcome {
    town.typed(0, &format!("network inspect {NAME}"));
    let network = town.wait(town.manager.network(&Reference::from(id)))?;
    let endpoints = town.wait(town.manager.endpoints(id))?;
    town.shown(&listing::inspect(&network, &endpoints));
    town.check("inspect shows both containers", endpoints.len() == 2);
    Ok(())
}

/// The network comes to a host with its first container, and goes with its last.
fn third_host(town: &mut Town, db: &Container) -> Outcome {
    let before = town.sandboxes(2)?;
    let (cache, attached) = town.run(2, "cache", NAME)?;
    let during = town.sandboxes(2)?;
    let reached = town.ping(2, &cache, "db")? && town.ping(1, db, "cache")?;
    town.check("the network is absent on host-3 until it is needed", before == 0 && during == 1);
    town.check("a container on host-3 reaches the others then", reached);
    town.typed(2, "rm -f cache");
    town.detach(2, attached.endpoint.id)?;
    town.shown("cache");
    let gone = town.until(|town| Ok(town.sandboxes(2)? == 0 && town.echo(db, "cache")?.is_none())).is_some();
    town.check("and absent again when it is not needed any more", gone);
    Ok(())
}

/// Somebody removes the tunnel on host-1, or, where it has none, web's interface; it is found and put back.
fn drift(town: &mut Town, network: NetworkId, web: &Container) -> Outcome {
    let vni = town.wait(town.manager.network(&Reference::from(network)))?.vni.ok_or("the network has no VNI")?;
    let tunnel = overlay_vxlan::names::tunnel(vni)?;
    if town.is_in_user_space() {
        town.typed(0, "exec web ip link del eth0      # somebody's mistake");
        println!();
        remove_link(&web.namespace, "eth0".parse()?)?;
    } else {
        town.typed(0, &format!("ip link del {tunnel}      # somebody's mistake"));
        println!();
        let sandbox = Namespace::open(town.sandbox(0, network)?.ok_or("host-1 has no sandbox")?)?;
        remove_link(&sandbox, tunnel)?;
    }
    let repaired = town.until(|town| Ok(town.echo(web, "db")?.is_some()));
    town.ping(0, web, "db")?;
    town.check(
        format!("what somebody else removed is found missing and put back{}", after(repaired)),
        repaired.is_some(),
    );
    Ok(())
}

/// How long something took, if it came about.
fn after(took: Option<Duration>) -> String {
    took.map_or_else(String::new, |took| format!(" (after {:.0} ms)", took.as_secs_f64() * 1e3))
}

fn remove_link(namespace: &Namespace, name: IfName) -> Outcome {
    const RTM_DELLINK: u16 = 17;
    const IFLA_IFNAME: u16 = 3;
    let request = Requests::one(RTM_DELLINK, Flags::NONE, |body| {
        body.raw(&[0; 16]).text(IFLA_IFNAME, name.as_str());
    });
    namespace.netlink(Family::Route)?.request(&request)?;
    Ok(())
}

/// The agent of host-1 is away for a while: what the kernel carries goes on to work, what the agent carries waits.
fn restart(town: &mut Town, web: &Container, db: &Attached) -> Outcome {
    let address = db.endpoint.addresses.first().ok_or("db has no address")?.addr().to_string();
    town.typed(0, "systemctl stop overlay-node");
    println!();
    if let Some(driver) = town.hosts.take(0) {
        town.wait(driver.stop());
    }
    if town.is_in_user_space() {
        let carried = town.echo(web, &address)?.is_some();
        town.check("nobody carries packets of a host whose agent is down", !carried);
    } else {
        let goes_on = town.ping(0, web, &address)?;
        town.check("containers go on to reach each other while a host's agent is down", goes_on);
    }
    town.typed(0, "systemctl start overlay-node");
    println!();
    town.start(0)?;
    let named = town.until(|town| Ok(town.echo(web, "db")?.is_some()));
    town.ping(0, web, "db")?;
    town.check(format!("and find each other's names when it is back{}", after(named)), named.is_some());
    Ok(())
}

/// The database moves; everybody sends to where it is.
fn relocate(town: &mut Town, web: &Container, db: &Container, attached: &Attached) -> Outcome {
    let (id, before) = (attached.endpoint.id, &attached.endpoint.addresses);
    town.typed(0, "move db host-3");
    let moved = town.wait(town.manager.relocate(id, node(2), date()))?;
    // A container of the same name on the other host: its runtime's to make.
    town.hosts.lab.end(&db.name)?;
    let there = town.hosts.lab.container("db")?;
    town.wait(town.driver(2)?.plug(id, there.name, there.source, None))?;
    town.shown("db");
    let reached = town.ping(0, web, "db")?;
    town.check(
        "a container that moved is reached at its new host under its old name and address",
        reached && moved.addresses == *before,
    );
    let left = town.until(|town| Ok(town.sandboxes(1)? == 0)).is_some();
    town.check("nothing is left on the host it has left", left);
    Ok(())
}

fn replace_ingress(town: &mut Town) -> Outcome {
    const NEW: &str = "my-ingress";
    const SUBNET: &str = "172.16.0.0/16";
    const GATEWAY: &str = "172.16.0.1";
    town.typed(0, "network rm ingress");
    println!("WARNING! Ports that services publish in ingress mode are reached through this network. Without it no");
    println!("service can publish any, until an ingress network is created again.");
    println!("Are you sure you want to continue? [y/N] y");
    let removed = town.wait(town.manager.remove_network(&"ingress".into(), date()))?;
    town.shown(removed.spec.name.as_str());
    town.typed(0, &format!("network create -d overlay --ingress --subnet={SUBNET} --gateway={GATEWAY} {NEW}"));
    let subnet = SubnetRequest { gateway: Gateway::This(GATEWAY.parse()?), ..SubnetRequest::this(SUBNET.parse()?) };
    let spec = NetworkSpec { ingress: true, subnets: vec![subnet], ..NetworkSpec::overlay(NEW.parse()?) };
    let network = town.wait(town.manager.create_network(NetworkId::generate(fill), spec, date()))?;
    town.shown(&network.id.to_string());
    town.list()?;
    let right = network.subnets.iter().any(|subnet| subnet.net().to_string() == SUBNET);
    town.check("ingress is 172.16.0.0/16 with gateway 172.16.0.1 now", right && network.spec.ingress);
    Ok(())
}

pub(crate) fn remove(town: &mut Town) -> Outcome {
    town.typed(0, &format!("network rm {NAME}"));
    let refused = match town.wait(town.manager.remove_network(&NAME.into(), date())) {
        Ok(_) => "removed".to_owned(),
        Err(error) => format!("Error: {error}"),
    };
    town.shown(&refused);
    let named = refused.contains("web") || refused.contains("db");
    town.check("a network that is used is not removed, and its user is named", named);
    town.typed(0, &format!("rm -f web db && network rm {NAME}"));
    for host in 0..HOSTS {
        for plugged in town.wait(town.driver(host)?.status())?.plugged {
            town.detach(host, plugged.endpoint)?;
        }
    }
    town.wait(town.manager.remove_network(&NAME.into(), date()))?;
    town.shown(NAME);
    let empty = town.until(|town| Ok((0..HOSTS).all(|host| matches!(town.sandboxes(host), Ok(0))))).is_some();
    town.check("after removal nothing is left on any host", empty);
    Ok(())
}
