//! What the proxy does, on two hosts of namespaces: containers come, drain, fall ill and die under load.

mod load;
mod replica;
mod world;

use overlay_dns::Health;

use crate::Outcome;
use load::{Ask, Load};
use world::World;

/// Whether all checks hold.
pub(crate) fn run() -> Outcome<bool> {
    // Before there is any thread. Where root may not have a private world it does without.
    if let Err(error) = overlay_kernel::enter_private()
        && !world::is_root()
    {
        return Err(format!("this machine's kernel does not let us: {}", overlay_core::told(&error)).into());
    }
    let mut world = World::build()?;
    let done = walk(&mut world);
    let good = world.end()?;
    done?;
    Ok(good)
}

fn walk(world: &mut World) -> Outcome {
    routes(world)?;
    replace(world)?;
    ill(world)?;
    dead(world)
}

/// By host and path, and in turn.
fn routes(world: &mut World) -> Outcome {
    let web = world.ask("GET", "shop.example", "/");
    world.until(web, &["web-1", "web-2"])?;
    let api = world.ask("GET", "shop.example", "/api/v1");
    world.until(api, &["api-1"])?;
    let shares = world.answers(web, 40)?;
    world.said("40 requests for shop.example/", &shares);
    world.check(
        "two replicas on two hosts share the work evenly",
        shares.values().all(|share| *share == 20) && shares.len() == 2,
    );
    let api = world.answers(api, 10)?;
    world.said("10 requests for shop.example/api/v1", &api);
    world.check("a longer path leads to another service", api == [(Ok("api-1".to_owned()), 10)].into());
    let unknown = world.answers(Ask { host: "other.example", ..web }, 1)?;
    world.check("a host that has no route is not found", unknown == [(Err("404".to_owned()), 1)].into());
    Ok(())
}

/// All replicas of a service are replaced under load.
fn replace(world: &mut World) -> Outcome {
    let web = world.ask("GET", "shop.example", "/");
    let load = Load::start(world.client(), web)?;
    for (old, new, host) in [("web-1", "web-3", 0), ("web-2", "web-4", 1)] {
        println!("$ {new} comes; {old} drains, and ends when nobody asks it any more");
        world.replica(host, new, "web")?;
        world.until_one_is_there(web, new)?;
        world.set_health(old, Health::Draining)?;
        world.until_none_is_there(web, old)?;
        let after = world.answers(web, 100)?;
        world.check(&format!("{old} drains and gets no new request"), !after.contains_key(&Ok(old.to_owned())));
        world.remove(old)?;
    }
    let all = load.end()?;
    world.said("under way meanwhile", &all);
    let count: usize = all.values().sum();
    world.check(
        "of all requests while both replicas were replaced none failed",
        count > 100 && all.keys().all(Result::is_ok),
    );
    Ok(())
}

/// One says that it is not well, and then that it is.
fn ill(world: &mut World) -> Outcome {
    let web = world.ask("GET", "shop.example", "/");
    println!("$ web-3 answers its check with 503");
    world.running("web-3")?.set_well(false);
    world.until(web, &["web-4"])?;
    world.check("one whose check fails gets nothing", true);
    world.running("web-3")?.set_well(true);
    world.until(web, &["web-3", "web-4"])?;
    world.check("and is asked again when it is well", true);
    Ok(())
}

/// One dies under load, and nobody was told.
fn dead(world: &mut World) -> Outcome {
    let web = world.ask("GET", "shop.example", "/");
    let load = Load::start(world.client(), web)?;
    world.until(web, &["web-3", "web-4"])?;
    println!("$ kill -9 web-4");
    world.kill("web-4")?;
    world.until(web, &["web-3"])?;
    let all = load.end()?;
    world.said("under way meanwhile", &all);
    world.check("a request that a dying replica took is answered by another", all.keys().all(Result::is_ok));
    let post = world.answers(Ask { method: "POST", ..web }, 20)?;
    world.check("what may not be repeated goes to who is there", post == [(Ok("web-3".to_owned()), 20)].into());
    Ok(())
}
