//! What a state must be to make sense on any backend.

use std::collections::BTreeSet;
use std::net::IpAddr;

use overlay_core::{IpFamily, Refusal, is_host_address};

use crate::{Direction, Lanes, Limits, Sa, SaId, Spi, State, Tunnel, Usage};

/// Refuses what no backend could hold, or what would not be safe, by name.
pub(crate) fn state(state: &State) -> Result<(), Refusal> {
    let mut keys = BTreeSet::new();
    for (id, sa) in &state.sas {
        let fit = association(state, id, sa).and_then(|()| match keys.insert(sa.key.digest()) {
            true => Ok(()),
            false => Err(("its key".to_owned(), "another association has it; two senders would count alike")),
        });
        fit.map_err(|(wanted, reason)| Refusal::new(format!("SA {id}"), wanted, reason))?;
    }
    for (tunnel, lanes) in &state.tunnels {
        let fit = ends(tunnel.local, tunnel.peer)
            .and_then(|()| guarded(state, tunnel))
            .and_then(|()| sends(state, tunnel, lanes));
        fit.map_err(|(wanted, reason)| Refusal::new(format!("tunnel {tunnel}"), wanted, reason))?;
    }
    Ok(())
}

type Unfit = (String, &'static str);

fn association(state: &State, id: &SaId, sa: &Sa) -> Result<(), Unfit> {
    if !state.ports.contains(&sa.port) {
        return Err((format!("port {}", sa.port), UNGUARDED));
    }
    match sa.limits {
        Some(limits) => fit(limits).and_then(|()| ends(sa.source, id.destination)),
        None => ends(sa.source, id.destination),
    }
}

/// It ends after it was said that it will, and no later than is safe.
fn fit(Limits { soft, hard }: Limits) -> Result<(), Unfit> {
    let are_some = soft.bytes > 0 && soft.packets > 0 && soft.bytes <= hard.bytes && soft.packets <= hard.packets;
    if !are_some || hard.bytes > Usage::MOST.bytes || hard.packets > Usage::MOST.packets {
        return Err((format!("{} bytes or {} packets", hard.bytes, hard.packets), LIMITS));
    }
    Ok(())
}

const LIMITS: &str =
    "another key is wanted at something, before it ends, which is at 380 GB or 2^28 packets at the latest";

const UNGUARDED: &str = "it is not guarded, so its datagrams would pass in the clear too";

fn guarded(state: &State, tunnel: &Tunnel) -> Result<(), Unfit> {
    match state.ports.contains(&tunnel.port) {
        true => Ok(()),
        false => Err((format!("port {}", tunnel.port), UNGUARDED)),
    }
}

/// Two hosts of one family.
fn ends(one: IpAddr, other: IpAddr) -> Result<(), Unfit> {
    if let Some(none) = [one, other].into_iter().find(|address| !is_host_address(*address)) {
        return Err((format!("address {none}"), "a tunnel's end is one host's address"));
    }
    if IpFamily::of(one) != IpFamily::of(other) {
        return Err((format!("addresses {one} and {other}"), "both ends have one family"));
    }
    if one == other {
        return Err((format!("address {one}"), "a tunnel has two ends"));
    }
    Ok(())
}

/// Each lane sends by an association of its own, of this tunnel.
fn sends(state: &State, tunnel: &Tunnel, lanes: &[Spi]) -> Result<(), Unfit> {
    if !lanes.is_empty() && Lanes::new(lanes.len()).is_err() {
        return Err((format!("{} lanes", lanes.len()), "it has none, or 1, 2, 4, 8 or 16"));
    }
    let mut seen = BTreeSet::new();
    for spi in lanes {
        if !seen.insert(spi) {
            return Err((format!("SPI {spi}"), "two lanes have it; give each its own"));
        }
        let serves = |sa: &&Sa| sa.direction == Direction::Out && sa.port == tunnel.port && sa.source == tunnel.local;
        if state.sas.get(&SaId { destination: tunnel.peer, spi: *spi }).filter(serves).is_none() {
            return Err((format!("SPI {spi}"), "there is no association of it that sends for this tunnel"));
        }
    }
    Ok(())
}
