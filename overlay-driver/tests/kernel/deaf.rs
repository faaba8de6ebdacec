//! A node that starts again while nobody can tell it what it should hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::Driver;
use overlay_driver::control::{Follow, FollowError};
use overlay_driver::testing::node;
use overlay_node::{CatalogueChange, Control};

use crate::world::{World, attachable, pings};

/// A catalogue that is never heard.
#[derive(Debug)]
struct Mute;

#[async_trait]
impl Follow for Mute {
    async fn next(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        std::future::pending().await
    }

    fn unreadable(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

#[test]
fn a_node_that_starts_again_without_its_catalogue_takes_nothing_away() {
    kernel_test(Kernel::Host, "driver::a_node_without_its_catalogue_takes_nothing_away", || {
        let mut world = World::new(2);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        let (_cache, attached) = world.run(0, "cache", "front");
        world.until(Duration::from_secs(15), |world| world.reaches(&web, "cache"));
        let address = attached.endpoint.addresses.first().unwrap().addr();
        let stopped = world.hosts_mut().take(0).unwrap();
        world.wait(stopped.stop());

        let manager: Arc<dyn Control> = world.hosts().manager.clone();
        let builder = Driver::builder(node(0), world.hosts().places(0).unwrap(), manager, Mute)
            .name("host-1".parse().unwrap())
            .gossip((world.hosts().lab.address(0), 7946).into())
            .gossip_keys([world.hosts().gossip_key()])
            .dir(world.hosts().lab.dir(0));
        let deaf = world.wait(builder.start()).unwrap();
        world.wait(deaf.join([(world.hosts().lab.address(1), 7946).into()])).unwrap();
        std::thread::sleep(Duration::from_secs(5)); // longer than it leaves alone what it found
        assert!(pings(&web, address), "{:#?}", world.wait(deaf.status()).unwrap());
        world.wait(deaf.stop());
        world.start(0);
        world.until(Duration::from_secs(15), |world| world.reaches(&web, "cache"));
    });
}
