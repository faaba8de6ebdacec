//! What a backend can express.

use std::collections::BTreeSet;

use overlay_core::{Protocol, Refusal};

use crate::{Ports, Scheduler, Service, State};

/// What a backend can express. A [`State`] that needs more is refused by name, before anything is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What it is called in refusals.
    pub backend: &'static str,
    /// How it can choose.
    pub schedulers: BTreeSet<Scheduler>,
    /// The most replicas of one service.
    pub replicas: usize,
    /// Whether sources can come back to their replica.
    pub affinity: bool,
    /// Whose idle timeouts it can set.
    pub timeouts: TimeoutScope,
    /// Whether a service can be at all ports.
    pub all_ports: bool,
    /// Whether ports that nothing serves are rejected, rather than left to whoever listens there.
    pub rejects: bool,
    /// Whether services can be at the machine's own addresses, and what such services elsewhere send is answered through them.
    pub published: bool,
    /// Protocols of named ports.
    pub protocols: BTreeSet<Protocol>,
}

/// Whose idle timeouts a backend can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeoutScope {
    /// Nobody's: they are the namespace's.
    Nobody,
    /// All services' at once: those that say any must say the same.
    Together,
    /// Each service's.
    Each,
}

impl Capabilities {
    /// What nf_tables can express: see `kernel::Nftables`.
    pub fn nf_tables() -> Self {
        Self {
            backend: "nf_tables",
            schedulers: [
                Scheduler::RoundRobin,
                Scheduler::WeightedRoundRobin,
                Scheduler::SourceHash,
                Scheduler::Maglev,
            ]
            .into(),
            replicas: Self::NF_TABLES_REPLICAS,
            affinity: true,
            timeouts: TimeoutScope::Nobody,
            all_ports: true,
            rejects: true,
            published: true,
            protocols: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into(),
        }
    }

    /// What IPVS can express where nobody marks what goes to VIPs at all ports: see `kernel::Ipvs`.
    pub fn ipvs() -> Self {
        Self {
            backend: "IPVS",
            schedulers: Scheduler::ALL.into(),
            replicas: Service::MAX_REPLICAS,
            affinity: true,
            timeouts: TimeoutScope::Together,
            all_ports: false,
            rejects: false,
            published: false,
            protocols: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into(),
        }
    }

    pub(crate) const NF_TABLES_REPLICAS: usize = 1024;

    /// Refuses what of a state is not among them.
    ///
    /// # Errors
    /// The first service that needs more, what it needs, and why it cannot be had.
    pub fn permit(&self, state: &State) -> Result<(), Refusal> {
        let backend = self.backend;
        let mut shared = None;
        if state.arrivals.is_some() && !self.published {
            let reason = format!("{backend} knows no ways back");
            return Err(Refusal::new("arrivals", "flows from balancers elsewhere", reason));
        }
        for (name, service) in &state.services {
            let refuse = |wanted: String, reason: String| Err(Refusal::new(format!("service {name}"), wanted, reason));
            if !self.schedulers.contains(&service.scheduler) {
                return refuse(service.scheduler.to_string(), format!("{backend} has no such scheduler"));
            }
            if service.replicas.len() > self.replicas {
                let most = self.replicas;
                return refuse(format!("{} replicas", service.replicas.len()), format!("{backend} has {most} at most"));
            }
            if service.affinity.is_some() && !self.affinity {
                let reason = "cannot remember sources: the schedulers source hash and maglev go by what a packet says";
                return refuse("affinity".to_owned(), format!("{backend} {reason}"));
            }
            if service.ports == Ports::All && !self.all_ports {
                return refuse("all ports".to_owned(), format!("{backend} serves ports by name"));
            }
            if service.is_published() && service.affinity.is_some() {
                let reason = format!("{backend} remembers no clients of published services");
                return refuse("affinity".to_owned(), reason);
            }
            if service.is_published() && !self.published {
                return refuse("the machine's own addresses".to_owned(), format!("{backend} serves VIPs"));
            }
            if let Ports::Named(named) = &service.ports
                && let Some(served) = named.iter().find(|served| !self.protocols.contains(&served.protocol))
            {
                return refuse(served.to_string(), format!("{backend} knows no {}", served.protocol));
            }
            match (service.timeouts, self.timeouts) {
                (Some(_), TimeoutScope::Nobody) => {
                    return refuse("timeouts".to_owned(), format!("{backend} leaves them to the namespace"));
                }
                (Some(wanted), TimeoutScope::Together) if *shared.get_or_insert(wanted) != wanted => {
                    return refuse("timeouts".to_owned(), format!("{backend} has the same for all services"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
