//! A network whose frames cross the underlay sealed, and in no other way.

use overlay_fabric::Hop;
use overlay_node::{Encryption, NetworkSpec};

use crate::Outcome;
use crate::session::Session;

const NAME: &str = "vault";
const SECRET: &[u8] = b"the combination is 4-8-15";

pub(crate) fn show(session: &mut Session) -> Outcome {
    session.typed(1, &format!("network create -d overlay --attachable --opt encrypted {NAME}"));
    let spec = NetworkSpec { attachable: true, encryption: Encryption::Shared, ..NetworkSpec::overlay(NAME.parse()?) };
    let network = session.cluster.create_network(spec)?;
    session.shown(&network.id.to_string());
    for (container, host) in [("safe", 1), ("key", 2)] {
        session.typed(host, &format!("run -d --name {container} --network {NAME}"));
        let endpoint = session.cluster.attach(container, host - 1, NAME)?;
        session.shown(&endpoint.id.short().to_string());
    }
    let settled = session.settle();
    let reached = session.ping(1, "safe", "key");
    let trace = session.cluster.probe("safe", "key");
    let crossed = trace.request.iter().chain(&trace.reply).filter_map(|hop| match hop {
        Hop::Tunnel { sealed, .. } => Some(sealed.is_some()),
        _ => None,
    });
    let crossed: Vec<bool> = crossed.collect();
    session.check(
        "an encrypted network crosses the underlay sealed, both ways",
        settled && reached && crossed == [true, true],
    );
    let told = session.exchange(1, "safe", "key", SECRET);
    session.check("packets of it go there and back", told);
    session.check("and nothing of them is seen on host-1's cable", session.seen_on_the_cable(SECRET) == 0);
    session.typed(1, &format!("rm -f safe key && network rm {NAME}"));
    session.cluster.stop("safe")?;
    session.cluster.stop("key")?;
    session.cluster.remove_network(NAME)?;
    session.shown(NAME);
    Ok(())
}
