//! A succession as a file has it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::str::FromStr;

use overlay_core::NodeId;
use zeroize::Zeroizing;

use super::Succession;
use crate::gossip::{Generation, GossipKey, KeyId, KeyringError, SuccessionRecord};

/// A text that is no succession. What stands there is not repeated: it may be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionTextError {
    /// It does not begin as such a text does.
    #[error("it does not begin with \"{FIRST}\"")]
    Foreign,
    /// A line that is none of those there are.
    #[error("line {number} is no line of such a file")]
    Line {
        /// Which, from 1.
        number: usize,
    },
    /// Something that is needed is not there.
    #[error("it has no key that seals")]
    NoPrimary,
    /// The keys cannot be together.
    #[error(transparent)]
    Keys(#[from] KeyringError),
}

const FIRST: &str = "overlay keys of gossip 1";

impl Succession {
    /// As lines of text, its keys in it: for a file that only this node reads. [`FromStr`] reads it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(8192)); // none of it is left behind by growing
        let _ = writeln!(text, "{FIRST}\nfloor {}\naim {}\nprimary {}", self.floor, self.aim, self.primary);
        for (number, key) in &self.keys {
            let _ = write!(text, "key {number} ");
            for byte in key.secret_bytes() {
                let _ = write!(text, "{byte:02x}");
            }
            let _ = writeln!(text);
        }
        for id in &self.retired {
            let _ = writeln!(text, "retired {id}");
        }
        for node in &self.without {
            let _ = writeln!(text, "without {node}");
        }
        text
    }
}

impl FromStr for Succession {
    type Err = SuccessionTextError;

    fn from_str(text: &str) -> Result<Self, SuccessionTextError> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST) {
            return Err(SuccessionTextError::Foreign);
        }
        let mut read = Self {
            keys: Vec::new(),
            primary: Generation::NONE.id,
            floor: Generation::NONE,
            aim: Generation::NONE,
            without: [].into(),
            retired: VecDeque::new(),
        };
        for (at, line) in lines.enumerate() {
            let number = at + 2;
            read.read(line).unwrap_or(Err(SuccessionTextError::Line { number }))?;
        }
        if read.get(read.primary).is_some() { Ok(read) } else { Err(SuccessionTextError::NoPrimary) }
    }
}

impl Succession {
    /// Takes a line; `None` if it is none.
    fn read(&mut self, line: &str) -> Option<Result<(), SuccessionTextError>> {
        let (word, value) = line.split_once(' ')?;
        match word {
            "floor" => self.floor = generation(value)?,
            "aim" => self.aim = generation(value)?,
            "primary" => self.primary = id(value)?,
            "retired" => self.retired.push_back(id(value).filter(|_| self.retired.len() < super::RETIRED)?),
            "without" => {
                let node: NodeId = value.parse().ok()?;
                (self.without.len() < SuccessionRecord::WITHOUT).then(|| self.without.insert(node))?;
            }
            "key" => {
                let (count, key) = value.split_once(' ')?;
                let key: GossipKey = key.parse().ok()?;
                return Some(self.put(key, number(count)?).map(drop).map_err(Into::into));
            }
            _ => return None,
        }
        Some(Ok(()))
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number <= Generation::MOST)
}

fn generation(text: &str) -> Option<Generation> {
    let (count, name) = text.split_once('.')?;
    Some(Generation { number: number(count)?, id: id(name)? })
}

fn id(text: &str) -> Option<KeyId> {
    let is_hex = text.len() == 2 * KeyId::LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = u32::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    Some(KeyId::from_bytes(bytes.to_be_bytes()))
}
