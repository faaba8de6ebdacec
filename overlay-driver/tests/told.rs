//! What a driver tells by `tracing`: names and fields that others' dashboards are made of.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overlay_core::{MemoryStore, NetworkId, NodeId, Prefix, Store, UnixTime};
use overlay_driver::{Attach, Driver, DriverEvent, MemoryGround, Source};
use overlay_node::{Control, Feed, Manager, NetworkSpec};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Remembers the events of `overlay_driver`, each with its level and fields.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Heard>>>);

#[derive(Debug, Clone, Default)]
struct Heard {
    level: Option<Level>,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "overlay_driver"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut heard = Heard { level: Some(*event.metadata().level()), ..Heard::default() };
        event.record(&mut heard);
        self.0.lock().unwrap().push(heard);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
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
    driver.attach(web).await.unwrap();
    let changed = async {
        loop {
            match events.recv().await.unwrap() {
                DriverEvent::Changed { place, steps } if place.starts_with("network") => break (place, steps),
                _ => {}
            }
        }
    };
    let (place, steps) = tokio::time::timeout(Duration::from_secs(30), changed).await.unwrap();
    driver.stop().await;
    std::fs::remove_dir_all(dir).unwrap();

    let heard = ear.0.lock().unwrap().clone();
    assert!(heard.iter().all(|it| it.fields["node"] == node.to_string() && it.fields.contains_key("message")));
    let of_place = |it: &&Heard| it.fields["kind"] == "changed" && it.fields.get("place") == Some(&place);
    let it = heard.iter().find(of_place).unwrap();
    assert_eq!((it.level, &it.fields["steps"]), (Some(Level::DEBUG), &steps.lines().count().to_string()));
}
