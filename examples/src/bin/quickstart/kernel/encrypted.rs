//! A network whose frames cross the wire sealed: in user space, and where the kernel has ESP. Where it has none, the network carries nothing, and says why.

use overlay_core::NetworkId;
use overlay_driver::testing::date;
use overlay_node::{Control, Encryption, NetworkSpec, Places as _};

use super::town::{Town, fill};
use crate::Outcome;

const NAME: &str = "vault";

pub(crate) fn show(town: &mut Town) -> Outcome {
    town.typed(0, &format!("network create -d overlay --attachable --opt encrypted {NAME}"));
    let spec = NetworkSpec { attachable: true, encryption: Encryption::Shared, ..NetworkSpec::overlay(NAME.parse()?) };
    let network = town.wait(town.manager.create_network(NetworkId::generate(fill), spec, date()))?;
    town.shown(&network.id.to_string());
    match town.hosts.places(0)?.protects() {
        Err(missing) if !town.is_in_user_space() => dark(town, &missing)?,
        _ => sealed(town)?,
    }
    town.typed(0, &format!("network rm {NAME}"));
    town.wait(town.manager.remove_network(&NAME.into(), date()))?;
    town.shown(NAME);
    Ok(())
}

fn sealed(town: &mut Town) -> Outcome {
    let (safe, at_safe) = town.run(0, "safe", NAME)?;
    let (key, at_key) = town.run(1, "key", NAME)?;
    let (there, back) = (town.ping(0, &safe, "key")?, town.ping(1, &key, "safe")?);
    let whose = if town.is_in_user_space() { "ESP in user space" } else { "this kernel's ESP" };
    town.check(format!("containers of an encrypted network reach each other by {whose}"), there && back);
    town.typed(0, "rm -f safe key");
    town.detach(0, at_safe.endpoint.id)?;
    town.detach(1, at_key.endpoint.id)?;
    town.shown("safe\nkey");
    Ok(())
}

fn dark(town: &mut Town, missing: &str) -> Outcome {
    let refused = match town.run(0, "safe", NAME) {
        Ok((_, attached)) => {
            town.detach(0, attached.endpoint.id)?;
            String::new()
        }
        Err(error) => error.to_string(),
    };
    town.shown(&format!("Error: {refused}"));
    town.check(
        "this kernel has no ESP, so an encrypted network carries nothing and says what is missing",
        refused.contains(missing),
    );
    Ok(())
}
