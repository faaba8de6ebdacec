//! What is told, family by family; `docs/METRICS.md` lists it.

use overlay_core::NodeId;
use overlay_driver::packets::CarrierCounts;
use overlay_driver::{DriverMetrics, PlaceMetrics};
use overlay_examples::exposition::{Kind, Page};
use overlay_node::{AgentMetrics, Contested};

use super::gossip;

/// No labels.
pub(super) const PLAIN: [(&str, &str); 0] = [];

/// All of a node.
pub(super) fn page(node: NodeId, metrics: &DriverMetrics) -> String {
    let mut page = Page::default();
    let id = node.to_string();
    let info = [("node", id.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
    page.family(Kind::Gauge, "overlay_node_info", "Which node it is, and of which release: 1.", [(info, 1.0)]);
    places(&mut page, &metrics.places);
    agent(&mut page, &metrics.agent);
    keys(&mut page, &metrics.agent);
    gossip::all(&mut page, &metrics.agent);
    names(&mut page, metrics);
    if let Some(carried) = &metrics.carried {
        packets(&mut page, carried);
    }
    page.finish()
}

/// Families of one value each.
pub(super) fn plain(page: &mut Page, kind: Kind, families: &[(&str, &str, u64)]) {
    for (name, help, value) in families {
        page.family(kind, name, help, [(PLAIN, *value as f64)]);
    }
}

fn places(page: &mut Page, it: &PlaceMetrics) {
    plain(
        page,
        Kind::Gauge,
        &[
            ("overlay_places", "Places that there should be: the host, sandboxes, containers.", it.wanted as u64),
            (
                "overlay_places_lacking",
                "Places that do not hold what they should, as far as is known.",
                it.lacking as u64,
            ),
            (
                "overlay_places_failing",
                "Places that could not be brought to what they should hold, last.",
                it.failing as u64,
            ),
            (
                "overlay_plugs_unreadable",
                "Files of what was plugged in that are damaged: their containers are to be attached again.",
                it.unreadable as u64,
            ),
        ],
    );
    plain(
        page,
        Kind::Counter,
        &[
            ("overlay_rounds_total", "Rounds of bringing places to what they should hold.", it.rounds),
            ("overlay_place_changes_total", "Places changed, once for each round.", it.changed),
            ("overlay_place_steps_total", "Steps planned for these.", it.steps),
            ("overlay_place_failures_total", "Places that failed, once for each round.", it.failures),
            ("overlay_containers_vanished_total", "Endpoints whose containers have ended by themselves.", it.vanished),
        ],
    );
}

fn agent(page: &mut Page, it: &AgentMetrics) {
    plain(
        page,
        Kind::Gauge,
        &[
            ("overlay_nodes", "Nodes known, this one included.", it.nodes as u64),
            ("overlay_networks", "Networks followed.", it.networks as u64),
            (
                "overlay_endpoints_unfit",
                "Endpoints that are left out, whole or in part, as they make no sense.",
                it.unfit as u64,
            ),
        ],
    );
    let endpoints = [([("place", "here")], it.local as f64), ([("place", "elsewhere")], it.remote as f64)];
    page.family(Kind::Gauge, "overlay_endpoints", "Endpoints plugged in here, and known elsewhere.", endpoints);
    let Contested { unknown, here, owner, address, mac, service, names, labels, .. } = it.contested_for;
    let reasons = [
        ("unknown", unknown),
        ("here", here),
        ("owner", owner),
        ("address", address),
        ("mac", mac),
        ("service", service),
        ("names", names),
        ("labels", labels),
    ];
    let help = "Words of nodes on endpoints that do not count, since the catalogue does not say so too.";
    page.family(
        Kind::Gauge,
        "overlay_endpoints_contested",
        help,
        reasons.map(|(why, n)| ([("reason", why)], n as f64)),
    );
    plain(
        page,
        Kind::Counter,
        &[
            (
                "overlay_networks_unfollowed_total",
                "Networks that could not be followed, each time it was tried.",
                it.unfollowed,
            ),
            (
                "overlay_agent_malformed_total",
                "What other nodes say of themselves that could not be read.",
                it.malformed,
            ),
        ],
    );
}

fn keys(page: &mut Page, it: &AgentMetrics) {
    let epoch = it.epoch.map(|epoch| (PLAIN, epoch.get() as f64));
    page.family(Kind::Gauge, "overlay_key_epoch", "The epoch of this node's keys for encrypted networks.", epoch);
    let number = it.gossip_key.map(|key| (PLAIN, key.number as f64));
    page.family(
        Kind::Gauge,
        "overlay_gossip_key_number",
        "The cluster's number of the key that gossip is sealed with.",
        number,
    );
    let both = [("networks", it.rotations), ("gossip", it.gossip_rotations)];
    let begun = both.iter().flat_map(|(keys, it)| {
        let causes = &it.causes;
        let causes = [
            ("demand", causes.demand),
            ("removal", causes.removal),
            ("time", causes.time),
            ("usage", causes.usage),
            ("spent", causes.spent),
        ];
        causes.map(|(cause, n)| ([("keys", *keys), ("cause", cause)], n as f64))
    });
    page.family(Kind::Counter, "overlay_key_rotations_begun_total", "Changes of keys that began, and why.", begun);
    let ended = both.map(|(keys, it)| ([("keys", keys)], it.ended as f64));
    page.family(Kind::Counter, "overlay_key_rotations_ended_total", "Changes of keys that came to their end.", ended);
    let behind = both.map(|(keys, it)| ([("keys", keys)], it.left_behind as f64));
    let help = "Stages of a change in which a node was not waited for any more.";
    page.family(Kind::Counter, "overlay_key_rotations_left_behind_total", help, behind);
}

fn names(page: &mut Page, metrics: &DriverMetrics) {
    let it = &metrics.names;
    plain(page, Kind::Gauge, &[("overlay_dns_resolvers", "Resolvers at work.", metrics.resolvers as u64)]);
    let q = it.queries;
    let types = [("a", q.a), ("aaaa", q.aaaa), ("ptr", q.ptr), ("srv", q.srv), ("txt", q.txt), ("other", q.other)];
    let types = types.map(|(of, n)| ([("type", of)], n as f64));
    page.family(Kind::Counter, "overlay_dns_queries_total", "Questions for names, by the type asked for.", types);
    let r = it.results;
    let results = [
        ("records", r.records),
        ("no_data", r.no_data),
        ("no_name", r.no_name),
        ("cached", r.cached),
        ("stale", r.stale),
        ("forwarded", r.forwarded),
        ("failed", r.failed),
        ("overloaded", r.overloaded),
        ("refused", r.refused),
        ("malformed", r.malformed),
        ("not_implemented", r.not_implemented),
        ("noise", r.noise),
        ("repeated", r.repeated),
    ];
    let results = results.map(|(result, n)| ([("result", result)], n as f64));
    page.family(Kind::Counter, "overlay_dns_results_total", "What came of questions for names.", results);
    let f = it.forwards;
    plain(
        page,
        Kind::Counter,
        &[
            ("overlay_dns_forwards_total", "Queries sent to upstream servers.", f.sent),
            ("overlay_dns_forwards_hedged_total", "Of these, sent as another server was late.", f.hedged),
            ("overlay_dns_forwards_tcp_total", "Of these, sent by TCP.", f.by_tcp),
            ("overlay_dns_coalesced_total", "Questions that joined one under way.", f.coalesced),
            ("overlay_dns_unexpected_total", "Messages that fit no query under way: late, or forged.", f.unexpected),
            ("overlay_dns_lies_total", "Replies to what was not asked.", f.lies),
            ("overlay_dns_cache_evicted_total", "Replies that made room before their time was over.", it.cache.evicted),
        ],
    );
    plain(
        page,
        Kind::Gauge,
        &[
            ("overlay_dns_cache_entries", "Replies kept.", it.cache.entries as u64),
            ("overlay_dns_cache_bytes", "What they take.", it.cache.bytes as u64),
        ],
    );
    upstreams(page, &it.upstreams);
}

/// As many as the host's `resolv.conf` names.
fn upstreams(page: &mut Page, upstreams: &[overlay_dns::UpstreamMetrics]) {
    let named: Vec<_> = upstreams.iter().map(|it| (it.address.to_string(), it)).collect();
    let each = |value: fn(&overlay_dns::UpstreamMetrics) -> f64| {
        named.iter().map(move |(at, it)| ([("server", at.as_str())], value(it)))
    };
    let name = "overlay_dns_upstream_queries_total";
    page.family(Kind::Counter, name, "Queries sent to this upstream server.", each(|it| it.sent as f64));
    let name = "overlay_dns_upstream_answers_total";
    page.family(Kind::Counter, name, "Answers of this server that could be used.", each(|it| it.answered as f64));
    let name = "overlay_dns_upstream_silent_queries";
    page.family(Kind::Gauge, name, "Queries without an answer since its last.", each(|it| f64::from(it.silent)));
    let measured = named.iter().filter_map(|(at, it)| Some(([("server", at.as_str())], it.rtt?.as_secs_f64())));
    let name = "overlay_dns_upstream_round_trip_seconds";
    page.family(Kind::Gauge, name, "Its smoothed round-trip time, the longest of any resolver's.", measured);
}

fn packets(page: &mut Page, it: &CarrierCounts) {
    let data = &it.datapath;
    let sent = [([("to", "underlay")], data.underlay as f64), ([("to", "port")], data.ports as f64)];
    page.family(Kind::Counter, "overlay_packets_total", "Packets carried in user space, by where they went.", sent);
    let name = "overlay_packets_dropped_total";
    let dropped = overlay_datapath::Reason::ALL.map(|why| ([("reason", why.name())], data.dropped(why) as f64));
    page.family(Kind::Counter, name, "Packets that went no further, and why.", dropped);
    plain(
        page,
        Kind::Counter,
        &[
            ("overlay_packets_sealed_total", "Of those to the underlay, sealed ones.", data.sealed),
            ("overlay_packets_answered_total", "Of those to ports, answers to their own.", data.answers),
            ("overlay_packets_copied_total", "Frames copied to several.", data.copied),
            ("overlay_packets_flows_displaced_total", "Flows that gave way to others under a policy.", data.displaced),
            ("overlay_carrier_wakes_total", "Times that a thread of the carrier had something to do.", it.wakes),
            (
                "overlay_carrier_frames_read_total",
                "Frames read from taps, each of one packet or several.",
                it.frames_read,
            ),
            ("overlay_carrier_frames_written_total", "Frames written to taps.", it.frames_written),
            ("overlay_carrier_frames_malformed_total", "Frames of taps that were not what they said.", it.malformed),
            ("overlay_carrier_packets_too_long_total", "Packets longer than the carrier takes.", it.too_long),
            ("overlay_carrier_sends_total", "Sends to the underlay, each of one datagram or several.", it.sends),
            ("overlay_carrier_datagrams_unsent_total", "Datagrams that the kernel did not send.", it.unsent),
            ("overlay_carrier_frames_unwritten_total", "Frames that a tap did not take.", it.unwritten),
            ("overlay_carrier_taps_lost_total", "Taps let go as they could be read no more.", it.taps_lost),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page of a node has that carries packets itself, has keys of both sorts, and an upstream server that has answered.
    fn full() -> String {
        let mut page = Page::default();
        let upstream = "upstream";
        let text = super::page(NodeId::from_bytes([7; 16]), &DriverMetrics::default());
        packets(&mut page, &CarrierCounts::default());
        for (name, help) in [
            ("overlay_key_epoch", "The epoch of this node's keys for encrypted networks."),
            ("overlay_gossip_key_number", "The cluster's number of the key that gossip is sealed with."),
            ("overlay_dns_upstream_silent_queries", "Queries without an answer since its last."),
            ("overlay_dns_upstream_round_trip_seconds", "Its smoothed round-trip time, the longest of any resolver's."),
        ] {
            let server = [("server", upstream)];
            page.family(Kind::Gauge, name, help, [(&server[..usize::from(name.contains(upstream))], 0.0)]);
        }
        for (name, help) in [
            ("overlay_dns_upstream_queries_total", "Queries sent to this upstream server."),
            ("overlay_dns_upstream_answers_total", "Answers of this server that could be used."),
        ] {
            page.family(Kind::Counter, name, help, [([("server", upstream)], 0.0)]);
        }
        text + &page.finish()
    }

    /// The rows of the table that a page makes: name, kind, labels, meaning.
    fn rows(page: &str) -> Vec<String> {
        let mut rows: Vec<(String, String, String)> = Vec::new(); // name, help, kind and labels
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                rows.push((name.to_owned(), help.to_owned(), String::new()));
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                rows.last_mut().unwrap().2 = format!("{} | ", kind.split_once(' ').unwrap().1);
            } else if rows.last().unwrap().2.ends_with("| ") {
                let inner = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |it| it.0);
                let labels = inner.split(',').filter_map(|it| it.split_once('=')).map(|it| format!("`{}`", it.0));
                let labels: Vec<_> = labels.collect();
                rows.last_mut().unwrap().2 += &labels.join(" ");
            }
        }
        let mut rows: Vec<_> =
            rows.iter().map(|(name, help, what)| format!("| `{name}` | {what} | {help} |")).collect();
        rows.sort();
        rows
    }

    #[test]
    fn the_list_in_docs_is_what_a_node_tells() {
        let listed = include_str!("../../../../../docs/METRICS.md").lines();
        let listed: Vec<&str> = listed.filter(|line| line.starts_with("| `overlay_")).collect();
        let told = rows(&full());
        assert!(listed == told, "docs/METRICS.md is to have these rows:\n{}", told.join("\n"));
    }
}
