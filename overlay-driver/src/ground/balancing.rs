//! What balances services where a container is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use overlay_core::{Backend as _, BackendError, ErrorKind, Owner, Shadow, Table, told};
use overlay_kernel::Namespace;
use overlay_kernel::nft::Writers;
use overlay_lb::kernel::{Ipvs, IpvsNative, Native, Nftables};
use overlay_lb::{Arrivals, Capabilities, Service, State};

/// What holds the services of a place, and why it is not what would come first.
pub(super) struct Balancing {
    pub(super) table: Box<dyn Table<State>>,
    pub(super) choice: Choice,
}

/// What was chosen, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    backend: &'static str,
    /// What comes before it and was passed over, with the reason.
    passed_over: Option<String>,
}

impl Balancing {
    /// IPVS where the kernel has it, this namespace may use it, and it can do what is asked of all services of a node; nf_tables where it cannot.
    /// Nothing, where the kernel has neither.
    ///
    /// What all services need is asked of the first, not what these need: so a place has one backend from its opening on, and no change of a
    /// service moves the others' flows from one to another. A kernel is not asked for what would not do, as that may load modules.
    ///
    /// # Errors
    /// If the namespace may not be entered.
    pub(super) fn open(
        owner: &Owner,
        (namespace, writers): (&Namespace, &Writers),
        asked: &State,
    ) -> Result<Option<Self>, BackendError> {
        let passed_over = match Capabilities::ipvs().permit(asked) {
            Err(refusal) => format!("IPVS cannot have {}: {}", refusal.wanted, refusal.reason),
            Ok(()) => match ipvs(namespace) {
                Ok(ipvs) => {
                    let choice = Choice { backend: Capabilities::ipvs().backend, passed_over: None };
                    return Ok(Some(Self { table: Box::new(ipvs), choice }));
                }
                Err(error) => told(&error),
            },
        };
        let choice = Choice { backend: Capabilities::nf_tables().backend, passed_over: Some(passed_over) };
        match Nftables::open(owner, namespace.try_clone()?) {
            Ok(services) => Ok(Some(Self { table: Box::new(Shadow::new(services.among(writers))), choice })),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether what [`open`](Self::open) would give holds something of ours already.
    ///
    /// # Errors
    /// As it.
    pub(super) fn is_used(owner: &Owner, namespace: &Namespace, asked: &State) -> Result<bool, BackendError> {
        if Capabilities::ipvs().permit(asked).is_ok()
            && let Ok(mut ipvs) = ipvs(namespace)
        {
            return Ok(ipvs.observe()? != IpvsNative::default());
        }
        let nftables = Nftables::open(owner, namespace.try_clone()?);
        match nftables.and_then(|mut nftables| nftables.observe()) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            found => Ok(found? != Native::default()),
        }
    }

    /// What is asked of all services of a node: all ports of a VIP, and ways back for what the routing mesh sends.
    pub(super) fn asked() -> State {
        let service = "any".parse().ok().map(|name| (name, Service::new([[192, 0, 2, 1].into()])));
        let arrivals = "eth0".parse().ok().map(|interface| Arrivals {
            interface,
            marks: BTreeMap::new(),
            answers: BTreeMap::new(),
            inside: BTreeSet::new(),
        });
        State { services: service.into_iter().collect(), arrivals, ..State::default() }
    }
}

/// IPVS, if it is there and lets itself be read: it does for the first user namespace only.
fn ipvs(namespace: &Namespace) -> Result<Ipvs, BackendError> {
    let mut ipvs = Ipvs::open(namespace.try_clone()?)?;
    ipvs.observe().map(|_| ipvs)
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend)?;
        self.passed_over.iter().try_for_each(|why| write!(f, " ({why})"))
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::testing::{Kernel, kernel_test};
    use overlay_core::{Port, Protocol};

    use super::*;

    #[test]
    fn what_balances_is_chosen_by_what_all_services_need_and_what_the_kernel_has() {
        kernel_test(Kernel::Host, "driver::what_balances_is_chosen", || {
            let home = Namespace::create().unwrap();
            let owner = Owner::new("choice".parse().unwrap(), "a".parse().unwrap());
            let opened = Balancing::open(&owner, (&home, &Writers::default()), &Balancing::asked()).unwrap().unwrap();
            let said = "nf_tables (IPVS cannot have flows from balancers elsewhere: IPVS knows no ways back)";
            assert_eq!(opened.choice.to_string(), said);

            let mut asked = State { arrivals: None, ..Balancing::asked() };
            let web = Service::new([[192, 0, 2, 1].into()]).port(Protocol::Tcp, Port::DNS, Port::DNS);
            asked.services.insert("any".parse().unwrap(), web);
            let opened = Balancing::open(&owner, (&home, &Writers::default()), &asked).unwrap().unwrap();
            let said = opened.choice.to_string();
            let expected = match ipvs(&home) {
                Ok(_) => "IPVS".to_owned(),
                Err(error) => format!("nf_tables ({})", told(&error)),
            };
            assert_eq!(said, expected);
        });
    }
}
