//! Flows that balancers of other places send here, and their way back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, Mac, Refusal, is_host_address};
use serde::{Deserialize, Serialize};

/// Flows that balancers of other places send here: those of services that are at their machines' [own addresses](crate::Service::vips).
///
/// Such a balancer leaves the client's address in place, so answers must go back through its machine, whatever route this place has to the client.
/// Here each packet that comes in is known by the Ethernet address that it is from; the flow is marked by it, and all answers of the flow get the
/// mark as theirs, before they are routed. What leads packets with a mark back is not this area's: a route for each mark. A client that comes by
/// another machine with the flow it had is answered by that from then on. TCP, UDP and SCTP that begin there and come from nobody of these are dropped: the
/// interface is balancers' alone.
///
/// Two flows of a client that differ only in the balancer that they came by are two here too, though the place's sockets know them by client and port alone: to
/// these, the second has another source port, and the client's address as the first has. Where two balancers' marks differ by a multiple of 65,535, such
/// flows by both are taken for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrivals {
    /// The interface that they come in by.
    pub interface: IfName,
    /// By the Ethernet address of a balancer's machine there: the mark of its flows, not 0.
    pub marks: BTreeMap<Mac, u32>,
    /// By an address of this place at the interface: the one that this place answers from by itself, where that is another. Flows are led to that,
    /// and the client sees the first all the same. Without it, a UDP socket that is bound to no address would answer from one that the client did not ask.
    pub answers: BTreeMap<IpAddr, IpAddr>,
    /// From where nobody comes by a balancer: the subnets of the place's other networks, and its own addresses. What begins there with such a
    /// source is dropped, whoever sends it: else the outside could speak as a neighbour of an inner network. Networks, none of them everything.
    pub inside: BTreeSet<IpNet>,
}

impl Arrivals {
    /// Whether it makes sense.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let refuse =
            |wanted: String, reason| Err(Refusal::new(format!("arrivals by {}", self.interface), wanted, reason));
        if let Some((mac, _)) = self.marks.iter().find(|(mac, mark)| !mac.is_station() || **mark == 0) {
            return refuse(format!("mark of {mac}"), "a station has one, and it is not 0");
        }
        if let Some(net) = self.inside.iter().find(|net| net.trunc() != **net || net.prefix_len() == 0) {
            return refuse(
                net.to_string(),
                "what is inside is a network without bits behind its prefix, and not everything",
            );
        }
        let is_own = |address: &IpAddr| is_host_address(*address) && !address.is_loopback();
        let wrong = |(at, from): &(&IpAddr, &IpAddr)| {
            !is_own(at) || !is_own(from) || at.is_ipv4() != from.is_ipv4() || at == from
        };
        match self.answers.iter().find(wrong) {
            Some((at, from)) => {
                refuse(format!("{from} for {at}"), "these are two addresses of the place, of one family")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what comes by {} from {} balancers", self.interface, self.marks.len())?;
        self.answers.iter().try_for_each(|(at, from)| write!(f, ", {at} at {from}"))?;
        self.inside.iter().try_for_each(|net| write!(f, ", nobody of {net}"))
    }
}
