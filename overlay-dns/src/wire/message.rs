//! Messages from upstream servers, walked from record to record.

use smallvec::SmallVec;

use super::{HEADER_LEN, long, word};

/// A message whose records were all found to lie within it.
#[derive(Debug)]
pub(crate) struct Message<'m> {
    pub(crate) bytes: &'m [u8],
    pub(crate) records: SmallVec<[Record; 16]>,
    /// Where the first record is.
    pub(crate) question_end: usize,
}

/// One record, by where it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) section: Section,
    pub(crate) start: usize,
    /// Where its type is; class, TTL and length follow.
    pub(crate) fixed: usize,
    /// Where its data end.
    pub(crate) end: usize,
    pub(crate) record_type: u16,
    pub(crate) ttl: u32,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// A name out of a message: uncompressed, in small letters, without the closing zero.
pub(crate) type Name = SmallVec<[u8; 64]>;

impl<'m> Message<'m> {
    /// Walks over a message with one question. Bytes behind the last record are not looked at.
    pub(crate) fn parse(bytes: &'m [u8]) -> Option<Self> {
        if word(bytes, 4)? != 1 {
            return None;
        }
        let question_end = skip_name(bytes, HEADER_LEN)?.checked_add(4)?;
        if question_end > bytes.len() {
            return None;
        }
        let mut message = Self { bytes, records: SmallVec::new(), question_end };
        let mut at = question_end;
        for (section, count) in [(Section::Answer, 6), (Section::Authority, 8), (Section::Additional, 10)] {
            for _ in 0..word(bytes, count)? {
                let record = Record::parse(bytes, section, at)?;
                at = record.end;
                message.records.push(record);
            }
        }
        Some(message)
    }

    pub(crate) fn flags(&self) -> u16 {
        word(self.bytes, 2).unwrap_or_default()
    }

    /// The question as it stands: name, type and class.
    pub(crate) fn question(&self) -> &'m [u8] {
        self.bytes.get(HEADER_LEN..self.question_end).unwrap_or_default()
    }

    pub(crate) fn section(&self, section: Section) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.section == section)
    }

    /// Where a section ends.
    pub(crate) fn end_of(&self, section: Section) -> usize {
        self.records.iter().rev().find(|record| record.section <= section).map_or(self.question_end, |last| last.end)
    }

    /// The name at `at`.
    pub(crate) fn name(&self, at: usize) -> Option<Name> {
        name(self.bytes, at).map(|(name, _)| name)
    }

    /// Where the name at `at` ends in that place.
    pub(crate) fn name_end(&self, at: usize) -> Option<usize> {
        name(self.bytes, at).map(|(_, end)| end)
    }
}

impl Record {
    fn parse(bytes: &[u8], section: Section, start: usize) -> Option<Self> {
        let fixed = skip_name(bytes, start)?;
        let end = fixed + 10 + usize::from(word(bytes, fixed + 8)?);
        (end <= bytes.len()).then_some(())?;
        Some(Self { section, start, fixed, end, record_type: word(bytes, fixed)?, ttl: long(bytes, fixed + 4)? })
    }

    /// Where its TTL is.
    pub(crate) const fn ttl_at(&self) -> usize {
        self.fixed + 4
    }

    /// Where its data are.
    pub(crate) const fn data(&self) -> usize {
        self.fixed + 10
    }
}

/// Where what follows the name at `at` begins. A pointer ends a name; where it leads is not looked at here.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return (at + 2 <= bytes.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

/// The name at `at`, its pointers followed, and where it ends in this place. A pointer leads to an earlier place than the
/// labels it ends (RFC 1035 §4.1.4), so there are no loops, and none into the header, which is another when the message is given on;
/// a name has 255 bytes at most.
pub(crate) fn name(bytes: &[u8], at: usize) -> Option<(Name, usize)> {
    let (mut name, mut from, mut before) = (Name::new(), at, at);
    let mut end = None;
    loop {
        match *bytes.get(from)? {
            0 => return Some((name, end.unwrap_or(from + 1))),
            length @ 1..=63 => {
                let label = bytes.get(from..from + 1 + usize::from(length))?;
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() > 254 {
                    return None;
                }
                from += label.len();
            }
            0xc0.. => {
                let to = usize::from(word(bytes, from)? & 0x3fff);
                if !(HEADER_LEN..before).contains(&to) {
                    return None;
                }
                end = end.or(Some(from + 2));
                (from, before) = (to, to);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_that_leads_on_or_to_itself_is_refused() {
        let name = |after: &[u8], at| name(&[&[0; HEADER_LEN], after].concat(), HEADER_LEN + at);
        assert_eq!(name(b"\xc0\x0c", 0), None);
        assert_eq!(name(b"\x01a\xc0\x0c", 2), None, "it comes back to where it was");
        assert_eq!(name(b"\x01a\xc0\x10\x00", 0), None);
        assert_eq!(name(b"\x01A\x00\x01b\xc0\x0c", 3), Some((Name::from_slice(b"\x01b\x01a"), HEADER_LEN + 7)));
    }

    #[test]
    fn a_pointer_into_the_header_is_refused() {
        let bytes = [&[0; HEADER_LEN][..], b"\x01a\xc0\x0b"].concat();
        assert_eq!(name(&bytes, HEADER_LEN), None);
    }

    #[test]
    fn a_name_that_pointers_make_too_long_is_refused() {
        let mut bytes = vec![0; HEADER_LEN];
        let mut starts = Vec::new();
        for number in 0..5_u16 {
            starts.push(bytes.len());
            bytes.push(60);
            bytes.extend([b'a'; 60]);
            match number {
                0 => bytes.push(0),
                _ => bytes.extend((0xc000 | starts[usize::from(number) - 1] as u16).to_be_bytes()),
            }
        }
        assert!(name(&bytes, starts[3]).is_some_and(|(name, _)| name.len() == 244));
        assert_eq!(name(&bytes, starts[4]), None);
    }
}
