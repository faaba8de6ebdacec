//! What is plugged in.

use std::collections::BTreeSet;

use overlay_core::{BackendError, EndpointId, IfName, Name, NsKey};
use overlay_node::{GatewayPort, Input, InputError, Place};
use tokio::sync::oneshot;

use super::damaged::is_here;
use super::{Heart, News, Plug};
use crate::book::Plugged;
use crate::ground::Ground;
use crate::status::DriverEvent;
use crate::{PlugError, Source};

/// A container's namespace was looked at.
#[derive(Debug)]
pub(crate) struct Entered {
    /// Of those that were asked for.
    number: u64,
    plug: Plug,
    asked: oneshot::Sender<Result<Plugged, PlugError>>,
    found: Result<(Option<NsKey>, BTreeSet<IfName>), BackendError>,
}

impl<G: Ground> Heart<G> {
    pub(super) fn enter(&mut self, plug: Plug, asked: oneshot::Sender<Result<Plugged, PlugError>>) {
        if !self.state.tearing_down.is_empty() {
            return drop(asked.send(Err(PlugError::TearingDown)));
        }
        self.state.asked_to_enter += 1;
        let number = self.state.asked_to_enter;
        self.state.entering.insert((plug.endpoint, number), plug.container.clone());
        let (mut ground, news) = (self.ground.clone(), self.news.clone());
        self.jobs.run(move || {
            let found = ground
                .enter(&plug.container, &plug.source)
                .and_then(|key| Ok((key, ground.interfaces(&plug.container)?)));
            let _ = news.send(News::Entered(Box::new(Entered { number, plug, asked, found })));
        });
    }

    pub(super) fn take_entered(&mut self, entered: Entered) {
        let Entered { number, plug, asked, found } = entered;
        // It was unplugged meanwhile.
        if self.state.entering.remove(&(plug.endpoint, number)).is_none() {
            return drop(asked.send(Err(PlugError::Withdrawn)));
        }
        let plugged = match found {
            Ok((namespace, there)) => self.plug(plug, namespace, &there),
            Err(source) => Err(PlugError::Namespace { container: plug.container, source }),
        };
        let _ = asked.send(plugged);
    }

    fn plug(&mut self, plug: Plug, namespace: Option<NsKey>, there: &BTreeSet<IfName>) -> Result<Plugged, PlugError> {
        let Plug { endpoint, container, source, interface, restores } = plug;
        let again = self.book.get(endpoint).filter(|old| old.namespace == namespace).map(|old| old.interface);
        let taken: BTreeSet<IfName> = self
            .book
            .all()
            .filter(|other| other.endpoint != endpoint && other.container == container)
            .map(|other| other.interface)
            .chain(there.iter().copied().filter(|name| !restores && again != Some(*name)))
            .collect();
        let interface = match interface.or(again) {
            Some(interface) if taken.contains(&interface) => {
                return Err(PlugError::InterfaceTaken { container, interface });
            }
            Some(interface) => interface,
            None => free_interface(&source, endpoint, &taken)
                .ok_or(PlugError::NoInterface { container: container.clone() })?,
        };
        let of_it = self.book.all().filter(|other| other.container == container);
        let are_there: Vec<bool> = of_it.map(|other| other.namespace == namespace).collect();
        if are_there.is_empty() || are_there.contains(&false) {
            self.begin_place_anew(&Place::Container(container.clone()));
        }
        let gateway = self.gateway_port(&container, namespace.is_some())?;
        let plugged = Plugged { endpoint, container, source, namespace, interface, gateway };
        let before = self.book.get(endpoint).cloned();
        self.book.write(plugged.clone()).map_err(PlugError::Book)?;
        if let Err(error) = self.tell_plugged(&plugged, false) {
            self.take_back(&plugged, before);
            return Err(PlugError::Refused(error));
        }
        Ok(plugged)
    }

    /// What could not be plugged in is as it was before.
    fn take_back(&mut self, plugged: &Plugged, before: Option<Plugged>) {
        let written = before.map(|before| self.book.write(before.clone()).map(|()| before));
        let Some(Ok(before)) = written else { return self.erase(plugged.endpoint) };
        self.give_port_back(plugged.container.clone());
        let _ = self.tell_plugged(&before, false); // who was told so before
    }

    /// A container's namespace may be another: what was done in the former, and known of it, counts no more.
    fn begin_place_anew(&mut self, place: &Place) {
        self.works.forget(place);
        self.resolvers.withdraw(place);
        self.hints.forget(place);
        self.state.named.remove(place);
        if self.state.held.remove(place).is_some() {
            self.tell(Input::Applied { place: place.clone(), state: None, result: Ok(()) });
        }
        self.doubt(place);
    }

    /// The port of the gateway bridge that a container is to have, if it can have one.
    fn gateway_port(&mut self, container: &Name, in_namespace: bool) -> Result<Option<GatewayPort>, PlugError> {
        match self.config.gateway.filter(|_| in_namespace) {
            None => Ok(None),
            Some(bridge) => match self.book.gateway_port(container, bridge.room()) {
                None => Err(PlugError::GatewayFull { room: bridge.room() }),
                port => Ok(port),
            },
        }
    }

    /// Tells the agent that an endpoint is plugged in, be it since an earlier start, and where its container is at the gateway bridge.
    pub(crate) fn tell_plugged(&mut self, plugged: &Plugged, adopted: bool) -> Result<(), InputError> {
        let now = self.now();
        let Plugged { endpoint, container, namespace, interface, gateway, .. } = plugged.clone();
        if gateway.is_some() {
            self.agent.handle(Input::GatewayPort { container, port: gateway }, now)?;
        }
        self.agent.handle(Input::Plug { endpoint, namespace, interface, adopted }, now)
    }

    /// Erases what is written of an endpoint. The last of its container gives the port of the gateway bridge back.
    fn erase(&mut self, endpoint: EndpointId) {
        let Ok(Some(erased)) = self.book.erase(endpoint) else { return }; // it would be unplugged again at the next start
        self.give_port_back(erased.container);
    }

    /// Unless something of the container is plugged in that needs it.
    fn give_port_back(&mut self, container: Name) {
        if !self.book.all().any(|other| other.container == container && other.gateway.is_some()) {
            self.tell(Input::GatewayPort { container, port: None });
        }
    }

    /// What is plugged in no more is forgotten at once; places are told by what is desired.
    pub(super) fn unplug(&mut self, endpoint: EndpointId) {
        self.state.entering.retain(|(entering, _), _| *entering != endpoint);
        self.state.reported.remove(&endpoint);
        self.erase(endpoint);
        self.tell(Input::Unplug(endpoint));
    }

    pub(super) fn vanish(&mut self, endpoint: EndpointId) {
        if self.book.get(endpoint).is_none() {
            return;
        }
        self.unplug(endpoint);
        self.state.counts.vanished += 1;
        self.say(DriverEvent::Vanished(endpoint));
        let moves = self.agent.assigned(endpoint).map(|assigned| assigned.moves);
        self.reporter.report(
            endpoint,
            moves,
            Err("its container has ended: plug it in again, or detach it".to_owned()),
        );
    }

    /// A place is closed: its container is let go, unless it is plugged in again by now.
    pub(super) fn let_go(&mut self, place: &Place) {
        let Place::Container(name) = place else { return };
        let plugged = self.book.all().any(|plugged| plugged.container == *name);
        if !plugged && !self.state.entering.values().any(|entering| entering == name) {
            self.ground.leave(name);
        }
    }

    /// The agent unplugged it, as the catalogue said: unless it had heard of a move back too late.
    pub(super) fn look_whether_withdrawn(&mut self, endpoint: EndpointId) {
        let (control, me, news) = (self.control.clone(), self.node(), self.news.clone());
        tokio::spawn(async move {
            let here = is_here(&*control, me, endpoint).await;
            let _ = news.send(News::Withdrawn(endpoint, here.unwrap_or(true)));
        });
    }

    pub(super) fn take_withdrawn(&mut self, endpoint: EndpointId, here: bool) {
        match self.book.get(endpoint).cloned() {
            Some(plugged) if here => drop(self.tell_plugged(&plugged, true)), // as it was left
            Some(_) => {
                self.unplug(endpoint);
                self.say(DriverEvent::Withdrawn(endpoint));
            }
            None => {}
        }
    }

    /// Tells who waits for an endpoint what became of it: it is in effect when its container's names are answered too.
    pub(super) fn answer_awaiting(&mut self) {
        let ids: Vec<EndpointId> = self.state.awaiting.keys().copied().collect();
        for id in ids {
            let Some(result) = self.outcome(id) else { continue };
            for asked in self.state.awaiting.remove(&id).into_iter().flatten() {
                let _ = asked.send(result.clone());
            }
        }
    }

    /// `None` while it is on its way.
    fn outcome(&self, endpoint: EndpointId) -> Option<Result<(), String>> {
        let Some(plugged) = self.book.get(endpoint) else { return Some(Err("it was unplugged".to_owned())) };
        self.state.reported.get(&endpoint)?.as_ref().map_or_else(
            |reason| Some(Err(reason.clone())),
            |()| match plugged.namespace {
                None => Some(Ok(())),
                Some(_) => self.state.named.get(&Place::Container(plugged.container.clone())).cloned(),
            },
        )
    }

    /// Looks whether containers are where they were, and what the underlay carries.
    pub(super) fn watch(&self) {
        let all: Vec<(EndpointId, Source, NsKey)> = self
            .book
            .all()
            .filter_map(|it| Some((it.endpoint, it.source.clone(), self.key_of(it.endpoint)?)))
            .collect();
        let (ground, news, home, vtep) = (self.ground.clone(), self.news.clone(), self.home.clone(), self.me.vtep);
        self.jobs.run(move || {
            let gone = all.into_iter().filter(|(_, source, key)| !ground.is_there(source, key));
            let gone: Vec<EndpointId> = gone.map(|(endpoint, _, _)| endpoint).collect();
            if !gone.is_empty() {
                let _ = news.send(News::Vanished(gone));
            }
            if let Ok(Some(mtu)) = home.mtu(vtep) {
                let _ = news.send(News::Mtu(mtu));
            }
        });
    }
}

/// `eth0` or the first that is free; a tap is named by its endpoint, as sandboxes are shared.
fn free_interface(source: &Source, endpoint: EndpointId, taken: &BTreeSet<IfName>) -> Option<IfName> {
    match source {
        Source::Tap => IfName::new(&format!("t-{}", endpoint.short())).ok(),
        Source::Path(_) | Source::Process(_) => (0..=taken.len())
            .filter_map(|number| IfName::new(&format!("eth{number}")).ok())
            .find(|name| !taken.contains(name)),
    }
}
