//! A container whose kernel has no nf_tables.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{BackendError, ErrorKind, IfName, Name, NsKey, Phase, Plan, ReconcileError, Table};
use overlay_dns::Listen;
use overlay_driver::testing::node;
use overlay_driver::{Attach, Driver, Ground, KernelPlaces, Source};
use overlay_kernel::Namespace;
use overlay_kernel::netlink::Notices;
use overlay_kernel::testing::judge;
use overlay_node::{Control, Feed, Place, PlaceTables, Places};

use crate::world::{World, attachable};

const SOON: Duration = Duration::from_secs(15);

/// The kernel's places, but that containers have no nf_tables.
#[derive(Debug, Clone)]
struct Untabled(KernelPlaces);

struct NoTables;

impl Table<overlay_firewall::State> for NoTables {
    fn plan(&mut self, _: &overlay_firewall::State) -> Result<Plan, ReconcileError> {
        Err(ReconcileError::Observe(BackendError::new(ErrorKind::Unsupported, "read tables")))
    }

    fn run(&mut self, _: &Plan, _: Phase) -> Result<(), ReconcileError> {
        panic!("nothing was planned");
    }
}

impl Places for Untabled {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        let tables = self.0.open(place)?;
        match place {
            Place::Container(_) => Ok(PlaceTables { firewall: Box::new(NoTables), ..tables }),
            _ => Ok(tables),
        }
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.0.close(place)
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        self.0.list()
    }
}

impl Ground for Untabled {
    fn host(&self) -> Option<Arc<Namespace>> {
        self.0.host()
    }

    fn enter(&mut self, container: &Name, source: &Source) -> Result<Option<NsKey>, BackendError> {
        self.0.enter(container, source)
    }

    fn leave(&mut self, container: &Name) {
        self.0.leave(container);
    }

    fn is_there(&self, source: &Source, key: &NsKey) -> bool {
        self.0.is_there(source, key)
    }

    fn interfaces(&mut self, container: &Name) -> Result<BTreeSet<IfName>, BackendError> {
        self.0.interfaces(container)
    }

    fn listen(&mut self, place: &Place, at: &[SocketAddr]) -> Result<Listen, BackendError> {
        self.0.listen(place, at)
    }

    fn hints(&mut self, place: &Place) -> Result<Vec<Notices>, BackendError> {
        self.0.hints(place)
    }
}

fn start(world: &World) -> Driver {
    let (store, root) = world.hosts().catalogue().unwrap();
    let manager: Arc<dyn Control> = world.hosts().manager.clone();
    let ground = Untabled(world.hosts().places(0).unwrap());
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
