//! The walk-through.

use overlay_core::testing::{Kernel, kernel_test};

use crate::world::{World, attachable};

#[test]
fn containers_on_two_hosts_reach_each_other_by_name() {
    kernel_test(Kernel::Host, "driver::containers_on_two_hosts_reach_each_other_by_name", || {
        let world = World::new(3);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        let (db, attached) = world.run(1, "db", "front");
        let took = world.until(std::time::Duration::from_secs(5), |world| world.reaches(&web, "db"));
        println!("db is reached {took:?} after it was attached: {:?}", attached.endpoint.addresses);
        assert!(world.reaches(&db, "web") && world.reaches(&db, "web.front"));
        assert!(world.status(2).places.is_empty(), "{:?}", world.status(2));
        world.wait(world.driver(1).detach(attached.endpoint.id)).unwrap();
        world.until(std::time::Duration::from_secs(5), |world| !world.reaches(&web, "db"));
        assert!(world.status(1).places.is_empty(), "{:?}", world.status(1));
    });
}
