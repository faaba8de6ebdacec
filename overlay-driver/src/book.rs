//! What is plugged in, written down: so that a driver that starts again plugs it in again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use overlay_core::{EndpointId, IfName, Name, NsKey};
use overlay_node::GatewayPort;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Source, StartError};

/// An endpoint that is plugged in on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugged {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its container.
    pub container: Name,
    /// Where that is.
    pub source: Source,
    /// Which namespace it was; none for a tap.
    pub namespace: Option<NsKey>,
    /// What its interface is called there; or the tap.
    pub interface: IfName,
    /// Its container's port of the node's gateway bridge; none for a tap, and where containers have no way out.
    #[serde(default)]
    pub gateway: Option<GatewayPort>,
}

/// Plugs in a directory, a file for each, which is there whole or not at all.
#[derive(Debug)]
pub(crate) struct Book {
    dir: PathBuf,
    plugs: BTreeMap<EndpointId, Plugged>,
    /// What is wrong with the files of those that are damaged.
    damaged: BTreeMap<EndpointId, String>,
    /// The port of the gateway bridge that was given last.
    last_port: u32,
}

/// What a file begins with.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Page {
    version: u32,
    plugged: Plugged,
}

impl Book {
    /// What is written in a directory, which is made if it is not there. Files that are damaged are left as they are, and told of.
    pub(crate) fn open(dir: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::Dir { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let (mut plugs, mut damaged) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(dir).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            let Some(endpoint) = endpoint_of(&file) else { continue };
            let bytes = match fs::read(&file) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StartError::Dir { dir: file, source }), // it may be read another time
            };
            match read(&bytes) {
                Ok(plugged) => drop(plugs.insert(plugged.endpoint, plugged)),
                Err(Unread::Damaged(why)) => drop(damaged.insert(endpoint, why)),
                Err(Unread::Foreign(reason)) => return Err(StartError::Plug { file, reason }),
            }
        }
        let last_port = plugs.values().filter_map(|plugged| plugged.gateway).map(GatewayPort::get).max().unwrap_or(0);
        Ok(Self { dir: dir.to_owned(), plugs, damaged, last_port })
    }

    /// Endpoints whose files are damaged, those files, and what is wrong with them.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = (EndpointId, PathBuf, &str)> {
        self.damaged.iter().map(|(endpoint, why)| (*endpoint, self.path(*endpoint), why.as_str()))
    }

    /// Whether anything is written down, be it that it cannot be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.plugs.is_empty() && self.damaged.is_empty()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Plugged> {
        self.plugs.values()
    }

    pub(crate) fn get(&self, endpoint: EndpointId) -> Option<&Plugged> {
        self.plugs.get(&endpoint)
    }

    /// The port of the gateway bridge that a container has, or else the next that is free of `room`: one that was given back rests the longest.
    /// `None` if none is free.
    pub(crate) fn gateway_port(&mut self, container: &Name, room: u32) -> Option<GatewayPort> {
        let has = self.plugs.values().find(|plugged| plugged.container == *container && plugged.gateway.is_some());
        if let Some(has) = has {
            return has.gateway;
        }
        let taken: BTreeSet<u32> =
            self.plugs.values().filter_map(|plugged| plugged.gateway).map(GatewayPort::get).collect();
        let after = self.last_port;
        let number = (after + 1..=room).chain(1..=after.min(room)).find(|number| !taken.contains(number))?;
        self.last_port = number;
        GatewayPort::new(number)
    }

    /// It outlives the process, not the machine, as what is plugged in does: so no disk is waited for, which is slow when others write, and
    /// nobody is heard meanwhile.
    pub(crate) fn write(&mut self, plugged: Plugged) -> io::Result<()> {
        let (path, new) = (self.path(plugged.endpoint), self.dir.join("new"));
        let page = Page { version: VERSION, plugged };
        fs::write(&new, serde_json::to_vec(&page)?)?;
        fs::rename(new, path)?;
        self.damaged.remove(&page.plugged.endpoint);
        self.plugs.insert(page.plugged.endpoint, page.plugged);
        Ok(())
    }

    /// One that is not written counts as erased.
    pub(crate) fn erase(&mut self, endpoint: EndpointId) -> io::Result<Option<Plugged>> {
        match fs::remove_file(self.path(endpoint)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.damaged.remove(&endpoint);
                Ok(self.plugs.remove(&endpoint))
            }
        }
    }

    fn path(&self, endpoint: EndpointId) -> PathBuf {
        self.dir.join(format!("{endpoint}.json"))
    }
}

/// Why a file is not understood.
enum Unread {
    /// It is no whole file of any release.
    Damaged(String),
    /// It is whole, and says what this release does not know.
    Foreign(String),
}

fn read(bytes: &[u8]) -> Result<Plugged, Unread> {
    let page: Value = serde_json::from_slice(bytes).map_err(|error| Unread::Damaged(error.to_string()))?;
    match page.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => {
            return Err(Unread::Foreign(format!("it is of version {version}; this release knows {VERSION}")));
        }
        None => return Err(Unread::Damaged("it says no version".to_owned())),
    }
    let page = Page::deserialize(page).map_err(|error| Unread::Foreign(error.to_string()))?;
    Ok(page.plugged)
}

/// Whose file it is, by its name.
fn endpoint_of(file: &Path) -> Option<EndpointId> {
    file.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugged(number: u8) -> Plugged {
        Plugged {
            endpoint: EndpointId::from_bytes([number; 16]),
            container: "web".parse().unwrap(),
            source: Source::Path("/run/netns/web".into()),
            namespace: None,
            interface: "eth0".parse().unwrap(),
            gateway: GatewayPort::new(number.into()),
        }
    }

    #[test]
    fn a_container_keeps_its_port_and_others_get_those_that_rested_longest() {
        let dir = std::env::temp_dir().join(format!("overlay-ports-{}", std::process::id()));
        let mut book = Book::open(&dir).unwrap();
        let name = |number: u8| Name::new(&format!("c{number}")).unwrap();
        let plug = |book: &mut Book, number: u8| {
            let gateway = book.gateway_port(&name(number), 3);
            book.write(Plugged { container: name(number), gateway, ..plugged(number) }).unwrap();
            gateway.map(GatewayPort::get)
        };
        assert_eq!([1, 2].map(|number| plug(&mut book, number)), [Some(1), Some(2)]);
        book.erase(plugged(1).endpoint).unwrap();
        assert_eq!([3, 4, 5].map(|number| plug(&mut book, number)), [Some(3), Some(1), None]);
        let mut again = Book::open(&dir).unwrap();
        assert_eq!(again.gateway_port(&name(3), 3).map(GatewayPort::get), Some(3));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_half_a_file_is_passed_over() {
        let dir = std::env::temp_dir().join(format!("overlay-book-{}", std::process::id()));
        let mut book = Book::open(&dir).unwrap();
        book.write(plugged(1)).unwrap();
        book.write(plugged(2)).unwrap();
        book.erase(plugged(1).endpoint).unwrap();
        book.erase(plugged(3).endpoint).unwrap();
        fs::write(dir.join("new"), b"{\"version\":1,\"plu").unwrap();
        assert_eq!(Book::open(&dir).unwrap().damaged().count(), 0);
        let again = Book::open(&dir).unwrap();
        assert_eq!(again.all().cloned().collect::<Vec<_>>(), [plugged(2)]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_is_damaged_is_told_of_and_one_of_another_release_is_not_gone_by() {
        let dir = std::env::temp_dir().join(format!("overlay-unread-{}", std::process::id()));
        let mut book = Book::open(&dir).unwrap();
        book.write(plugged(1)).unwrap();
        book.write(plugged(2)).unwrap();
        let (file, whole) =
            (book.path(plugged(1).endpoint), fs::read_to_string(book.path(plugged(1).endpoint)).unwrap());
        for damage in [&whole[..whole.len() / 2], "", "{}", "\0\0\0"] {
            fs::write(&file, damage).unwrap();
            let mut book = Book::open(&dir).unwrap();
            let damaged: Vec<_> = book.damaged().map(|(endpoint, path, _)| (endpoint, path)).collect();
            assert_eq!(damaged, [(plugged(1).endpoint, file.clone())]);
            assert!(book.all().eq([&plugged(2)]) && !book.is_empty());
            assert_eq!(fs::read_to_string(&file).unwrap(), damage, "it is left as it is");
            book.write(plugged(1)).unwrap();
            assert_eq!((book.damaged().count(), book.all().count()), (0, 2));
            fs::write(&file, damage).unwrap();
            let mut book = Book::open(&dir).unwrap();
            book.erase(plugged(1).endpoint).unwrap();
            assert!(book.damaged().count() == 0 && !file.exists());
        }
        let later = [
            whole.replace("\"version\":1", "\"version\":2"),
            whole.replace("\"path\"", "\"mount\""),
            whole.replace("\"interface\":\"eth0\"", "\"interface\":[\"eth0\",\"eth1\"]"),
        ];
        for later in later {
            fs::write(&file, &later).unwrap();
            let refused = Book::open(&dir).unwrap_err();
            assert!(matches!(&refused, StartError::Plug { file: at, .. } if *at == file), "{refused}");
            assert_eq!(fs::read_to_string(&file).unwrap(), later);
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap(); // it cannot be read at all
        assert!(matches!(Book::open(&dir).unwrap_err(), StartError::Dir { .. }));
        fs::remove_dir_all(dir).unwrap();
    }
}
