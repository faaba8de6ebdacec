//! Hearing that something at a place may have changed.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use overlay_kernel::netlink::Notices;
use overlay_node::Place;
use tokio::sync::mpsc::UnboundedSender;

/// A thread that listens at places, and tells which of them something was changed at. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Hints {
    places: BTreeSet<Place>,
    orders: Sender<Order>,
    bell: UnixStream,
}

#[derive(Debug)]
enum Order {
    Listen(Place, Vec<Notices>),
    Forget(Place),
}

/// After a change at a place, the next is told of after so long: what comes together is told of once.
const GATHER: Duration = Duration::from_millis(100);

impl Hints {
    /// Tells `heard`.
    ///
    /// # Errors
    /// If there can be no thread, or no descriptor is free.
    #[expect(clippy::disallowed_methods, reason = "the driver is where threads are")]
    pub(crate) fn start(heard: UnboundedSender<Place>) -> io::Result<Self> {
        let (bell, rung) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let (orders, ordered) = channel();
        let listener = Listener { ordered, rung, places: Vec::new(), heard };
        thread::Builder::new().name("hints".to_owned()).spawn(move || listener.run())?;
        Ok(Self { places: BTreeSet::new(), orders, bell })
    }

    pub(crate) fn hears(&self, place: &Place) -> bool {
        self.places.contains(place)
    }

    /// Listens at these from now on.
    pub(crate) fn listen(&mut self, place: &Place, notices: Vec<Notices>) {
        self.places.insert(place.clone());
        self.order(Order::Listen(place.clone(), notices));
    }

    pub(crate) fn forget(&mut self, place: &Place) {
        if self.places.remove(place) {
            self.order(Order::Forget(place.clone()));
        }
    }

    pub(crate) fn retain(&mut self, wanted: impl Fn(&Place) -> bool) {
        let unwanted: Vec<Place> = self.places.iter().filter(|place| !wanted(place)).cloned().collect();
        unwanted.iter().for_each(|place| self.forget(place));
    }

    fn order(&mut self, order: Order) {
        let _ = self.orders.send(order);
        let _ = self.bell.write(&[1]); // where it is full it has rung
    }
}

struct Listener {
    ordered: Receiver<Order>,
    rung: UnixStream,
    places: Vec<Listened>,
    heard: UnboundedSender<Place>,
}

struct Listened {
    place: Place,
    notices: Vec<Notices>,
    /// Not told of before.
    until: Option<Instant>,
}

impl Listener {
    #[expect(clippy::disallowed_methods, reason = "the driver is where clocks are read")]
    fn run(mut self) {
        loop {
            let now = Instant::now();
            let Ok(ready) = self.wait(now) else { return };
            if ready.first() == Some(&true) {
                match self.obey() {
                    true => continue,
                    false => return,
                }
            }
            let mut ready = ready.into_iter().skip(1);
            for listened in self.places.iter_mut().filter(|it| it.until.is_none_or(|until| until <= now)) {
                let mut changed = false;
                for notices in &mut listened.notices {
                    if ready.next() == Some(true) {
                        // What cannot be read is a hint as well.
                        let _ = notices.drain(|_| {});
                        changed = true;
                    }
                }
                listened.until = None;
                if changed {
                    listened.until = Some(now + GATHER);
                    if self.heard.send(listened.place.clone()).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Which are readable: the bell, and then the notices of places that may be told of.
    fn wait(&self, now: Instant) -> Result<Vec<bool>, nix::errno::Errno> {
        let told = self.places.iter().filter(|it| it.until.is_none_or(|until| until <= now));
        let notices = told.flat_map(|it| &it.notices).map(AsFd::as_fd);
        let mut fds: Vec<PollFd<'_>> =
            [self.rung.as_fd()].into_iter().chain(notices).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let rest = self.places.iter().filter_map(|it| it.until?.checked_duration_since(now)).min();
        let timeout = rest.map_or(PollTimeout::NONE, |rest| {
            PollTimeout::try_from(rest + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        Ok(fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect())
    }

    /// Whether there is still somebody to listen for. What was readable is found so again: places may be others now.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 64];
        while let Ok(read) = self.rung.read(&mut bytes) {
            if read == 0 {
                return false;
            }
        }
        while let Ok(order) = self.ordered.try_recv() {
            match order {
                Order::Listen(place, notices) => {
                    self.places.retain(|it| it.place != place);
                    self.places.push(Listened { place, notices, until: None });
                }
                Order::Forget(place) => self.places.retain(|it| it.place != place),
            }
        }
        true
    }
}
