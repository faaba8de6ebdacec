//! What a driver tells by `tracing`: names and fields that others' dashboards are made of.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overlay_core::{EndpointId, MemoryStore, NetworkId, NodeId, Prefix, Store, UnixTime};
use overlay_driver::control::{ControlClient, ControlServer};
use overlay_driver::{Attach, Driver, DriverEvent, MemoryGround, Source};
use overlay_node::{Control, Encryption, Feed, Manager, NetworkSpec};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Remembers the events and spans of `overlay_driver`, each with its level and fields.
#[derive(Clone, Default)]
struct Ear {
    events: Arc<Mutex<Vec<Heard>>>,
    /// In the order they began: a span's id is its place, from 1.
    spans: Arc<Mutex<Vec<Heard>>>,
}

#[derive(Debug, Clone, Default)]
struct Heard {
    level: Option<Level>,
    /// Of a span.
    name: &'static str,
    /// Of a span, and whether it was closed.
    parent: Option<u64>,
    is_over: bool,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name(), value.to_string());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "overlay_driver"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let level = Some(*span.metadata().level());
        let parent = span.parent().map(Id::into_u64);
        let mut heard = Heard { level, name: span.metadata().name(), parent, ..Heard::default() };
        // Fields that are told later are there from the beginning.
        span.metadata().fields().iter().for_each(|field| drop(heard.fields.insert(field.name(), String::new())));
        span.record(&mut heard);
        let mut spans = self.spans.lock().unwrap();
        spans.push(heard);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut self.spans.lock().unwrap()[span.into_u64() as usize - 1]);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut heard = Heard { level: Some(*event.metadata().level()), ..Heard::default() };
        event.record(&mut heard);
        self.events.lock().unwrap().push(heard);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn try_close(&self, span: Id) -> bool {
        self.spans.lock().unwrap()[span.into_u64() as usize - 1].is_over = true; // no span is cloned here by two
        true
    }
}

impl Ear {
    /// An attachment, a detachment and the rounds between them have the names, levels, parents and fields of the crate's page.
    #[track_caller]
    fn holds_the_spans_of(&self, node: NodeId, endpoint: EndpointId) {
        let spans = self.spans.lock().unwrap().clone();
        let (node, endpoint) = (node.to_string(), endpoint.to_string());
        let one = |name: &str| spans.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("no span {name}"));
        let fields = |it: &Heard| it.fields.keys().copied().collect::<Vec<_>>();
        let [attach, detach, round, plan, phase] = ["attach", "detach", "round", "plan", "phase"].map(one);
        assert_eq!((attach.level, detach.level), (Some(Level::INFO), Some(Level::INFO)));
        assert_eq!(fields(attach), ["container", "endpoint", "network", "node"]);
        assert_eq!((&attach.fields["container"], &attach.fields["network"]), (&"web".to_owned(), &"front".to_owned()));
        assert_eq!((&attach.fields["endpoint"], &attach.fields["node"]), (&endpoint, &node));
        assert_eq!((&detach.fields["endpoint"], fields(detach)), (&endpoint, vec!["endpoint", "node"]));
        assert_eq!((round.level, fields(round)), (Some(Level::DEBUG), vec!["node", "places"]));
        assert_eq!((fields(plan), fields(phase)), (vec!["place", "steps"], vec!["phase", "place"]));
        for child in spans.iter().filter(|it| ["plan", "phase"].contains(&it.name)) {
            assert_eq!(child.level, Some(Level::DEBUG));
            let parent = child.parent.and_then(|id| spans.get(id as usize - 1));
            assert_eq!(parent.map(|it| it.name), Some("round"));
        }
        let phases = ["guard", "build", "open", "close", "dismantle", "unguard"];
        assert!(spans.iter().filter(|it| it.name == "phase").all(|it| phases.contains(&&*it.fields["phase"])));
        assert!(
            spans.iter().any(|it| it.name == "plan" && it.fields["steps"].parse().is_ok_and(|steps: u64| steps > 0))
        );
        assert!(attach.is_over && detach.is_over && round.is_over);
    }
}

#[tokio::test]
async fn what_is_told_to_who_listens_is_told_to_tracing_with_fixed_fields() {
    let ear = Ear::default();
    let _guard = tracing::subscriber::set_default(ear.clone());
    let dir = std::env::temp_dir().join(format!("overlay-driver-told-{}", std::process::id()));
    let (store, root): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), Prefix::new("test/").unwrap());
    let node = NodeId::from_bytes([1; 16]);
    let manager = Arc::new(Manager::new(Arc::clone(&store), &root, node, [7; 32]).unwrap());
    let front = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
    manager.create_network(NetworkId::from_bytes([2; 16]), front, UnixTime::EPOCH).await.unwrap();
    let catalogue = Feed::new(store, &root).unwrap();
    let driver = Driver::builder(node, MemoryGround::default(), manager, catalogue).dir(&dir);
    let driver = driver.gossip("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    let mut events = driver.events();

    let web = Attach::new("web".parse().unwrap(), Source::Path("/run/netns/web".into()), "front");
    let attached = driver.attach(web).await.unwrap();
    let changed = async {
        loop {
            match events.recv().await.unwrap() {
                DriverEvent::Changed { place, steps } if place.starts_with("network") => break (place, steps),
                _ => {}
            }
        }
    };
    let (place, steps) = tokio::time::timeout(Duration::from_secs(30), changed).await.unwrap();
    let metrics = driver.metrics().await.unwrap();
    driver.detach(attached.endpoint.id).await.unwrap();
    driver.stop().await;
    std::fs::remove_dir_all(dir).unwrap();

    assert!(metrics.places.rounds > 0 && metrics.places.steps >= metrics.places.changed, "{metrics:?}");
    assert!(metrics.places.changed >= 2 && metrics.agent.local == 1 && metrics.places.wanted >= 2, "{metrics:?}");
    ear.holds_the_spans_of(node, attached.endpoint.id);

    let heard = ear.events.lock().unwrap().clone();
    assert!(heard.iter().all(|it| it.fields["node"] == node.to_string() && it.fields.contains_key("message")));
    let of_place = |it: &&Heard| it.fields["kind"] == "changed" && it.fields.get("place") == Some(&place);
    let it = heard.iter().find(of_place).unwrap();
    assert_eq!((it.level, &it.fields["steps"]), (Some(Level::DEBUG), &steps.lines().count().to_string()));
}

#[tokio::test]
async fn calls_and_changes_of_keys_are_spans_from_their_beginning_to_their_end() {
    let ear = Ear::default();
    let _guard = tracing::subscriber::set_default(ear.clone());
    let dir = std::env::temp_dir().join(format!("overlay-driver-told-calls-{}", std::process::id()));
    let (store, root): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), Prefix::new("test/").unwrap());
    let node = NodeId::from_bytes([1; 16]);
    let manager = Arc::new(Manager::new(Arc::clone(&store), &root, node, [7; 32]).unwrap());
    let front = NetworkSpec::overlay("front".parse().unwrap());
    let front = NetworkSpec { attachable: true, encryption: Encryption::Shared, ..front };
    manager.create_network(NetworkId::from_bytes([2; 16]), front, UnixTime::EPOCH).await.unwrap();
    let catalogue = Feed::new(store, &root).unwrap();
    let driver = Driver::builder(node, MemoryGround::default(), manager.clone(), catalogue).dir(&dir);
    let driver = driver.gossip("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    let web = Attach::new("web".parse().unwrap(), Source::Path("/run/netns/web".into()), "front");
    driver.attach(web).await.unwrap();

    driver.rotate_keys().await.unwrap();
    let is_over = || ear.spans.lock().unwrap().iter().any(|it| it.name == "rotation" && it.is_over);
    let over = async {
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), over).await.unwrap();
    let serving = ControlServer::new(manager).bind(dir.join("control.sock")).await.unwrap();
    ControlClient::new(serving.path()).networks().await.unwrap();
    serving.stop().await;
    driver.stop().await;
    std::fs::remove_dir_all(dir).unwrap();

    let spans = ear.spans.lock().unwrap().clone();
    let one = |name: &str| spans.iter().find(|it| it.name == name).unwrap();
    let rotation = one("rotation");
    assert_eq!(rotation.level, Some(Level::INFO));
    assert_eq!(rotation.fields.keys().copied().collect::<Vec<_>>(), ["cause", "epoch", "node"]);
    assert!(rotation.fields["epoch"].parse::<u64>().is_ok() && !rotation.fields["cause"].is_empty(), "{rotation:?}");
    let call = one("call");
    assert_eq!((call.level, call.is_over), (Some(Level::DEBUG), true));
    assert_eq!(call.fields["call"], "read networks");
    assert!(call.fields["caller"].starts_with("user ") && call.fields.len() == 2, "{call:?}");
}
