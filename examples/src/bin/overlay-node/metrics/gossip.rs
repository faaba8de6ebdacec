//! What is told of gossip.

use overlay_examples::exposition::{Kind, Page};
use overlay_gossip::{MembershipMetrics, RefusedMetrics, TablesMetrics, Traffic};
use overlay_node::AgentMetrics;

use super::families::plain;

pub(super) fn all(page: &mut Page, it: &AgentMetrics) {
    let gossip = &it.gossip;
    membership(page, &gossip.membership);
    traffic(page, [("sent", &gossip.sent), ("received", &gossip.received)]);
    plain(
        page,
        Kind::Counter,
        &[
            (
                "overlay_gossip_refused_total",
                "Messages not read: in this node's name, or beyond their senders' rate.",
                gossip.refused,
            ),
            ("overlay_gossip_malformed_total", "Payloads that were no messages.", gossip.malformed),
            ("overlay_gossip_unroutable_total", "Messages for nodes that are not known any more.", gossip.unroutable),
            (
                "overlay_gossip_unopened_total",
                "Messages that nobody sealed who has a key of this cluster's gossip.",
                it.unopened,
            ),
        ],
    );
    plain(
        page,
        Kind::Gauge,
        &[("overlay_gossip_waiting_messages", "Messages that wait to be sent.", gossip.transmits as u64)],
    );
    tables(page, &gossip.tables);
    refused(page, &gossip.tables.refused);
}

fn membership(page: &mut Page, it: &MembershipMetrics) {
    let standings = [("alive", it.alive), ("suspected", it.suspected), ("suspended", it.suspended), ("left", it.left)];
    let standings = standings.map(|(standing, n)| ([("standing", standing)], n as f64));
    page.family(Kind::Gauge, "overlay_gossip_members", "Other members, by what is believed of them.", standings);
    plain(
        page,
        Kind::Gauge,
        &[
            ("overlay_gossip_health_score", "How slow this node is believed to be: 0 is well.", it.health.into()),
            ("overlay_gossip_news", "Pieces of news of members that are still being told.", it.news as u64),
            ("overlay_gossip_probes_under_way", "Probes under way.", it.probes as u64),
            ("overlay_gossip_claims", "Words of members that cannot be verified yet.", it.claims as u64),
        ],
    );
    plain(
        page,
        Kind::Counter,
        &[
            ("overlay_gossip_probes_total", "Probes begun.", it.probes_begun),
            ("overlay_gossip_probes_failed_total", "Probes without an answer.", it.probes_failed),
            ("overlay_gossip_suspicions_total", "Suspicions heard of or raised.", it.suspicions),
            ("overlay_gossip_accusations_total", "Suspicions that this node raised or confirmed.", it.accusations),
            (
                "overlay_gossip_refutations_total",
                "Times that this node objected to what was said of it.",
                it.refutations,
            ),
            ("overlay_gossip_declared_total", "Members that this node's own clock suspended.", it.declared),
            (
                "overlay_gossip_digest_mismatches_total",
                "Digests of members that differed from one's own.",
                it.digest_mismatches,
            ),
            ("overlay_gossip_syncs_total", "Comparisons of members begun.", it.syncs),
            ("overlay_gossip_calls_total", "Calls to seeds and suspended members.", it.calls),
            ("overlay_gossip_late_total", "Deadlines served late.", it.late),
            ("overlay_gossip_refused_full_total", "Newcomers refused since the list was full.", it.refused_full),
            ("overlay_gossip_forged_leaves_total", "Goodbyes that were never said.", it.forged_leaves),
            ("overlay_gossip_forged_words_total", "Words of members on themselves that others said.", it.forged),
            ("overlay_gossip_unsigned_words_total", "Such words that nobody signed.", it.unsigned),
            ("overlay_gossip_unverified_words_total", "Such words not looked at, after forged ones.", it.unverified),
            ("overlay_gossip_proofs_asked_total", "Times it was asked what a member has shown.", it.proofs_asked),
            ("overlay_gossip_stray_total", "Messages that were not for this node, or answered nothing.", it.stray),
        ],
    );
}

fn traffic(page: &mut Page, both: [(&str, &Traffic); 2]) {
    for (way, it) in both {
        let kinds = [
            ("ping", it.pings),
            ("ack", it.acks),
            ("ping_request", it.ping_requests),
            ("nack", it.nacks),
            ("news", it.news),
            ("sync", it.syncs),
            ("proof", it.proofs),
            ("table", it.tables),
            ("foca", it.foca),
        ];
        let name = format!("overlay_gossip_messages_{way}_total");
        let messages = kinds.map(|(kind, it)| ([("kind", kind)], it.messages as f64));
        page.family(Kind::Counter, &name, &format!("Messages {way}, by kind."), messages);
        let name = format!("overlay_gossip_message_bytes_{way}_total");
        let bytes = kinds.map(|(kind, it)| ([("kind", kind)], it.bytes as f64));
        page.family(Kind::Counter, &name, &format!("Bytes of the bodies of messages {way}, by kind."), bytes);
        let name = format!("overlay_gossip_payloads_{way}_total");
        let payloads = [([("by", "udp")], it.datagrams as f64), ([("by", "tcp")], it.streams as f64)];
        page.family(Kind::Counter, &name, &format!("Payloads {way}, each of one message or several."), payloads);
        let name = format!("overlay_gossip_payload_bytes_{way}_total");
        let bytes = [([("by", "udp")], it.datagram_bytes as f64), ([("by", "tcp")], it.stream_bytes as f64)];
        page.family(Kind::Counter, &name, &format!("Their bytes {way}, without seal and headers."), bytes);
    }
}

fn tables(page: &mut Page, it: &TablesMetrics) {
    plain(
        page,
        Kind::Gauge,
        &[
            ("overlay_gossip_table_networks", "Networks subscribed to.", it.networks as u64),
            ("overlay_gossip_table_entries", "Entries in them, tombstones included.", it.entries as u64),
            ("overlay_gossip_table_tombstones", "Of those, tombstones.", it.tombstones as u64),
            ("overlay_gossip_table_bytes", "What they count for.", it.entry_bytes as u64),
            (
                "overlay_gossip_table_watermark_lag_changes",
                "Changes of this node that not all have confirmed, at most.",
                it.watermark_lag,
            ),
            ("overlay_gossip_table_fresh", "Changes that are still being told.", it.fresh as u64),
            ("overlay_gossip_table_pulls", "Requests for entries that wait for an answer.", it.pulls as u64),
            ("overlay_gossip_table_unacted", "What was heard, and waits to be acted upon.", it.unacted as u64),
        ],
    );
    plain(
        page,
        Kind::Counter,
        &[
            ("overlay_gossip_table_made_total", "Changes that this node made.", it.made),
            ("overlay_gossip_table_taken_fresh_total", "Changes of others taken in from news.", it.taken_fresh),
            ("overlay_gossip_table_taken_pulled_total", "Changes of others taken in from answers.", it.taken_pulled),
            ("overlay_gossip_table_stale_total", "Changes seen before.", it.stale),
            ("overlay_gossip_table_comparisons_total", "Comparisons begun.", it.comparisons),
            ("overlay_gossip_table_mismatches_total", "Comparisons by others that found a difference.", it.mismatches),
            ("overlay_gossip_table_chunks_total", "Answers given with entries.", it.chunks),
            (
                "overlay_gossip_table_pulls_lost_total",
                "Requests for entries that were not answered in time.",
                it.pulls_lost,
            ),
            (
                "overlay_gossip_table_fresh_overflow_total",
                "Changes not told as news, as they were too many.",
                it.fresh_overflow,
            ),
            (
                "overlay_gossip_table_repaired_total",
                "Entries that differed from their owner's, and were put right.",
                it.repaired,
            ),
            ("overlay_gossip_table_collected_total", "Tombstones dropped.", it.collected),
        ],
    );
}

fn refused(page: &mut Page, it: &RefusedMetrics) {
    let reasons = [
        ("malformed", it.malformed),
        ("stranger", it.stranger),
        ("foreign_network", it.foreign_network),
        ("own_name", it.own_name),
        ("unknown_owner", it.unknown_owner),
        ("past_incarnation", it.past_incarnation),
        ("not_subscribed", it.not_subscribed),
        ("unsigned", it.unsigned),
        ("unvouched", it.unvouched),
        ("signature", it.signature),
        ("unverified", it.unverified),
        ("full", it.full),
        ("unasked", it.unasked),
        ("confirmation", it.confirmation),
        ("overload", it.overload),
    ];
    let reasons = reasons.map(|(why, n)| ([("reason", why)], n as f64));
    let help = "What others said in tables and was refused, by reason.";
    page.family(Kind::Counter, "overlay_gossip_table_refused_total", help, reasons);
}
