//! nf_tables' messages (`linux/netfilter/nf_tables.h`), one file per kind.

pub(super) mod chain;
pub(super) mod element;
pub(super) mod expr;
mod expr_read;
pub(super) mod rule;
pub(super) mod set;
pub(super) mod table;

use super::{Family, Verdict};
use crate::netlink::{Attributes, Body, Flags, Malformed, Message, Requests};

/// A table as messages name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) family: Family,
    pub(super) table: &'a str,
}

/// `struct nfgenmsg`: family, version, resource.
pub(super) const HEAD: usize = 4;

pub(super) fn head<'a, 'b>(body: &'a mut Body<'b>, family: u8) -> &'a mut Body<'b> {
    body.raw(&[family, 0, 0, 0])
}

/// Opens a transaction; the kernel refuses it if its tables have another generation than this.
pub(super) fn begin(requests: &mut Requests, generation: Option<u32>) {
    requests.add(BATCH_BEGIN, Flags::NONE, |body| {
        body.raw(&[0, 0]).raw(&SUBSYSTEM.to_be_bytes());
        if let Some(generation) = generation {
            body.be32(BATCH_GENERATION, generation);
        }
    });
}

/// Closes a transaction.
pub(super) fn end(requests: &mut Requests) {
    requests.add(BATCH_END, Flags::NONE, |body| {
        body.raw(&[0, 0]).raw(&SUBSYSTEM.to_be_bytes());
    });
}

/// Asks for the generation of all tables of the namespace.
pub(super) fn generation() -> Requests {
    Requests::one(message(GET_GENERATION), Flags::NONE, |body| {
        head(body, 0);
    })
}

/// Reads a generation.
pub(super) fn parse_generation(message: &Message<'_>) -> Result<Option<u32>, Malformed> {
    if message.kind != self::message(NEW_GENERATION) {
        return Ok(None);
    }
    message.attributes(HEAD)?.find(GENERATION_ID)?.map(|id| id.be32()).transpose()
}

pub(super) const fn message(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// Whether a message's `kind` is this one of nf_tables'.
pub(super) const fn is(kind: u16, wanted: u16) -> bool {
    kind == message(wanted)
}

fn write_value<'a, 'b>(body: &'a mut Body<'b>, kind: u16, bytes: &[u8]) -> &'a mut Body<'b> {
    body.nest(kind, |data| {
        data.attribute(DATA_VALUE, bytes);
    })
}

fn write_verdict<'a, 'b>(body: &'a mut Body<'b>, kind: u16, verdict: &Verdict) -> &'a mut Body<'b> {
    let code: i32 = match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Continue => -1,
        Verdict::Jump(_) => -3,
        Verdict::Goto(_) => -4,
        Verdict::Return => -5,
    };
    body.nest(kind, |data| {
        data.nest(DATA_VERDICT, |inside| {
            inside.be32(VERDICT_CODE, code.cast_unsigned());
            if let Some(chain) = verdict.chain() {
                inside.text(VERDICT_CHAIN, chain.as_str());
            }
        });
    })
}

/// A value or a verdict that is one we make; nothing for others.
enum Data<'a> {
    Value(&'a [u8]),
    Verdict(Verdict),
    Strange,
}

fn read_data(attributes: Attributes<'_>) -> Result<Data<'_>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            DATA_VALUE => return Ok(Data::Value(attribute.value)),
            DATA_VERDICT => return Ok(read_verdict(attribute.nested())?.map_or(Data::Strange, Data::Verdict)),
            _ => {}
        }
    }
    Err(Malformed::new("data without a value"))
}

fn read_verdict(attributes: Attributes<'_>) -> Result<Option<Verdict>, Malformed> {
    let (mut code, mut chain) = (0, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            VERDICT_CODE => code = attribute.be32()?.cast_signed(),
            VERDICT_CHAIN => chain = attribute.text().ok().and_then(|name| name.parse().ok()),
            _ => {}
        }
    }
    Ok(match (code, chain) {
        (0, _) => Some(Verdict::Drop),
        (1, _) => Some(Verdict::Accept),
        (-1, _) => Some(Verdict::Continue),
        (-5, _) => Some(Verdict::Return),
        (-3, Some(chain)) => Some(Verdict::Jump(chain)),
        (-4, Some(chain)) => Some(Verdict::Goto(chain)),
        _ => None,
    })
}

/// `NFTNL_UDATA_*_COMMENT`: a text that `nft` shows as the object's comment.
fn write_comment<'a, 'b>(body: &'a mut Body<'b>, kind: u16, text: &str) -> &'a mut Body<'b> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![COMMENT, length];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    body.attribute(kind, &bytes)
}

fn read_comment(mut bytes: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = bytes {
        let (value, after) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        bytes = after;
    }
    None
}

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENERATION: u16 = 1;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;
const GENERATION_ID: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const COMMENT: u8 = 0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Messages;
    use crate::nft::step::Elements;
    use crate::nft::testing::state;
    use crate::nft::{Chain, Set, State, Table, TableKey};

    /// A state as requests, read back as if the kernel had dumped them.
    fn through_the_wire(state: &State) -> State {
        let mut back = State::default();
        for (key, table) in &state.tables {
            let name = format!("ov-{}", key.name);
            let at = At { family: key.family, table: &name };
            let mut requests = Requests::default();
            table::add(&mut requests, at, "somebody");
            for (name, set) in &table.sets {
                set::add(&mut requests, at, name.as_str(), &set.head, 1);
            }
            for (name, chain) in &table.chains {
                chain::add(&mut requests, at, name.as_str(), chain.base.as_ref());
                chain.rules.iter().for_each(|one| rule::add(&mut requests, at, name.as_str(), one));
            }
            let read = read_table(key, &name, &requests, table);
            back.tables.insert(key.clone(), read);
        }
        back
    }

    fn read_table(key: &TableKey, kernel_name: &str, requests: &Requests, table: &Table) -> Table {
        let mut bytes = Vec::new();
        requests.copy_all(&mut bytes);
        let mut read = Table::default();
        for message in Messages::new(&bytes) {
            let message = message.unwrap();
            if let Some(found) = table::parse(&message).unwrap() {
                assert_eq!((found.family, found.name.as_str(), found.flags), (key.family, kernel_name, 0));
            }
            if let Some(found) = chain::parse(&message).unwrap() {
                let base = found.base.unwrap();
                read.chains.insert(found.name.parse().unwrap(), Chain { base, rules: Vec::new(), open: found.open });
            }
            if let Some(found) = set::parse(&message).unwrap() {
                let original = &table.sets[found.name.as_str()];
                let elements = read_elements(key.family, original);
                read.sets.insert(found.name.parse().unwrap(), Set { head: found.head, elements });
            }
            if let Some(found) = rule::parse(&message, kernel_name).unwrap() {
                read.chains.get_mut(found.chain.as_str()).unwrap().rules.push(found.rule);
            }
        }
        read
    }

    fn read_elements(family: Family, set: &Set) -> BTreeMap<super::super::value::Bytes, super::super::set::Datum> {
        let mut requests = Requests::default();
        let all = set.elements.iter().map(|(key, datum)| (key.clone(), datum.clone())).collect();
        let elements = Elements { form: set.head.form(), all };
        element::put(&mut requests, At { family, table: "t" }, "s", &elements);
        let mut bytes = Vec::new();
        requests.copy_all(&mut bytes);
        let mut found = Vec::new();
        for message in Messages::new(&bytes) {
            assert!(element::parse(&message.unwrap(), &mut found).unwrap());
        }
        found.reverse(); // the kernel's order is its own
        element::assemble(&set.head, found)
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(state in state()) {
            prop_assert_eq!(through_the_wire(&state), state);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(
            kind in 0_u16..20, state in state(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)
        ) {
            let mut requests = Requests::default();
            for (key, table) in &state.tables {
                let at = At { family: key.family, table: "t" };
                for (name, chain) in &table.chains {
                    chain::add(&mut requests, at, name.as_str(), chain.base.as_ref());
                    chain.rules.iter().for_each(|one| rule::add(&mut requests, at, name.as_str(), one));
                }
                for (name, set) in &table.sets {
                    set::add(&mut requests, at, name.as_str(), &set.head, 1);
                    let all = set.elements.iter().map(|(key, datum)| (key.clone(), datum.clone())).collect();
                    element::put(&mut requests, at, name.as_str(), &Elements { form: set.head.form(), all });
                }
            }
            let mut bytes = Vec::new();
            requests.copy_all(&mut bytes);
            for (at, byte) in damage {
                if let Some(len) = std::num::NonZeroUsize::new(bytes.len()) {
                    bytes[at.index(len.get())] = byte;
                }
            }
            for found in Messages::new(&bytes).flatten() {
                for kind in [found.kind, message(kind)] {
                    read_all(&Message { kind, ..found });
                }
            }
        }
    }

    fn read_all(message: &Message<'_>) {
        let _ = (table::parse(message), chain::parse(message), rule::parse(message, "t"), parse_generation(message));
        let mut elements = Vec::new();
        let _ = element::parse(message, &mut elements);
        if let Ok(Some(set)) = set::parse(message) {
            let _ = element::assemble(&set.head, elements);
        }
    }
}
