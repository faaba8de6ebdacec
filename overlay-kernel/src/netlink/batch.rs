//! Many requests in few system calls.

use overlay_core::Applied;

use super::encode::{self, Room};
use super::error::TRANSACTION;
use super::message::Verdict;
use super::socket::Read;
use super::{Flags, Malformed, Message, Messages, NetlinkError, Requests, Socket};

impl Socket {
    /// Sends many requests, as many at once as the buffers allow, and waits until all are in effect.
    ///
    /// They are carried out in order, but each is a change of its own: when one is refused the kernel still carries out
    /// those behind it that were sent with it. `accept` is called with the index and the errno of each refusal, and
    /// says whether it is as good as done: `EEXIST` for what should be there, say.
    ///
    /// # Errors
    /// The first refusal that was not accepted, or what else broke the batch off, with what is in effect. Nothing is
    /// sent after the part with that refusal. [`NetlinkError::TooLarge`] if a single request does not fit the buffer.
    pub fn batch(&mut self, requests: &Requests, accept: impl FnMut(usize, i32) -> bool) -> Result<(), BatchError> {
        self.at_work(|socket| socket.exchange_all(requests, accept))
    }

    fn exchange_all(
        &mut self,
        requests: &Requests,
        mut accept: impl FnMut(usize, i32) -> bool,
    ) -> Result<(), BatchError> {
        requests.check().map_err(|source| BatchError { at: 0, sent: 0, source })?;
        let mut first = 0;
        while first < requests.len() {
            let taken = self.write_chunk(requests, first);
            match self.exchange_chunk(first, taken, &mut accept) {
                Ok(None) => first += taken,
                Ok(Some((at, source))) => return Err(BatchError { at, sent: first + taken, source }),
                Err(source) => {
                    let sent = if matches!(source, NetlinkError::TooLarge { .. }) { first } else { first + taken };
                    return Err(BatchError { at: first, sent, source });
                }
            }
        }
        Ok(())
    }

    /// Sends all requests in one system call and hears every answer: what nf_tables takes as one transaction, between
    /// its begin and end messages. At least one request must have [`Flags::ACK`]; ask it of the last real one, as the
    /// kernels before 6.10 answer no end message.
    ///
    /// # Errors
    /// The first refusal; nothing is in effect then. [`NetlinkError::TooLarge`] names the limit if the buffer cannot
    /// be made large enough: load large sets in transactions of their own first.
    pub fn transaction(&mut self, requests: &Requests) -> Result<(), BatchError> {
        self.transaction_with(requests, |_| {})
    }

    /// The same, and hands over what else the kernel says meanwhile in answer to them: what was asked to be echoed.
    pub(crate) fn transaction_with(
        &mut self,
        requests: &Requests,
        echo: impl FnMut(&Message<'_>),
    ) -> Result<(), BatchError> {
        self.at_work(|socket| socket.exchange_transaction(requests, echo))
    }

    fn exchange_transaction(&mut self, requests: &Requests, echo: impl FnMut(&Message<'_>)) -> Result<(), BatchError> {
        let nothing = |source| BatchError { at: 0, sent: 0, source };
        requests.check().map_err(nothing)?;
        self.make_room(requests.size()).map_err(nothing)?;
        let (size, limit) = (requests.size(), self.buffers.datagram());
        if size > limit {
            return Err(nothing(NetlinkError::TooLarge { what: TRANSACTION, size, limit }));
        }
        let sequence = self.number(requests.len());
        self.outgoing.clear();
        requests.copy_all(&mut self.outgoing);
        let mut wanted = 0;
        for (number, start) in (sequence..).zip(requests.starts(0, requests.len())) {
            let message = &mut self.outgoing[start..];
            encode::stamp(message, number, Flags::NONE);
            wanted += usize::from(encode::wants_ack(message));
        }
        self.send().map_err(nothing)?;
        let all = Chunk { first: 0, sequence, count: requests.len() };
        self.hear_transaction(all, wanted, echo)
    }

    /// The longest transaction up to `size` bytes that can be sent, after the buffer was made as large as it may be.
    pub(crate) fn transaction_room(&mut self, size: usize) -> Result<usize, NetlinkError> {
        self.make_room(size)?;
        Ok(self.buffers.datagram())
    }

    fn write_chunk(&mut self, requests: &Requests, first: usize) -> usize {
        let room = Room { bytes: self.buffers.datagram().min(CHUNK), count: self.buffers.answers().max(1) };
        self.outgoing.clear();
        requests.copy_chunk(first, room, &mut self.outgoing)
    }

    /// Sends a chunk that was written and hears its answers: refusals, and an acknowledgement of the last request.
    fn exchange_chunk(
        &mut self,
        first: usize,
        count: usize,
        accept: &mut impl FnMut(usize, i32) -> bool,
    ) -> Result<Option<(usize, NetlinkError)>, NetlinkError> {
        let chunk = Chunk { first, sequence: self.number(count), count };
        chunk.stamp(&mut self.outgoing);
        self.send()?;
        let deadline = self.start();
        let mut refusal = None;
        loop {
            let datagram = self.receive(&deadline)?;
            for message in Messages::new(datagram) {
                let message = message?;
                let (Some(at), Some(verdict)) = (chunk.index(message.sequence), message.verdict()) else { continue };
                let verdict: Verdict = verdict?;
                if verdict.errno != 0 && !accept(at, verdict.errno) && refusal.is_none() {
                    refusal = verdict.into_result().err().map(|error| (at, error));
                }
                if at + 1 == first + count {
                    return Ok(refusal);
                }
            }
        }
    }

    /// Hears until nothing is owed and nothing more is there. What the kernel has to say it says while it is sent to, so
    /// a refusal is there with the answers, even where so many requests were refused that others were lost.
    fn hear_transaction(
        &mut self,
        all: Chunk,
        mut wanted: usize,
        mut echo: impl FnMut(&Message<'_>),
    ) -> Result<(), BatchError> {
        let unknown = |source| BatchError { at: 0, sent: all.count, source };
        let deadline = self.start();
        let mut refusal = None;
        let mut overrun = false;
        loop {
            match self.read().map_err(unknown)? {
                Read::Datagram(size) => {
                    let datagram = self.datagram(size);
                    let answers = all.answers(datagram, &mut echo).map_err(|error| unknown(error.into()))?;
                    wanted = wanted.saturating_sub(answers.done);
                    refusal = refusal.or(answers.refusal);
                }
                Read::Overrun => overrun = true,
                Read::Nothing => match refusal {
                    Some((at, source)) => return Err(BatchError { at, sent: 0, source }),
                    None if overrun => return Err(unknown(self.overrun())),
                    None if wanted == 0 => return Ok(()),
                    None => self.wait(&deadline).map_err(unknown)?,
                },
            }
        }
    }
}

/// A run of requests that are sent at once.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    first: usize,
    sequence: u32,
    count: usize,
}

impl Chunk {
    /// Numbers the messages and asks for an answer to the last: the others answer only if they are refused.
    fn stamp(self, mut messages: &mut [u8]) {
        for number in 0..self.count {
            let flags = if number + 1 == self.count { Flags::ACK } else { Flags::NONE };
            let length = messages.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
            let length = usize::try_from(length).unwrap_or(usize::MAX).next_multiple_of(4);
            encode::stamp(messages, self.sequence.wrapping_add(number as u32), flags);
            messages = messages.get_mut(length..).unwrap_or_default();
        }
    }

    /// What a datagram says of these requests.
    fn answers(self, datagram: &[u8], echo: &mut impl FnMut(&Message<'_>)) -> Result<Answers, Malformed> {
        let mut answers = Answers::default();
        for message in Messages::new(datagram) {
            let message = message?;
            let Some(at) = self.index(message.sequence) else { continue };
            let Some(verdict) = message.verdict() else {
                echo(&message);
                continue;
            };
            match verdict?.into_result() {
                Ok(()) => answers.done += 1,
                Err(error) => answers.refusal = answers.refusal.or(Some((at, error))),
            }
        }
        Ok(answers)
    }

    /// The index of the request with this number.
    fn index(self, sequence: u32) -> Option<usize> {
        let offset = usize::try_from(sequence.checked_sub(self.sequence)?).ok()?;
        (offset < self.count).then_some(self.first + offset)
    }
}

/// What a datagram says: how many requests are done, and the first that was refused.
#[derive(Debug, Default)]
struct Answers {
    done: usize,
    refusal: Option<(usize, NetlinkError)>,
}

/// A batch or transaction that was not carried out whole.
#[derive(Debug, thiserror::Error)]
#[error("request {at} of {sent} that were sent")]
#[non_exhaustive]
pub struct BatchError {
    /// The first request that was refused and not accepted; where it cannot be told, the first without an answer.
    pub at: usize,
    /// How many requests the kernel was given and may have carried out: those from here on are not in effect. 0 if
    /// nothing is.
    pub sent: usize,
    /// Why.
    pub source: NetlinkError,
}

impl BatchError {
    /// What is in effect.
    pub fn applied(&self) -> Applied {
        let refused = matches!(self.source, NetlinkError::Refused { .. });
        match self.sent {
            0 => Applied::Nothing,
            sent if sent == self.at + 1 && refused => Applied::Before,
            sent if sent == self.at => Applied::Before,
            _ => Applied::Unknown,
        }
    }
}

const CHUNK: usize = 128 << 10;
