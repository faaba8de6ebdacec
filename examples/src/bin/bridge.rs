//! overlay-kernel alone: a bridge and a container behind it, as a value that the kernel holds.
//!
//! `cargo run --bin bridge`, as root or as an ordinary user, who gets a private world for it. All is in namespaces of its
//! own, and goes with them.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use overlay_core::{Mac, Mtu, Owner, Shadow, Table as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::{BridgePort, Dev, Kind, Link, Links, State, Step};

fn main() -> Result<(), Box<dyn Error>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        overlay_kernel::enter_private()?; // before there is any thread
    }
    let (home, container) = (Namespace::create()?, Namespace::create()?);
    let web = container.key("web".parse()?);

    let (bridge, near) = (Dev::home("br0".parse()?), Dev::home("p-web".parse()?));
    let far = Dev::far(web.clone(), "eth0".parse()?);
    let link = |kind, last| Link::new(kind, Mtu::ETHERNET, Mac::new([2, 0, 0, 0, 0, last]));
    let mut wanted = State::default();
    wanted.links.insert(bridge.clone(), link(Kind::Bridge { multicast_snooping: false }, 1));
    let port = link(Kind::Veth { peer: far.clone() }, 2).on_bridge(BridgePort::new(bridge.name));
    wanted.links.insert(near.clone(), port);
    wanted.links.insert(far.clone(), link(Kind::Veth { peer: near.clone() }, 3));
    wanted.addresses.insert((bridge, [10, 0, 9, 1].into()), 24);
    wanted.addresses.insert((far, [10, 0, 9, 2].into()), 24);

    let owner = Owner::new("example".parse()?, "node-1".parse()?);
    let mut links = Shadow::new(Links::open(&owner, home.try_clone()?)?);
    links.inner_mut().reach(web, container.try_clone()?)?;
    print!("the dry run:\n{}", links.plan(&wanted)?);
    reconcile(&mut links, &wanted)?;

    let server = container.listen("10.0.9.2:80".parse()?)?;
    home.connect("10.0.9.2:80".parse()?, std::time::Duration::from_secs(5))?;
    println!("\nconnected from the bridge to {}", server.local_addr()?);

    // Another program of ours, which has forgotten everything, takes the pair away.
    let mut other = Links::open(&owner, home)?;
    overlay_core::Backend::apply(&mut other, &[Step::RemoveLink(near)])?;
    print!("\nrepair:\n{}", reconcile(&mut links, &wanted)?);
    println!("\nonce more: {} steps", reconcile(&mut links, &wanted)?.len());
    Ok(())
}
