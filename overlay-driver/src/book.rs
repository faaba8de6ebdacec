//! What is plugged in, written down: so that a driver that starts again plugs it in again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use overlay_core::{EndpointId, IfName, Name, NsKey};
use overlay_node::GatewayPort;
use serde::{Deserialize, Serialize};

use crate::Source;

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
    /// What is written in a directory, which is made if it is not there. Files that cannot be read are left as they are.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut plugs = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let page = fs::read(entry?.path()).ok().and_then(|bytes| serde_json::from_slice::<Page>(&bytes).ok());
            if let Some(Page { version: VERSION, plugged }) = page {
                plugs.insert(plugged.endpoint, plugged);
            }
        }
        let last_port = plugs.values().filter_map(|plugged| plugged.gateway).map(GatewayPort::get).max().unwrap_or(0);
        Ok(Self { dir: dir.to_owned(), plugs, last_port })
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
        self.plugs.insert(page.plugged.endpoint, page.plugged);
        Ok(())
    }

    /// One that is not written counts as erased.
    pub(crate) fn erase(&mut self, endpoint: EndpointId) -> io::Result<Option<Plugged>> {
        match fs::remove_file(self.path(endpoint)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(self.plugs.remove(&endpoint)),
        }
    }

    fn path(&self, endpoint: EndpointId) -> PathBuf {
        self.dir.join(format!("{endpoint}.json"))
    }
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
        let again = Book::open(&dir).unwrap();
        assert_eq!(again.all().cloned().collect::<Vec<_>>(), [plugged(2)]);
        fs::remove_dir_all(dir).unwrap();
    }
}
