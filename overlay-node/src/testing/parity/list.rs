//! The list.

use overlay_core::IpFamily;

use super::town::{CLIENT, MTU, seen_as};
use super::{Ask, By, Change, Need, OUTSIDE, Outcome, Scenario, To};

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];
const PACKETS: [By; 3] = [By::Ping, By::Udp, By::Tcp];
/// Times that a service is asked by whose answers all its containers are found.
const OFTEN: usize = 16;

/// All scenarios, in the order in which they are played.
pub fn scenarios() -> Vec<Scenario> {
    [within(), between(), behind_vips(), by_names(), sizes(), special(), changes()].into_iter().flatten().collect()
}

fn scenario(name: &'static str, asks: impl IntoIterator<Item = Ask>) -> Scenario {
    Scenario { name, needs: None, change: None, asks: asks.into_iter().collect() }
}

fn within() -> Vec<Scenario> {
    vec![
        scenario("containers of one network on one node reach each other", both("a", "c", "front")),
        scenario("containers of one network on two nodes reach each other", both("a", "b", "front")),
        scenario(
            "a container of two networks is reached on each by its address there, and seen by it",
            [both("a", "g", "front"), both("x", "g", "back"), both("g", "y", "back"), both("g", "b", "front")].concat(),
        ),
        scenario("containers of an internal network reach each other", both("v", "w", "vault")),
    ]
}

fn between() -> Vec<Scenario> {
    vec![
        scenario(
            "nothing passes to a container of another network, on the same node or on another",
            [silent("a", "x", "back"), silent("a", "y", "back"), silent("y", "b", "front")].concat(),
        ),
        scenario(
            "a container of two networks leads nobody from one to the other",
            [silent("a", "g", "back"), silent("x", "g", "front")].concat(),
        ),
        scenario(
            "nothing passes into an internal network, or out of it",
            [silent("a", "v", "vault"), silent("v", "a", "front"), silent("w", "y", "back")].concat(),
        ),
    ]
}

fn behind_vips() -> Vec<Scenario> {
    let asks = |from, service, network, by, who: &'static [&'static str]| {
        FAMILIES.map(|family| behind(from, (service, network), (by, family), who))
    };
    vec![
        scenario(
            "a VIP leads connections to all replicas, who see the client",
            asks("a", "web", "front", By::Tcp, &["web-1", "web-2"]),
        ),
        scenario(
            "a VIP leads datagrams to all replicas, who see the client",
            asks("a", "web", "front", By::Udp, &["web-1", "web-2"]),
        ),
        scenario(
            "a replica that asks its service's VIP is led to all, itself included",
            asks("web-1", "web", "front", By::Tcp, &["web-1", "web-2"]),
        ),
        scenario(
            "the only replica that asks its service's VIP answers itself",
            asks("api-1", "api", "back", By::Tcp, &["api-1"]),
        ),
        scenario(
            "a container of two networks reaches the services of both as what it is there",
            [asks("g", "web", "front", By::Tcp, &["web-1", "web-2"]), asks("g", "api", "back", By::Tcp, &["api-1"])]
                .concat(),
        ),
        scenario(
            "a VIP is pinged",
            FAMILIES.map(|family| ask("a", By::Ping, To::Vip("web", "front", family), Outcome::Pong)),
        ),
        scenario(
            "a VIP of another network leads nowhere",
            FAMILIES.into_iter().flat_map(|family| {
                [By::Udp, By::Tcp].map(|by| ask("x", by, To::Vip("web", "front", family), Outcome::Unanswered))
            }),
        ),
    ]
}

fn by_names() -> Vec<Scenario> {
    let has = |from, name, of: &[(&str, &str)]| {
        let addresses = of.iter().flat_map(|(who, network)| FAMILIES.map(|family| seen_as(who, network, family)));
        ask(from, By::Name, To::Named(name, IpFamily::V4), Outcome::Has(addresses.collect()))
    };
    let none = |from, name| ask(from, By::Name, To::Named(name, IpFamily::V4), Outcome::NoName);
    let named = |from, name, (who, network): (&str, &str)| {
        FAMILIES.map(|family| {
            let expected = Outcome::answered(who, seen_as(from, network, family));
            ask(from, By::Tcp, To::Named(name, family), expected)
        })
    };
    let behind_its_name = FAMILIES.map(|family| Ask {
        to: To::Named("web", family),
        ..behind("a", ("web", "front"), (By::Tcp, family), &["web-1", "web-2"])
    });
    vec![
        scenario(
            "a container is found by its name",
            [vec![has("a", "b", &[("b", "front")])], named("a", "b", ("b", "front")).into()].concat(),
        ),
        scenario(
            "a name of another network is not known",
            [none("a", "y"), none("x", "b"), none("x", "web"), none("v", "a"), none("a", "api")],
        ),
        scenario(
            "a container of two networks is found on each by its address there",
            [has("a", "g", &[("g", "front")]), has("x", "g", &[("g", "back")])],
        ),
        scenario(
            "a service of mode dnsrr is all its containers' addresses",
            [
                vec![has("a", "rr", &[("rr-1", "front"), ("rr-2", "front")])],
                both("a", "rr-1", "front"),
                both("a", "rr-2", "front"),
            ]
            .concat(),
        ),
        scenario("a service is found by its name, and answers there", behind_its_name),
    ]
}

fn sizes() -> Vec<Scenario> {
    let whole = |to, size| {
        FAMILIES.map(|family| {
            let expected = if size <= MTU { Outcome::Pong } else { Outcome::Unanswered };
            ask("a", By::Whole(size), To::At(to, "front", family), expected)
        })
    };
    vec![
        scenario("a packet that fills a network's MTU passes", [whole("b", MTU), whole("c", MTU)].concat()),
        scenario(
            "a packet that is one byte longer, and not to be taken apart, does not",
            [whole("b", MTU + 1), whole("c", MTU + 1)].concat(),
        ),
    ]
}

fn special() -> Vec<Scenario> {
    let encrypted = scenario("an encrypted network carries all of it", both("s", "t", "secret"));
    let by = Outcome::answered("shop-1", CLIENT);
    let published = (0..2).map(|node| ask(OUTSIDE, By::Tcp, To::Node(node), by.clone()));
    let published = scenario("a published port is reached at any node from outside", published);
    vec![Scenario { needs: Some(Need::Encryption), ..encrypted }, Scenario { needs: Some(Need::Outside), ..published }]
}

fn changes() -> Vec<Scenario> {
    let after = |name, change, asks: Vec<Ask>| Scenario { change: Some(change), ..scenario(name, asks) };
    let web = |by, who: &'static [&'static str]| {
        FAMILIES.map(|family| behind("a", ("web", "front"), (by, family), who)).to_vec()
    };
    let rr = |of: &[&str]| {
        let addresses = of.iter().flat_map(|who| FAMILIES.map(|family| seen_as(who, "front", family)));
        ask("a", By::Name, To::Named("rr", IpFamily::V4), Outcome::Has(addresses.collect()))
    };
    let unknown = |name| ask("a", By::Name, To::Named(name, IpFamily::V4), Outcome::NoName);
    let refused = FAMILIES.map(|family| ask("a", By::Tcp, To::Vip("web", "front", family), Outcome::Refused));
    vec![
        after(
            "a replica that drains gets no new work and has no name, and answers who knows its address",
            Change::Drains("web-1"),
            [web(By::Tcp, &["web-2"]), web(By::Udp, &["web-2"]), both("a", "web-1", "front"), vec![unknown("web-1")]]
                .concat(),
        ),
        after("a replica that is well again gets its share", Change::Heals("web-1"), web(By::Tcp, &["web-1", "web-2"])),
        after(
            "what is on a node that is cut off is not reached, and a VIP leads to what is left",
            Change::Cuts(2),
            [silent("a", "g", "front"), web(By::Tcp, &["web-1"])].concat(),
        ),
        after(
            "what is on a node that is back is reached, and has its share",
            Change::Mends(2),
            [both("a", "g", "front"), both("g", "y", "back"), web(By::Tcp, &["web-1", "web-2"])].concat(),
        ),
        after("a container that drains is not named for its service", Change::Drains("rr-1"), vec![rr(&["rr-2"])]),
        after(
            "a replica that departed gets nothing, is not reached and has no name",
            Change::Departs("web-2"),
            [web(By::Tcp, &["web-1"]), silent("a", "web-2", "front"), vec![unknown("web-2")]].concat(),
        ),
        after("without its last replica a VIP refuses", Change::Departs("web-1"), refused.into()),
        after(
            "a container that departed is not reached and has no name",
            Change::Departs("c"),
            [silent("a", "c", "front"), vec![unknown("c")]].concat(),
        ),
        after("a container that comes reaches others and is reached", Change::Comes("d"), both("a", "d", "front")),
    ]
}

fn ask(from: &'static str, by: By, to: To, expected: Outcome) -> Ask {
    Ask { from, by, to, times: 1, expected }
}

/// Each asks the other in every way, and sees it by its own address.
fn both(one: &'static str, other: &'static str, network: &'static str) -> Vec<Ask> {
    let ways = [(one, other), (other, one)];
    let all = ways.into_iter().flat_map(|ends| FAMILIES.into_iter().map(move |family| (ends, family)));
    all.flat_map(|((from, to), family)| {
        PACKETS.map(|by| {
            let expected = match by {
                By::Udp | By::Tcp => Outcome::answered(to, seen_as(from, network, family)),
                _ => Outcome::Pong,
            };
            ask(from, by, To::At(to, network, family), expected)
        })
    })
    .collect()
}

/// Nothing comes back, whatever is asked.
fn silent(from: &'static str, to: &'static str, network: &'static str) -> Vec<Ask> {
    let all = FAMILIES.into_iter().flat_map(|family| PACKETS.map(|by| (family, by)));
    all.map(|(family, by)| ask(from, by, To::At(to, network, family), Outcome::Unanswered)).collect()
}

/// A service's VIP is asked so often that all who may answer do, and no other.
fn behind(
    from: &'static str,
    (service, network): (&'static str, &'static str),
    (by, family): (By, IpFamily),
    who: &[&str],
) -> Ask {
    let by_whom = who.iter().map(|name| (*name).to_owned()).collect();
    let expected = Outcome::Answered { by: by_whom, seen: [seen_as(from, network, family)].into() };
    Ask { from, by, to: To::Vip(service, network, family), times: OFTEN, expected }
}
