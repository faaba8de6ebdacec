//! The hosts come together: by a join token, over mutual TLS, and who should not is refused.

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_core::ClusterId;
use overlay_crypto::pki::{
    Algorithm, Authority, Grant, Identity, JoinToken, Life, Role, Serial, SigningKey, SigningRequest, Trust,
};
use overlay_driver::control::{ControlClient, Credentials, JoinError, Managers, join};
use overlay_driver::testing::{date, node};
use overlay_kernel::Namespace;
use overlay_node::Control as _;

use super::town::{HOSTS, Town, fill};
use crate::Outcome;

pub(crate) fn by_token(town: &mut Town) -> Outcome {
    let token = town.wait(town.hosts.token(Role::Worker))?;
    let address = town.hosts.control_address().ok_or("host-1 serves nobody")?;
    let at = address.ip();
    town.typed(0, "node token");
    town.shown(&token.to_string());

    town.typed(1, &format!("node join --token {}… {at}      # a guess", &token.to_string()[..24]));
    let guess = JoinToken::generate(token.root(), fill);
    let guessed = refused(town, address, &guess)?;
    town.check("a wrong join token is refused", guessed.contains("join token"));

    let (stranger, credentials) = stranger()?;
    town.typed(1, &format!("node join --token SWMTKN-1-…  {at}      # another cluster's"));
    let foreign = refused(town, address, &stranger)?;
    town.check(
        "a token of another cluster is told to nobody: who answers is not believed",
        foreign.contains("no root of cluster"),
    );
    town.typed(1, "node ls      # with another cluster's certificate");
    let managers = Managers::new([address], &credentials)?.from_host(namespace(town)?);
    let listed = town.wait(ControlClient::of_managers(managers).nodes()).map_err(|error| overlay_core::told(&error));
    let said = listed.err().unwrap_or_default();
    town.shown(&format!("Error: {said}"));
    town.check("with a certificate of another cluster nothing is done", said.contains("no root of cluster"));

    for host in 1..HOSTS {
        town.typed(host, &format!("node join --token {token} {at}"));
        town.join(host, &token)?;
        let identity = town.hosts.membership(host)?.identity();
        town.shown(&format!("this node is {identity} now"));
    }
    let joined = town.wait(town.hosts.membership(1)?.client().nodes())?.len();
    town.check("two hosts join by a token, over mutual TLS", joined == HOSTS);
    Ok(())
}

/// What is said to who tries to join host-1 from host-2.
fn refused(town: &Town, address: SocketAddr, token: &JoinToken) -> Outcome<String> {
    let tried = town.wait(join([address], token, None, Some(namespace(town)?)));
    let said = tried.map(drop).map_err(|error: JoinError| overlay_core::told(&error)).err().unwrap_or_default();
    town.shown(&format!("Error: {said}"));
    Ok(said)
}

fn namespace(town: &Town) -> Outcome<Arc<Namespace>> {
    Ok(Arc::new(town.hosts.lab.host(1).try_clone()?))
}

/// A token of another cluster, and the certificate of a manager there.
fn stranger() -> Outcome<(JoinToken, Credentials)> {
    let cluster = ClusterId::generate(fill);
    let root =
        Authority::create(cluster, SigningKey::generate(Algorithm::EcdsaP256)?, &Serial::generate(fill), date())?;
    let key = SigningKey::generate(Algorithm::EcdsaP256)?;
    let identity = Identity { node: node(HOSTS), role: Role::Manager, cluster };
    let grant = Grant { identity, life: Life::default(), serial: Serial::generate(fill) };
    let own = root.issue(&SigningRequest::create(&key)?, &grant, date())?;
    let credentials = Credentials::new(vec![own], &key, Trust::new([root.certificate().clone()])?)?;
    Ok((JoinToken::generate(root.certificate().key(), fill), credentials))
}
