//! All tables of one place, together.

use std::collections::BTreeSet;
use std::fmt;

use overlay_core::{Phase, Plan, ReconcileError};

use crate::{PlaceState, PlaceTables};

/// What has to be done at one place: a plan for each of its [tables](PlaceTables). Shown one step a line.
#[derive(Debug)]
pub struct PlacePlan {
    /// Of which tunnels are protected.
    pub crypto: Plan,
    /// Of local networks.
    pub link: Plan,
    /// Of segments.
    pub vxlan: Plan,
    /// Of what is allowed and forbidden.
    pub firewall: Plan,
    /// Of virtual services.
    pub lb: Plan,
    /// Of ways to other networks.
    pub routes: Plan,
    /// Why tunnels are not protected as they should be, once that has failed.
    unprotected: Option<ReconcileError>,
}

impl PlaceTables {
    /// What has to be done so that all tables hold `desired`. Changes nothing: the dry run of a place.
    ///
    /// # Errors
    /// If a table refuses its value, or what is there cannot be read.
    pub fn plan(&mut self, desired: &PlaceState) -> Result<PlacePlan, ReconcileError> {
        Ok(PlacePlan {
            crypto: self.crypto.plan(&desired.crypto)?,
            link: self.link.plan(&desired.link)?,
            vxlan: self.vxlan.plan(&desired.vxlan)?,
            firewall: self.firewall.plan(&desired.firewall)?,
            lb: self.lb.plan(&desired.lb)?,
            routes: self.routes.plan(&desired.routes)?,
            unprotected: None,
        })
    }

    /// Carries out one phase of a plan that these tables made: the protection of tunnels, then links first and routes last, and the other way round where things go.
    ///
    /// Where the protection of tunnels fails behind its guards, encrypted networks alone depend on it, and carry nothing: so the other tables go on, phase by
    /// phase, and it does not; it has failed at the end.
    ///
    /// # Errors
    /// The first table's that fails; the later ones are not asked. In the last phase, what failed of the protection of tunnels.
    pub fn run(&mut self, plan: &mut PlacePlan, phase: Phase) -> Result<(), ReconcileError> {
        if phase <= Phase::Open {
            self.protect(plan, phase)?;
            self.run_others(plan, phase)?;
        } else {
            self.run_others(plan, phase)?;
            self.protect(plan, phase)?;
        }
        let is_last = plan.phases().last().is_none_or(|last| *last <= phase);
        plan.unprotected.take_if(|_| is_last).map_or(Ok(()), Err)
    }

    fn protect(&mut self, plan: &mut PlacePlan, phase: Phase) -> Result<(), ReconcileError> {
        if plan.unprotected.is_some() {
            return Ok(());
        }
        match self.crypto.run(&plan.crypto, phase) {
            Err(error) if phase != Phase::Guard => plan.unprotected = Some(error),
            ran => return ran,
        }
        Ok(())
    }

    fn run_others(&mut self, plan: &PlacePlan, phase: Phase) -> Result<(), ReconcileError> {
        if phase <= Phase::Open {
            self.link.run(&plan.link, phase)?;
            self.vxlan.run(&plan.vxlan, phase)?;
            self.firewall.run(&plan.firewall, phase)?;
            self.lb.run(&plan.lb, phase)?;
            return self.routes.run(&plan.routes, phase);
        }
        self.routes.run(&plan.routes, phase)?;
        self.lb.run(&plan.lb, phase)?;
        self.firewall.run(&plan.firewall, phase)?;
        self.vxlan.run(&plan.vxlan, phase)?;
        self.link.run(&plan.link, phase)
    }
}

impl PlacePlan {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.plans().all(Plan::is_empty)
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.plans().map(Plan::len).sum()
    }

    /// The phases in which there is something to do.
    pub fn phases(&self) -> BTreeSet<Phase> {
        self.plans().flat_map(Plan::steps).map(|(phase, _)| phase).collect()
    }

    fn plans(&self) -> impl Iterator<Item = &Plan> {
        [&self.crypto, &self.link, &self.vxlan, &self.firewall, &self.lb, &self.routes].into_iter()
    }
}

impl fmt::Display for PlacePlan {
    /// Phase by phase, as it would run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in Phase::ALL {
            let tables = [
                ("crypto", &self.crypto),
                ("link", &self.link),
                ("vxlan", &self.vxlan),
                ("firewall", &self.firewall),
                ("lb", &self.lb),
                ("routes", &self.routes),
            ];
            let in_order: Vec<_> =
                if phase <= Phase::Open { tables.into_iter().collect() } else { tables.into_iter().rev().collect() };
            for (table, plan) in in_order {
                for (_, step) in plan.steps().filter(|(of, _)| *of == phase) {
                    writeln!(f, "{phase:<10} {table:<9} {step}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{Applied, BackendError, ErrorKind, Memory, Mtu, Port, StepError, Table, Vni};
    use overlay_vxlan::{Segment, Vtep};

    use super::*;
    use crate::{MemoryPlaces, Place, Places};

    fn sandbox() -> PlaceState {
        let segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450).unwrap());
        let vxlan = overlay_vxlan::State { segments: [(Vni::new(4096).unwrap(), segment)].into() };
        let firewall = overlay_firewall::State { strangers: overlay_firewall::Strangers::Drop, ..Default::default() };
        PlaceState { vxlan, firewall, ..PlaceState::default() }
    }

    #[test]
    fn a_plan_of_a_place_has_the_phases_of_all_its_tables_and_is_empty_once_they_ran() {
        let mut tables = MemoryPlaces::default().open(&Place::Host).unwrap();
        let mut plan = tables.plan(&sandbox()).unwrap();
        assert_eq!(plan.phases(), [Phase::Guard, Phase::Build].into());
        assert_eq!(
            plan.to_string(),
            "guard      firewall  other ports drop\nbuild      vxlan     create segment 4096 at 192.0.2.1 port 4789, mtu 1450\n"
        );
        for phase in plan.phases() {
            tables.run(&mut plan, phase).unwrap();
        }
        assert!(tables.plan(&sandbox()).unwrap().is_empty());
        assert_eq!(tables.plan(&PlaceState::default()).unwrap().phases(), [Phase::Dismantle, Phase::Unguard].into());
    }

    /// A host that guards a port, has a tunnel there, and a bridge.
    fn protected() -> PlaceState {
        let port = Port::VXLAN_ENCRYPTED;
        let tunnel = overlay_crypto::Tunnel { port, local: [192, 0, 2, 1].into(), peer: [192, 0, 2, 2].into() };
        let crypto = overlay_crypto::State {
            ports: [port].into(),
            tunnels: [(tunnel, Vec::new())].into(),
            ..overlay_crypto::State::default()
        };
        PlaceState { crypto, ..sandbox() }
    }

    /// Fails in one phase.
    struct Failing(Memory<overlay_crypto::State>, Phase);

    impl Table<overlay_crypto::State> for Failing {
        fn plan(&mut self, desired: &overlay_crypto::State) -> Result<Plan, ReconcileError> {
            self.0.plan(desired)
        }

        fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
            if phase != self.1 {
                return Table::run(&mut self.0, plan, phase);
            }
            let source = BackendError::new(ErrorKind::Limit, "protect");
            Err(ReconcileError::Apply {
                phase,
                error: StepError { at: 0, applied: Applied::Nothing, source },
                step: String::new(),
            })
        }
    }

    #[test]
    fn where_tunnels_cannot_be_protected_all_else_goes_on_and_the_place_has_failed_at_the_end() {
        for (fails_in, others) in [(Phase::Build, true), (Phase::Open, true), (Phase::Guard, false)] {
            let mut places = MemoryPlaces::default();
            let crypto = Box::new(Failing(Memory::default(), fails_in));
            let mut tables = PlaceTables { crypto, ..places.open(&Place::Host).unwrap() };
            let mut plan = tables.plan(&protected()).unwrap();
            let failed = plan.phases().into_iter().find(|phase| tables.run(&mut plan, *phase).is_err());
            assert_eq!(failed, Some(if others { Phase::Open } else { Phase::Guard }), "{fails_in}");
            let held = places.place(&Place::Host).unwrap();
            assert_eq!(held.vxlan.state() == protected().vxlan, others);
        }
    }

    #[test]
    fn a_value_that_a_table_refuses_is_refused_for_the_place() {
        let mut wrong = sandbox();
        let gateway = "10.0.9.0/24".parse().unwrap(); // the subnet's own address
        for segment in wrong.vxlan.segments.values_mut() {
            segment.gateways.insert(gateway);
        }
        let error = MemoryPlaces::default().open(&Place::Host).unwrap().plan(&wrong).unwrap_err();
        assert!(error.to_string().contains("10.0.9.0/24"), "{error}");
    }
}
