//! Steps, carried out.

use std::collections::BTreeMap;
use std::ops::Range;

use nix::libc::{EBUSY, EEXIST, ENOENT};
use overlay_core::{Applied, State as _, StepError};

use super::kernel::Nft;
use super::wire::{self, chain, element, rule, set, table};
use super::{Family, Step, TableKey, observe};
use crate::netlink::{BatchError, Flags, NetlinkError, Requests};

/// Carries out steps in one transaction, or in several where one does not fit.
///
/// A transaction with a step whose effect is there already is refused as a whole. Then what there is is read, and what is
/// left to do is done.
pub(super) fn out(nft: &mut Nft, steps: &[Step]) -> Result<(), StepError> {
    if steps.is_empty() {
        return Ok(());
    }
    let Err(failed) = attempt(nft, steps) else {
        steps.iter().filter(|step| step.table().family == Family::Netdev).for_each(|step| hook(nft, step));
        return Ok(());
    };
    if failed.applied != Applied::Nothing || !failed.may_be_done_already() {
        nft.generation = None;
        return Err(failed.of(steps));
    }
    let at = failed.at;
    let there = match observe::state(nft) {
        Ok(found) => found,
        Err(source) => return Err(StepError { at, applied: Applied::Nothing, source }),
    };
    let mut wanted = there.clone();
    steps.iter().for_each(|step| wanted.apply(step));
    let rest = there.plan(&wanted);
    let done = if rest.is_empty() { Ok(()) } else { attempt(nft, &rest) };
    // Whoever planned these steps believed something else to be there.
    nft.generation = None;
    done.map_err(|again| {
        let applied = if again.applied == Applied::Nothing { Applied::Nothing } else { Applied::Unknown };
        StepError { at, applied, source: again.of(&rest).source }
    })
}

/// Remembers which chains of devices there are.
fn hook(nft: &mut Nft, step: &Step) {
    match step {
        Step::AddChain(table, name, _) => drop(nft.hooked.insert((table.clone(), name.clone()))),
        Step::ClearChain(table, name) | Step::RemoveChain(table, name) => {
            nft.hooked.remove(&(table.clone(), name.clone()));
        }
        Step::ClearTable(table) | Step::RemoveTable(table) => nft.hooked.retain(|(at, _)| at != table),
        _ => {}
    }
}

/// A transaction that was refused.
struct Failed {
    at: usize,
    applied: Applied,
    step: usize,
    source: NetlinkError,
}

impl Failed {
    fn may_be_done_already(&self) -> bool {
        matches!(self.source.errno(), Some(ENOENT | EEXIST | EBUSY))
    }

    fn of(self, steps: &[Step]) -> StepError {
        let doing = steps.get(self.step).map_or_else(|| "change tables".to_owned(), ToString::to_string);
        StepError { at: self.at, applied: self.applied, source: self.source.during(doing) }
    }
}

fn attempt(nft: &mut Nft, steps: &[Step]) -> Result<(), Failed> {
    let written = Written::of(nft, steps).map_err(|(step, source)| {
        let applied = Applied::Nothing;
        Failed { at: step, applied, step, source }
    })?;
    let nothing = |source| Failed { at: 0, applied: Applied::Nothing, step: 0, source };
    let size = written.requests.size() + FRAME;
    let room = nft.socket.transaction_room(size).map_err(nothing)?;
    if size <= room {
        return send(nft, &written, steps, 0..steps.len());
    }
    let cuts = written.cuts(steps, room).map_err(nothing)?;
    let mut first = 0;
    for end in cuts {
        send(nft, &written, steps, first..end).map_err(|failed| match first {
            0 => failed,
            _ if failed.applied == Applied::Nothing => Failed { at: first, applied: Applied::Before, ..failed },
            _ => failed,
        })?;
        first = end;
    }
    Ok(())
}

/// Sends a part of the steps as one transaction.
///
/// That its first message is to be echoed has the kernel tell us of the generation that the transaction makes, too. Where
/// much would be told of the first, one goes ahead of it of which nothing is.
fn send(nft: &mut Nft, written: &Written, steps: &[Step], part: Range<usize>) -> Result<(), Failed> {
    let (from, to) = (written.start(part.start), written.start(part.end));
    let mut batch = Requests::default();
    nft.generation = nft.generation.map(|known| nft.writers.since(known));
    wire::begin(&mut batch, nft.generation);
    if let Some(key) = steps.get(part.start).filter(|step| tells_much(step)).map(Step::table) {
        table::touch(&mut batch, nft.mark.at(key, &nft.mark.table(&key.name)));
    }
    let ahead = batch.len();
    batch.add_part(&written.requests, from, to);
    batch.flag(1, Flags::ECHO);
    batch.flag(batch.len() - 1, Flags::ACK);
    wire::end(&mut batch);
    let mut made = None;
    let sent = nft.socket.transaction_with(&batch, |message| {
        made = wire::parse_generation(message).ok().flatten().or(made);
    });
    match sent {
        Ok(()) => {
            nft.generation = match (nft.generation, made) {
                (Some(before), Some(made)) => {
                    nft.writers.made(before, made);
                    Some(made)
                }
                // Nothing is said of a transaction that changed nothing: then it is the same still.
                (Some(before), None) => nft.now().ok().filter(|now| *now == before),
                (None, _) => None,
            };
            Ok(())
        }
        Err(error) => {
            let step = written.step(from + error.at.saturating_sub(ahead)).clamp(part.start, part.end - 1);
            let applied = match error.applied() {
                Applied::Nothing | Applied::Before => Applied::Nothing,
                Applied::Unknown => Applied::Unknown,
            };
            let BatchError { source, .. } = error;
            Err(Failed { at: step, applied, step, source })
        }
    }
}

/// Steps as requests.
struct Written {
    requests: Requests,
    /// For each step, where its requests end.
    ends: Vec<usize>,
}

impl Written {
    fn of(nft: &Nft, steps: &[Step]) -> Result<Self, (usize, NetlinkError)> {
        let mut writer = Writer { nft, tables: BTreeMap::new(), set: 0 };
        let mut written = Self { requests: Requests::default(), ends: Vec::new() };
        for (at, step) in steps.iter().enumerate() {
            writer.write(&mut written.requests, step);
            written.requests.check().map_err(|error| (at, error))?;
            written.ends.push(written.requests.len());
        }
        Ok(written)
    }

    /// Where a step's requests start.
    fn start(&self, step: usize) -> usize {
        step.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The step that a request is for.
    fn step(&self, request: usize) -> usize {
        self.ends.partition_point(|end| *end <= request)
    }

    fn size(&self, first: usize, end: usize) -> usize {
        self.requests.size_of_first(self.start(end)) - self.requests.size_of_first(self.start(first)) + FRAME
    }

    /// Where to part the steps so that each transaction fits: only within what nothing leads to yet.
    fn cuts(&self, steps: &[Step], room: usize) -> Result<Vec<usize>, NetlinkError> {
        let ahead = steps.iter().take_while(|step| is_loading(step, steps)).count();
        let mut cuts = Vec::new();
        let mut first = 0;
        let mut end = 0;
        while self.size(first, steps.len()) > room {
            while end < ahead && self.size(first, end + 1) <= room {
                end += 1;
            }
            if end == first {
                let size = self.size(first, steps.len());
                return Err(NetlinkError::TooLarge { what: "a transaction", size, limit: room });
            }
            cuts.push(end);
            first = end;
        }
        cuts.push(steps.len());
        Ok(cuts)
    }
}

/// Whether a step makes what nothing leads to yet.
fn is_loading(step: &Step, steps: &[Step]) -> bool {
    match step {
        Step::AddTable(_) | Step::AddChain(_, _, None) | Step::AddOpenChain(..) | Step::AddSet(..) => true,
        Step::PutElements(table, set, _) => {
            steps.iter().any(|made| matches!(made, Step::AddSet(at, name, _) if at == table && name == set))
        }
        _ => false,
    }
}

struct Writer<'a> {
    nft: &'a Nft,
    tables: BTreeMap<&'a TableKey, String>,
    /// The number of the set that was written last.
    set: u32,
}

impl<'a> Writer<'a> {
    fn write(&mut self, requests: &mut Requests, step: &'a Step) {
        let key = step.table();
        let nft = self.nft;
        let kernel_name = self.tables.entry(key).or_insert_with(|| nft.mark.table(&key.name));
        let at = nft.mark.at(key, kernel_name);
        match step {
            Step::ClearTable(_) | Step::RemoveTable(_) => table::remove(requests, at),
            Step::AddTable(_) => table::add(requests, at, &nft.mark.comment),
            Step::ClearChain(_, name) | Step::RemoveChain(_, name) => chain::remove(requests, at, name.as_str()),
            Step::AddChain(_, name, base) => chain::add(requests, at, name.as_str(), base.as_ref()),
            Step::AddOpenChain(_, name) => chain::add_open(requests, at, name.as_str()),
            Step::SetPolicy(_, name, policy) => chain::set_policy(requests, at, name.as_str(), *policy),
            Step::ClearSet(_, name) | Step::RemoveSet(_, name) => set::remove(requests, at, name.as_str()),
            Step::AddSet(_, name, head) => {
                self.set += 1;
                set::add(requests, at, name.as_str(), head, self.set);
            }
            Step::PutElements(_, name, elements) => element::put(requests, at, name.as_str(), elements),
            Step::EmptySet(_, name) => element::take_all(requests, at, name.as_str()),
            Step::TakeElements(_, name, elements) => element::take(requests, at, name.as_str(), elements),
            Step::SetRules(_, name, rules) => {
                rule::flush(requests, at, name.as_str());
                rules.iter().for_each(|one| rule::add(requests, at, name.as_str(), one));
            }
        }
    }
}

/// Whether a step could be told of in more messages than our buffer holds. None of these is of use without the table.
const fn tells_much(step: &Step) -> bool {
    let of_table = matches!(step, Step::ClearTable(_) | Step::RemoveTable(_) | Step::SetRules(..));
    let of_chain = matches!(step, Step::ClearChain(..) | Step::RemoveChain(..));
    let of_set = matches!(step, Step::ClearSet(..) | Step::RemoveSet(..) | Step::EmptySet(..));
    of_table || of_chain || of_set || matches!(step, Step::PutElements(..) | Step::TakeElements(..))
}

const FRAME: usize = 64; // the messages that open and close a transaction: 48
