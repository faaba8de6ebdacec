//! Callers that come at once, served by one of them.

use overlay_core::{NetworkId, UnixTime};

use super::Allocator;
use crate::ledger::combine::{Combiner, Turn};
use crate::{AddressRequest, ClaimRefusal, IpamError, Lease, Release};

/// Where the callers of a network meet.
pub(super) type Line = Combiner<Job, Answer>;

/// What a caller wants, and by when.
#[derive(Debug)]
pub(super) enum Job {
    Claim(Vec<AddressRequest>, UnixTime),
    Release(Vec<Lease>, UnixTime),
}

#[derive(Debug)]
pub(super) enum Answer {
    Claimed(Result<Vec<Result<Lease, ClaimRefusal>>, IpamError>),
    Released(Result<Vec<Release>, IpamError>),
}

impl Allocator {
    /// For who comes while somebody works.
    pub(super) async fn claim_together(
        &self,
        (network, line): (NetworkId, &Line),
        requests: &[AddressRequest],
        now: UnixTime,
    ) -> Result<Vec<Result<Lease, ClaimRefusal>>, IpamError> {
        match self.together(network, line, Job::Claim(requests.to_vec(), now)).await {
            Answer::Claimed(answer) => answer,
            Answer::Released(_) => Err(IpamError::Contended { attempts: 0 }),
        }
    }

    /// Leases of one network, for who comes while somebody works.
    pub(super) async fn release_together(
        &self,
        (network, line): (NetworkId, &Line),
        leases: &[Lease],
        now: UnixTime,
    ) -> Result<Vec<Release>, IpamError> {
        match self.together(network, line, Job::Release(leases.to_vec(), now)).await {
            Answer::Released(answer) => answer,
            Answer::Claimed(_) => Err(IpamError::Contended { attempts: 0 }),
        }
    }

    async fn together(&self, network: NetworkId, line: &Line, job: Job) -> Answer {
        let ticket = line.join(job);
        loop {
            match ticket.turn().await {
                Turn::Answer(answer) => return answer,
                Turn::Work(work) => {
                    let jobs: Vec<&Job> = work.jobs().collect();
                    let answers = self.serve(network, &jobs).await;
                    work.done(answers);
                }
            }
        }
    }

    /// All releases first, then all claims, each as one. The latest of the callers' dates counts for all.
    async fn serve(&self, network: NetworkId, jobs: &[&Job]) -> Vec<Answer> {
        let (mut leases, mut requests) = (Vec::new(), Vec::new());
        let mut latest = UnixTime::EPOCH;
        for job in jobs {
            match job {
                Job::Claim(some, now) => {
                    latest = latest.max(*now);
                    requests.extend_from_slice(some);
                }
                Job::Release(some, now) => {
                    latest = latest.max(*now);
                    leases.extend_from_slice(some);
                }
            }
        }
        let released = match leases.is_empty() {
            true => Ok(Vec::new()),
            false => self.release_addresses(network, &leases, latest).await,
        };
        let claimed = match requests.is_empty() {
            true => Ok(Vec::new()),
            false => self.claim_addresses(network, &requests, latest).await,
        };
        let (mut released, mut claimed) = (released.map(Vec::into_iter), claimed.map(Vec::into_iter));
        let part = |job: &&Job| match job {
            Job::Claim(some, _) => Answer::Claimed(share(&mut claimed, some.len())),
            Job::Release(some, _) => Answer::Released(share(&mut released, some.len())),
        };
        jobs.iter().map(part).collect()
    }
}

/// The next `count` of what came out, or why nothing did.
fn share<T>(all: &mut Result<std::vec::IntoIter<T>, IpamError>, count: usize) -> Result<Vec<T>, IpamError> {
    match all {
        Ok(all) => Ok(all.by_ref().take(count).collect()),
        Err(error) => Err(error.clone()),
    }
}
