//! Many callers, one commit.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Lets one of several concurrent callers do the work of all that wait: they would only be in each other's way, as they
/// write to the same blocks.
///
/// Who comes alone works at once, without a place in the queue. Who comes while somebody works waits; when that work ends, the
/// first who waits takes all jobs, does them, and hands the answers out. If that caller's future is dropped meanwhile, the
/// jobs go back to the queue and another takes them: jobs are idempotent. Woken are only those who have an answer or the turn.
///
/// The next turn comes when all answers have been fetched: who has one mostly comes again at once, and is in the next turn
/// then. Else callers fall into two groups that wait for each other, and each commit has half of them.
#[derive(Debug)]
pub(crate) struct Combiner<J, A>(Mutex<State<J, A>>);

#[derive(Debug)]
struct State<J, A> {
    tickets: u64,
    queue: VecDeque<(u64, J)>,
    answers: BTreeMap<u64, A>,
    /// Callers that wait; those that are gone are not in it.
    waiting: BTreeMap<u64, Option<Waker>>,
    busy: bool,
}

impl<J, A> Default for Combiner<J, A> {
    fn default() -> Self {
        let (queue, answers, waiting) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Self(Mutex::new(State { tickets: 0, queue, answers, waiting, busy: false }))
    }
}

impl<J, A> Combiner<J, A> {
    /// The turn to work, for who comes while nobody works or waits.
    pub(crate) fn alone(&self) -> Option<Work<'_, J, A>> {
        let mut state = self.lock();
        if state.busy || !state.queue.is_empty() {
            return None;
        }
        state.busy = true;
        Some(Work { combiner: self, jobs: Vec::new() })
    }

    /// Puts a job into the queue.
    pub(crate) fn join(&self, job: J) -> Ticket<'_, J, A> {
        let mut state = self.lock();
        state.tickets += 1;
        let id = state.tickets;
        state.queue.push_back((id, job));
        state.waiting.insert(id, None);
        Ticket { combiner: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, State<J, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Combiner<(), ()> {
    /// The turn to work alone, one caller after the other; it ends when what this gives is dropped.
    pub(crate) async fn turn(&self) -> Work<'_, (), ()> {
        if let Some(work) = self.alone() {
            return work;
        }
        let ticket = self.join(());
        loop {
            if let Turn::Work(work) = ticket.turn().await {
                return work; // the others' places go back to the queue with it
            }
        }
    }
}

/// A caller's place.
pub(crate) struct Ticket<'c, J, A> {
    combiner: &'c Combiner<J, A>,
    id: u64,
}

/// What a caller has to do.
pub(crate) enum Turn<'c, J, A> {
    /// Nothing: here is the answer.
    Answer(A),
    /// These jobs, and then come again.
    Work(Work<'c, J, A>),
}

impl<'c, J, A> Ticket<'c, J, A> {
    /// Waits for the answer, or for the turn to work.
    pub(crate) async fn turn(&self) -> Turn<'c, J, A> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Turn<'c, J, A>> {
        let mut state = self.combiner.lock();
        if let Some(answer) = state.answers.remove(&self.id) {
            return Poll::Ready(Turn::Answer(answer)); // the next turn comes when this is gone
        }
        if state.busy || !state.answers.is_empty() {
            state.waiting.insert(self.id, Some(context.waker().clone()));
            return Poll::Pending;
        }
        state.busy = true;
        let jobs = Vec::from(std::mem::take(&mut state.queue));
        Poll::Ready(Turn::Work(Work { combiner: self.combiner, jobs }))
    }
}

impl<J, A> Drop for Ticket<'_, J, A> {
    fn drop(&mut self) {
        let mut state = self.combiner.lock();
        state.waiting.remove(&self.id);
        if state.answers.remove(&self.id).is_none() {
            state.queue.retain(|(id, _)| *id != self.id);
        }
        let next = state.next();
        drop(state);
        next.into_iter().for_each(Waker::wake); // the turn may have been this caller's
    }
}

impl<J, A> State<J, A> {
    /// Who has the turn and does not know it yet.
    fn next(&mut self) -> Option<Waker> {
        let (id, _) = self.queue.front().filter(|_| !self.busy && self.answers.is_empty())?;
        self.waiting.get_mut(id)?.take()
    }
}

/// Jobs under way.
pub(crate) struct Work<'c, J, A> {
    combiner: &'c Combiner<J, A>,
    jobs: Vec<(u64, J)>,
}

impl<J, A> Work<'_, J, A> {
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &J> {
        self.jobs.iter().map(|(_, job)| job)
    }

    /// Hands out one answer for each job, in their order.
    pub(crate) fn done(mut self, answers: Vec<A>) {
        let jobs = std::mem::take(&mut self.jobs);
        let mut state = self.combiner.lock();
        for ((id, _), answer) in jobs.into_iter().zip(answers) {
            if state.waiting.contains_key(&id) {
                state.answers.insert(id, answer);
            }
        }
    }
}

impl<J, A> Drop for Work<'_, J, A> {
    /// Lets the others go on. Jobs without an answer wait again, unless their caller is gone.
    fn drop(&mut self) {
        let mut state = self.combiner.lock();
        state.busy = false;
        for (id, job) in std::mem::take(&mut self.jobs).into_iter().rev() {
            if state.waiting.contains_key(&id) {
                state.queue.push_front((id, job));
            }
        }
        let State { answers, waiting, .. } = &mut *state;
        let answered = answers.keys().filter_map(|id| waiting.get_mut(id)?.take());
        let mut wakers: Vec<Waker> = answered.collect();
        wakers.extend(state.next());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Caller<'c> {
        ticket: Ticket<'c, u8, u8>,
        woken: Arc<Woken>,
    }

    impl<'c> Caller<'c> {
        /// Who has come and waits.
        fn waits(line: &'c Combiner<u8, u8>, job: u8) -> Self {
            let caller = Self { ticket: line.join(job), woken: Arc::default() };
            assert!(caller.poll().is_pending());
            caller
        }

        fn poll(&self) -> Poll<Turn<'c, u8, u8>> {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.ticket.poll(&Context::from_waker(&waker))
        }

        fn work(&self) -> Work<'c, u8, u8> {
            match self.poll() {
                Poll::Ready(Turn::Work(work)) => work,
                Poll::Ready(Turn::Answer(answer)) => panic!("answered {answer}"),
                Poll::Pending => panic!("it has to wait"),
            }
        }

        fn answer(&self) -> Option<u8> {
            match self.poll() {
                Poll::Ready(Turn::Answer(answer)) => Some(answer),
                _ => None,
            }
        }

        fn wakes(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_first_who_waits_works_for_all_and_woken_is_who_has_an_answer_or_the_turn() {
        let line = Combiner::default();
        let alone = line.alone().unwrap();
        assert!(line.alone().is_none());
        let [first, second] = [1, 2].map(|job| Caller::waits(&line, job));
        drop(alone);
        assert_eq!((first.wakes(), second.wakes()), (1, 0));
        assert!(line.alone().is_none(), "others were here before");
        let work = first.work();
        assert_eq!(work.jobs().copied().collect::<Vec<_>>(), [1, 2]);
        let [third, fourth] = [3, 4].map(|job| Caller::waits(&line, job));
        work.done(vec![10, 20]);
        assert_eq!(first.answer(), Some(10));
        drop(first);
        assert!(third.poll().is_pending(), "an answer was not fetched");
        assert_eq!((second.wakes(), third.wakes(), fourth.wakes()), (1, 0, 0));
        assert_eq!(second.answer(), Some(20));
        drop(second);
        assert_eq!((third.wakes(), fourth.wakes()), (1, 0));
        assert_eq!(third.work().jobs().copied().collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn the_turn_and_the_jobs_go_on_to_the_next_when_who_has_them_goes_away() {
        let line = Combiner::default();
        let alone = line.alone().unwrap();
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|job| Caller::waits(&line, job));
        drop(alone);
        drop(first); // woken, and gone before it came to work
        assert_eq!((second.wakes(), third.wakes(), fourth.wakes()), (1, 0, 0));
        drop(second.work());
        drop(second); // gone in the midst of it
        assert_eq!((third.wakes(), fourth.wakes()), (1, 0));
        let work = third.work();
        assert_eq!(work.jobs().copied().collect::<Vec<_>>(), [3, 4], "nobody works for who is gone");
        drop(fourth);
        let fifth = Caller::waits(&line, 5);
        work.done(vec![30, 40]);
        drop(third); // gone with its answer
        assert_eq!(fifth.wakes(), 1);
        drop(fifth);
        let state = line.lock();
        assert!(state.queue.is_empty() && state.answers.is_empty() && state.waiting.is_empty() && !state.busy);
    }

    #[test]
    fn turns_come_one_after_the_other_in_the_order_of_coming() {
        let line = Combiner::<(), ()>::default();
        let mut turns: Vec<_> = (0..3).map(|_| Box::pin(line.turn())).collect();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = turns[0].as_mut().poll(&mut context) else { panic!("nobody works") };
        assert!(turns[1..].iter_mut().all(|turn| turn.as_mut().poll(&mut context).is_pending()));
        drop(first);
        let Poll::Ready(second) = turns[1].as_mut().poll(&mut context) else { panic!("it was the next") };
        assert!(turns[2].as_mut().poll(&mut context).is_pending());
        drop(second);
        assert!(turns[2].as_mut().poll(&mut context).is_ready());
    }
}
