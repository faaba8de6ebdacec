//! The area value: all local networks of one host.

use std::collections::BTreeMap;

use overlay_core::{Change, EndpointId, IfName, Phase, Refusal, in_phases, keyed_diff};
use serde::{Deserialize, Serialize};

use crate::{Bridge, BridgeStep, Macvlan, Step, check};

/// The local networks of one host: what is wanted.
///
/// ```
/// use overlay_core::{Memory, Mtu, reconcile};
/// use overlay_link::{Bridge, State};
///
/// let mut bridge = Bridge::new("02:6f:76:00:00:01".parse()?, Mtu::ETHERNET).routed().isolated();
/// bridge.addresses.insert("172.18.0.1/16".parse()?);
/// let wanted = State { bridges: [("ovgw0".parse()?, bridge)].into(), ..State::default() };
///
/// let done = reconcile(&mut Memory::<State>::default(), &wanted)?;
/// assert_eq!(
///     done.to_string(),
///     "build      create bridge ovgw0, 02:6f:76:00:00:01, mtu 1500\n\
///      build      bridge ovgw0: add address 172.18.0.1/16\n\
///      build      bridge ovgw0: keep ports apart\n\
///      build      bridge ovgw0: forward\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Bridges, by their names.
    pub bridges: BTreeMap<IfName, Bridge>,
    /// Containers' interfaces on physical networks, by their endpoints.
    pub macvlans: BTreeMap<EndpointId, Macvlan>,
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n bridges, ports and macvlans.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        for change in keyed_diff(&self.bridges, &desired.bridges) {
            match change {
                Change::Add(name, new) => {
                    steps.push(Step::Create(*name, new.mac, new.mtu));
                    plan_bridge(*name, &Bridge::new(new.mac, new.mtu), new, &mut steps);
                }
                Change::Replace(name, old, new) => plan_bridge(*name, old, new, &mut steps),
                Change::Remove(name, _) => steps.push(Step::Remove(*name)),
            }
        }
        steps.extend(keyed_diff(&self.macvlans, &desired.macvlans).map(|change| match change {
            Change::Add(endpoint, new) | Change::Replace(endpoint, _, new) => Step::PutMacvlan(*endpoint, new.clone()),
            Change::Remove(endpoint, _) => Step::RemoveMacvlan(*endpoint),
        }));
        in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(name, mac, mtu) => drop(self.bridges.insert(*name, Bridge::new(*mac, *mtu))),
            Step::Change(name, step) => {
                if let Some(bridge) = self.bridges.get_mut(name) {
                    step.apply(bridge);
                }
            }
            Step::Remove(name) => drop(self.bridges.remove(name)),
            Step::PutMacvlan(endpoint, macvlan) => drop(self.macvlans.insert(*endpoint, macvlan.clone())),
            Step::RemoveMacvlan(endpoint) => drop(self.macvlans.remove(endpoint)),
        }
    }

    fn phase(step: &Step) -> Phase {
        step.phase()
    }

    fn check(&self) -> Result<(), Refusal> {
        check::state(self)
    }
}

fn plan_bridge(name: IfName, old: &Bridge, new: &Bridge, steps: &mut Vec<Step>) {
    use BridgeStep::*;
    let mut push = |step| steps.push(Step::Change(name, step));
    if old.mac != new.mac {
        push(SetMac(new.mac));
    }
    if old.mtu != new.mtu {
        push(SetMtu(new.mtu));
    }
    old.addresses.difference(&new.addresses).for_each(|address| push(RemoveAddress(*address)));
    new.addresses.difference(&old.addresses).for_each(|address| push(AddAddress(*address)));
    if old.isolated != new.isolated {
        push(SetIsolated(new.isolated));
    }
    if old.routed != new.routed {
        push(SetRouted(new.routed));
    }
    if old.localnet != new.localnet {
        push(SetLocalnet(new.localnet));
    }
    for change in keyed_diff(&old.ports, &new.ports) {
        push(match change {
            Change::Add(port, new) | Change::Replace(port, _, new) => PutPort(*port, new.clone()),
            Change::Remove(port, _) => RemovePort(*port),
        });
    }
}
