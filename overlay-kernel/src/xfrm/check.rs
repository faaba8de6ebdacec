//! What a native state must be for the kernel to hold exactly it.

use std::fmt::Display;

use overlay_core::{IpFamily, Refusal, is_host_address};

use super::{Action, Limits, Mode, Policy, PolicyKey, Ports, Sa, SaId, Selector, State, Template};

/// Refuses what no kernel could hold as it stands, by name.
pub(super) fn state(state: &State) -> Result<(), Refusal> {
    state.sas.iter().try_for_each(|(id, sa)| self::sa(id, sa))?;
    state.policies.iter().try_for_each(|(key, policy)| self::policy(key, policy))
}

fn sa(id: &SaId, sa: &Sa) -> Result<(), Refusal> {
    let refuse = |wanted: String, reason| Err(Refusal::new(format!("SA {id}"), wanted, reason));
    if id.spi < MIN_SPI {
        return refuse(format!("SPI {}", id.spi), "SPIs below 256 are reserved");
    }
    if !is_host_address(id.destination) || !is_host_address(sa.source) {
        return refuse(sa.source.to_string(), "it is between addresses that one host can have");
    }
    if IpFamily::of(id.destination) != IpFamily::of(sa.source) {
        return refuse(sa.source.to_string(), "both ends are of one family");
    }
    if sa.reqid == 0 {
        return refuse("request id 0".to_owned(), "that is none");
    }
    if !(1..=MAX_WINDOW).contains(&sa.window) {
        return refuse(format!("window {}", sa.window), "it is 1 to 4,096");
    }
    if sa.counted >= u64::from(u32::MAX) && (!sa.extended || sa.counted == u64::MAX) {
        return refuse(format!("{} packets before", sa.counted), "no number is left");
    }
    if let Some(have) = sa.key.as_ref().and_then(super::Key::len)
        && have != sa.aead.material_len()
    {
        return refuse(format!("a key of {have} bytes"), "it is key and salt of the AEAD");
    }
    if sa.udp.is_some_and(|udp| udp.source == 0 || udp.destination == 0) {
        return refuse("port 0".to_owned(), "that is no port");
    }
    let of = |limits: &Limits| [limits.bytes, limits.packets, limits.seconds];
    if of(&sa.lifetimes.soft).into_iter().chain(of(&sa.lifetimes.hard)).flatten().any(|it| it == 0 || it > MAX_LIMIT) {
        return refuse("a lifetime".to_owned(), "a limit is 1 to 2^62");
    }
    let Some(selector) = sa.selector else { return Ok(()) };
    if let Err((wanted, reason)) = self::selector(&selector) {
        return refuse(wanted, reason);
    }
    if sa.mode == Mode::Transport && IpFamily::of(selector.source.addr()) != IpFamily::of(sa.source) {
        return refuse(selector.to_string(), "what a transport seals has its family");
    }
    let all = selector.source.prefix_len() == 0 && selector.destination.prefix_len() == 0 && selector.protocol == 0;
    if all { refuse(selector.to_string(), "that is any packet: say none") } else { Ok(()) }
}

/// Refuses what the kernel would not give back as it was.
fn selector(selector: &Selector) -> Result<(), (String, &'static str)> {
    let (source, destination) = (selector.source, selector.destination);
    if source.trunc() != source || destination.trunc() != destination {
        return Err((destination.to_string(), "a network has no bits beyond its prefix"));
    }
    if IpFamily::of(source.addr()) != IpFamily::of(destination.addr()) {
        return Err((destination.to_string(), "both networks are of one family"));
    }
    let mut ports = [selector.source_port, selector.destination_port].into_iter().flatten().peekable();
    if ports.peek().is_some() && !WITH_PORTS.contains(&selector.protocol) {
        return Err((selector.protocol.to_string(), "ports are TCP's, UDP's, SCTP's, DCCP's"));
    }
    match ports.find(|Ports { bits, mask }| *mask == 0 || bits & !mask != 0) {
        Some(ports) => Err((ports.to_string(), "a mask is not 0, and bits are within it")),
        None => Ok(()),
    }
}

fn policy(key: &PolicyKey, policy: &Policy) -> Result<(), Refusal> {
    let refuse = |wanted: &dyn Display, reason| Err(Refusal::new(format!("policy {key}"), wanted.to_string(), reason));
    if let Err((wanted, reason)) = selector(&key.selector) {
        return refuse(&wanted, reason);
    }
    let family = IpFamily::of(key.selector.source.addr());
    let Action::Protect(templates) = &policy.action else { return Ok(()) };
    if !(1..=MAX_TEMPLATES).contains(&templates.len()) {
        return refuse(&templates.len(), "it has 1 to 6 templates");
    }
    for template in templates {
        let Template { source, destination, reqid, spi, mode } = template;
        if *reqid == 0 || spi.is_some_and(|spi| spi < MIN_SPI) {
            return refuse(reqid, "a template has a request id, and an SPI of 256 or more if any");
        }
        let ends = [*source, *destination];
        if !ends.into_iter().all(is_host_address) || IpFamily::of(*source) != IpFamily::of(*destination) {
            return refuse(destination, "a template is between addresses that one host can have, of one family");
        }
        if *mode == Mode::Transport && IpFamily::of(*source) != family {
            return refuse(destination, "only a tunnel leads into the other family");
        }
    }
    Ok(())
}

const MIN_SPI: u32 = 256;
const MAX_WINDOW: u32 = 4096;
const MAX_TEMPLATES: usize = 6; // XFRM_MAX_DEPTH
const MAX_LIMIT: u64 = 1 << 62;
const WITH_PORTS: [u8; 4] = [6, 17, 33, 132];
