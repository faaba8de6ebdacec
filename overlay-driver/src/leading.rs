//! Which manager leads, and does what only one may.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Seat, Store, Term, TransactionError};
use overlay_crypto::pki::{CertificateAuthority as _, StoreAuthority};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::control::Cluster;
use crate::driver::now;

/// A manager that stands for the lead of its cluster, as long as this is there: while it leads, its authority signs, and does once a minute what is due. That two never do is by the
/// [`Term`]'s fence, not by this.
#[derive(Debug)]
pub struct Leading {
    leads: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

/// The task.
struct Candidate {
    store: Arc<dyn Store>,
    seat: Seat,
    authority: Arc<StoreAuthority>,
    term: Option<Term>,
    leads: watch::Sender<bool>,
}

impl Leading {
    /// Stands for the lead: has tried once when this returns.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn begin(store: Arc<dyn Store>, seat: Seat, authority: Arc<StoreAuthority>) -> Self {
        let (told, leads) = watch::channel(false);
        let mut candidate = Candidate { store, seat, authority, term: None, leads: told };
        candidate.look().await;
        Self { leads, task: tokio::spawn(candidate.run()) }
    }

    /// Whether this manager leads now, as far as it knows.
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// Whether it leads, for who does something only meanwhile: [`Builder::settles_while`](crate::Builder::settles_while) say.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Returns once this manager leads.
    pub async fn led(&self) {
        drop(self.leads.clone().wait_for(|leads| *leads).await);
    }

    /// Has a manager's servers believe whom the authority believes, as other managers change it: looked at as often as this, as long as the handle is not aborted.
    pub fn heed(cluster: Cluster, every: Duration) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                drop(cluster.heed().await); // else what was believed is
                sleep(every).await;
            }
        })
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Candidate {
    async fn run(mut self) {
        let mut looks = 0_u32;
        #[expect(clippy::infinite_loop, reason = "who started it ends it")]
        loop {
            sleep(LOOK).await;
            self.look().await;
            looks = looks.wrapping_add(1);
            if self.term.is_some() && looks.is_multiple_of(TEND) {
                drop(self.authority.tend(now()).await); // what is in the way is tried again
            }
        }
    }

    /// Renews the term, or stands for one.
    async fn look(&mut self) {
        match &mut self.term {
            Some(term) => {
                let renewed = term.renew(&*self.store, now()).await;
                let is_lost = matches!(renewed, Err(TransactionError::Refused(_))) || term.is_over(now());
                if is_lost {
                    self.term = None;
                    self.authority.follow();
                }
            }
            None => {
                if let Ok(term) = Term::campaign(&*self.store, &self.seat, now()).await {
                    self.authority.lead(term.clone());
                    self.term = Some(term);
                }
            }
        }
        self.leads.send_if_modified(|leads| std::mem::replace(leads, self.term.is_some()) != self.term.is_some());
    }
}

/// How often the term is renewed, or looked at: a fraction of how long one lasts.
const LOOK: Duration = Duration::from_secs(3);
/// After how many looks what is due is done: a minute.
const TEND: u32 = 20;
