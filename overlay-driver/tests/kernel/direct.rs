//! A container whose kernel has no nf_tables.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{BackendError, ErrorKind, Phase, Plan, ReconcileError, Table};
use overlay_driver::testing::{Altered, node};
use overlay_driver::{Attach, Driver, KernelPlaces};
use overlay_kernel::testing::judge;
use overlay_node::{Control, Feed, Place, PlaceTables};

use crate::world::{World, attachable};

const SOON: Duration = Duration::from_secs(15);

/// Of a container's kernel without nf_tables.
struct NoTables;

impl Table<overlay_firewall::State> for NoTables {
    fn plan(&mut self, _: &overlay_firewall::State) -> Result<Plan, ReconcileError> {
        Err(ReconcileError::Observe(BackendError::new(ErrorKind::Unsupported, "read tables")))
    }

    fn run(&mut self, _: &Plan, _: Phase) -> Result<(), ReconcileError> {
        panic!("nothing was planned");
    }
}

/// The kernel's places, but that containers have no nf_tables.
fn untabled(places: KernelPlaces) -> Altered<KernelPlaces> {
    Altered::new(places).with_tables(|place, tables| match place {
        Place::Container(_) => PlaceTables { firewall: Box::new(NoTables), ..tables },
        _ => tables,
    })
}

fn start(world: &World) -> Driver {
    let (store, root) = world.hosts().catalogue().unwrap();
    let manager: Arc<dyn Control> = world.hosts().manager.clone();
    let ground = untabled(world.hosts().places(0).unwrap());
    let builder = Driver::builder(node(0), ground, manager, Feed::new(store, &root).unwrap())
        .name("host-1".parse().unwrap())
        .gossip((world.hosts().lab.address(0), 7946).into())
        .gossip_keys([world.hosts().gossip_key()])
        .dir(world.hosts().lab.dir(0));
    let driver = world.wait(builder.start()).unwrap();
    world.wait(driver.join([(world.hosts().lab.address(1), 7946).into()])).unwrap();
    driver
}

#[test]
fn a_container_whose_kernel_has_no_tables_asks_its_resolver_itself_at_port_53() {
    kernel_test(Kernel::Host, "driver::a_container_whose_kernel_has_no_tables", || {
        let mut world = World::new(2);
        world.network(attachable("front"));
        world.run(1, "db", "front");
        let stopped = world.hosts_mut().take(0).unwrap();
        world.wait(stopped.stop());

        let driver = start(&world);
        let web = world.hosts().lab.container("web").unwrap();
        let attach = Attach::new(web.name.clone(), web.source.clone(), "front");
        let attached = world.wait(driver.attach(attach)).unwrap();
        world.until(SOON, |world| world.reaches(&web, "db"));
        let listens = || judge(&web.namespace, "ss", &["-Hlun"]).contains("127.0.0.11:53 ");
        assert!(listens() && judge(&web.namespace, "nft", &["list ruleset"]).is_empty());

        world.wait(driver.stop());
        let driver = start(&world);
        world.until(SOON, |world| listens() && world.reaches(&web, "db"));
        world.wait(driver.detach(attached.endpoint.id)).unwrap();
        world.until(SOON, |_| !listens());
        world.wait(driver.tear_down()).unwrap();
    });
}
