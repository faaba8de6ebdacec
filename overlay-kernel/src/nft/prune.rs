//! What is in maps that rules fill: taken out where it counts no more.

use std::collections::BTreeSet;

use nix::libc::ENOENT;
use overlay_core::{Backend as _, BackendError, ErrorKind, Name};

use super::kernel::Nft;
use super::observe::elements;
use super::set::{Datum, Form};
use super::value::Bytes;
use super::wire::element::{self, Pair};
use super::wire::set;
use super::{Elements, Set, Step, TableKey};
use crate::netlink::NetlinkError;

impl Nft {
    /// Takes out of a map that [rules fill](super::Set::filled) what another set does not vouch for: that has no key made of the element's own
    /// without its first part, and what it leads to. So a map `client . VIP : replica` is held to a set `VIP . replica`. Says how
    /// many were taken. O(n + m).
    ///
    /// Rules go on filling it meanwhile: a rule that asks the other set first puts nothing in that would have to go again.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if one of both is not there.
    pub fn prune(&mut self, table: &TableKey, map: &Name, vouching: &Name) -> Result<usize, BackendError> {
        let mut taken = 0;
        for attempt in 0..TRIES {
            let all =
                self.unvouched(table, map, vouching).map_err(|error| error.during(format!("prune {table} {map}")))?;
            if all.is_empty() {
                return Ok(taken);
            }
            taken += all.len();
            // One that ends by itself meanwhile has a transaction refused as a whole: then it is looked again, and fewer are taken at a time.
            let many = (Elements::MAX >> (2 * attempt)).max(1);
            for part in all.chunks(many) {
                let elements = Elements { form: Form::Single, all: part.to_vec() };
                let step = Step::TakeElements(table.clone(), map.clone(), elements);
                self.apply(&[step]).map_err(|error| error.source)?;
            }
        }
        Err(BackendError::new(ErrorKind::Interrupted, format!("prune {table} {map}"))
            .caused_by(NetlinkError::Changing { tries: TRIES }))
    }

    /// One set as it is now, without the rest; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn set(&mut self, table: &TableKey, name: &Name) -> Result<Option<Set>, BackendError> {
        let kernel_name = self.mark.table(&table.name);
        let at = self.mark.at(table, &kernel_name);
        let read = |error: NetlinkError| error.during(format!("read set {table} {name}"));
        let found = match self.socket.dump(&set::dump(at), set::parse) {
            Err(error) if error.errno() == Some(ENOENT) => return Ok(None),
            found => found.map_err(read)?,
        };
        let Some(found) = found.into_iter().find(|found| found.name == name.as_str()) else { return Ok(None) };
        let (elements, _) = elements(&mut self.socket, at, name.as_str(), &found.head).map_err(read)?;
        Ok(Some(Set { head: found.head, elements }))
    }

    fn unvouched(
        &mut self,
        table: &TableKey,
        map: &Name,
        vouching: &Name,
    ) -> Result<Vec<(Bytes, Datum)>, NetlinkError> {
        let filled = self.told(table, map)?;
        let vouching: BTreeSet<Bytes> = match filled.is_empty() {
            true => return Ok(Vec::new()),
            false => self.told(table, vouching)?.into_iter().map(|(key, _)| key).collect(),
        };
        let first = match vouching.first().map(|key| key.len()) {
            Some(len) => move |(key, value): &Pair| (key.len() + value.len()).saturating_sub(len),
            None => return Ok(filled.into_iter().map(|(key, _)| (key, Datum::Nothing)).collect()),
        };
        let unvouched = filled.into_iter().filter(|element| {
            let mut rest = Bytes::new(element.0.get(first(element)..).unwrap_or_default());
            rest.push(&element.1);
            !vouching.contains(&rest)
        });
        Ok(unvouched.map(|(key, _)| (key, Datum::Nothing)).collect())
    }

    /// The keys and values of a set, each once.
    fn told(&mut self, table: &TableKey, set: &Name) -> Result<Vec<Pair>, NetlinkError> {
        let kernel_name = self.mark.table(&table.name);
        let at = self.mark.at(table, &kernel_name);
        for _ in 0..TRIES {
            let mut told = Vec::new();
            self.socket.dump(&element::dump(at, set.as_str()), |message| {
                element::pairs(message, &mut told)?;
                Ok(None::<()>)
            })?;
            let count = told.len();
            told.sort();
            told.dedup_by(|a, b| a.0 == b.0);
            if told.len() == count {
                return Ok(told);
            }
        }
        Err(NetlinkError::Changing { tries: TRIES })
    }
}

const TRIES: usize = 16;
