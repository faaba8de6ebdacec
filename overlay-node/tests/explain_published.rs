//! What is explained of published ports is what becomes of who asks.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{Port, Protocol};
use overlay_lb::{Ask, Asked};
use overlay_node::testing::knowledge;
use overlay_node::{Desired, Explanation, Hop, Knowledge, Place, derive, explain_published};
use proptest::prelude::*;

/// Those that a node of the random ones may have, and one that none has.
#[expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
fn address() -> impl Strategy<Value = IpAddr> {
    let all = ["192.0.2.1", "192.0.2.9", "198.51.100.1", "127.0.0.1", "10.3.0.2", "2001:db8::3", "fe80::1", "::1"];
    proptest::sample::select(all.map(|text| text.parse().unwrap()).to_vec())
}

/// All that some service publishes, and a port that none does.
fn ports(knowledge: &Knowledge) -> Vec<(Protocol, Port)> {
    let services = knowledge.networks.values().flat_map(|section| section.services.values());
    let all = services.flat_map(|service| &service.ports);
    let published = all.filter_map(|port| Some((port.protocol, port.published?)));
    published.chain([(Protocol::Tcp, Port::MAX)]).collect()
}

fn is_of_mesh(explanation: &Explanation) -> bool {
    let port =
        explanation.hops.iter().find_map(|hop| if let Hop::Published { port, .. } = hop { Some(port) } else { None });
    port.is_some_and(|port| port.mode.is_of_mesh())
}

proptest! {
    #[test]
    fn a_client_of_the_mesh_is_explained_what_the_hosts_services_do_with_it(
        knowledge in knowledge(),
        (from, to) in (address(), address()),
        by in proptest::option::of(proptest::sample::select(vec!["eth0", "eth1"])),
    ) {
        let desired = derive(&knowledge);
        let Some(host) = desired.places.get(&Place::Host) else { return Ok(()) };
        let mut bare = desired.clone();
        bare.places.insert(Place::Host, Arc::default());
        for (protocol, port) in ports(&knowledge) {
            let ask = Ask { by: by.map(|by| by.parse().unwrap()), from, to, protocol, port };
            let explain = |held: &Desired| explain_published(&knowledge, &ask, held);
            let explanation = explain(&desired);
            let missing = explanation.broken.as_ref().map_or("", |broken| &broken.missing);
            let replicas = explanation.hops.iter().find_map(|hop| if let Hop::Replicas { replicas, .. } = hop { Some(replicas) } else { None });
            if !is_of_mesh(&explanation) || from.is_ipv4() != to.is_ipv4() {
                prop_assert!(replicas.is_none());
                continue;
            }
            match host.lb.asked(&ask) {
                Asked::Served(name, _) => {
                    let takers = host.lb.services[name].takers(overlay_core::IpFamily::of(to));
                    let takers: Vec<IpAddr> = takers.map(|(_, _, address)| address).collect();
                    prop_assert_eq!(replicas, Some(&takers), "{}", explanation);
                    // A host that holds nothing leads nobody.
                    let broken = explain(&bare).broken.map(|broken| broken.missing).unwrap_or_default();
                    prop_assert!(broken.starts_with("the host does not lead"), "{}", broken);
                }
                Asked::Refused(_) => prop_assert!(missing.ends_with("takes work, so who asks is refused"), "{}", explanation),
                Asked::Dropped(_) => prop_assert!(missing.contains(" is not for "), "{}", explanation),
                Asked::Left => prop_assert!(explanation.broken.is_some() && replicas.is_none(), "{}", explanation),
            }
        }
    }
}
