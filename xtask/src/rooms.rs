//! Who may depend on whom: the table that ARCHITECTURE.md's rooms show.

/// What one crate of the workspace may depend on, of the workspace's crates and tokio. Dev-dependencies are free.
#[derive(Debug)]
pub(crate) struct Room {
    /// The crate.
    pub(crate) name: &'static str,
    /// What it may depend on outright.
    pub(crate) on: &'static [&'static str],
    /// What it may depend on optionally: a crate, and the one feature that may bring it in (any, if empty).
    pub(crate) optionally: &'static [(&'static str, &'static str)],
    /// Whether it may have overlay-core's `testing` outside its tests.
    pub(crate) testing: bool,
}

/// A crate that is not here is an error of `cargo xtask deps`: a new one gets its line, below what it stands on.
#[rustfmt::skip]
pub(crate) const ROOMS: &[Room] = &[
    Room { name: "overlay-core",     on: &[],                optionally: &[],         testing: false },
    Room { name: "overlay-kernel",   on: &["overlay-core"],  optionally: &[],         testing: false },
    Room { name: "overlay-store",    on: &["overlay-core"],  optionally: STORE,       testing: false },

    // The areas: each useful alone, none on another.
    Room { name: "overlay-ipam",     on: &["overlay-core"],  optionally: AREA,        testing: false },
    Room { name: "overlay-gossip",   on: &["overlay-core"],  optionally: AREA,        testing: false },
    Room { name: "overlay-vxlan",    on: &["overlay-core"],  optionally: AREA,        testing: false },
    Room { name: "overlay-link",     on: &["overlay-core"],  optionally: AREA,        testing: false },
    Room { name: "overlay-lb",       on: &["overlay-core"],  optionally: AREA,        testing: false },
    Room { name: "overlay-firewall", on: &["overlay-core"],  optionally: AREA,        testing: false },
    Room { name: "overlay-crypto",   on: &["overlay-core"],  optionally: AREA,        testing: false },
    Room { name: "overlay-dns",      on: &["overlay-core"],  optionally: AREA,        testing: false },

    // Sans-IO.
    Room { name: "overlay-datapath", on: DATAPATH,           optionally: &[],         testing: false },
    Room { name: "overlay-node",     on: NODE,               optionally: &[],         testing: false },

    // The async shell, and the whole cluster on a virtual clock.
    Room { name: "overlay-driver",   on: DRIVER,             optionally: &[],         testing: false },
    Room { name: "overlay-fabric",   on: FABRIC,             optionally: &[],         testing: true },

    // Programs: nothing depends on them, so they are free.
    Room { name: "overlay-examples", on: &[EVERYTHING],      optionally: &[],         testing: true },
    Room { name: "overlay-bench",    on: &[EVERYTHING],      optionally: &[],         testing: true },
    Room { name: "overlay-fuzz",     on: &[EVERYTHING],      optionally: &[],         testing: true },
    Room { name: "xtask",            on: &[EVERYTHING],      optionally: &[],         testing: true },
];

impl Room {
    /// What it may have, in the words of ARCHITECTURE.md: outright, and behind a feature.
    fn rights(&self) -> [String; 2] {
        let quoted = |name: &str| if name.starts_with("overlay-") { format!("`{name}`") } else { name.to_owned() };
        let on = self.on.iter().map(|name| if *name == EVERYTHING { "everything".to_owned() } else { quoted(name) });
        let testing = self.testing.then(|| "`overlay-core`'s test kit".to_owned());
        let optionally = self.optionally.iter().map(|(name, feature)| match *feature {
            "" => format!("{} by any", quoted(name)),
            feature => format!("{} by `{feature}`", quoted(name)),
        });
        [on.chain(testing).collect(), optionally.collect()].map(|it: Vec<_>| match it.is_empty() {
            true => "–".to_owned(),
            false => it.join(", "),
        })
    }
}

/// The table as ARCHITECTURE.md has it, with a row for those beside each other that may have the same.
pub(crate) fn table() -> String {
    let mut table = "| crates | may depend on | and, behind a feature, on |\n|---|---|---|\n".to_owned();
    for alike in ROOMS.chunk_by(|one, next| one.rights() == next.rights()) {
        let names: Vec<String> = alike.iter().map(|room| format!("`{}`", room.name)).collect();
        let [on, optionally] = alike.first().map(Room::rights).unwrap_or_default();
        table += &format!("| {} | {on} | {optionally} |\n", names.join(", "));
    }
    table
}

/// Stands for every crate there is.
pub(crate) const EVERYTHING: &str = "*";

const STORE: &[(&str, &str)] = &[("tokio", "etcd")];

const AREA: &[(&str, &str)] = &[("overlay-kernel", "kernel"), ("tokio", "")];

const DATAPATH: &[&str] = &["overlay-core", "overlay-vxlan", "overlay-lb", "overlay-firewall", "overlay-crypto"];

const NODE: &[&str] = &[
    "overlay-core",
    "overlay-ipam",
    "overlay-gossip",
    "overlay-vxlan",
    "overlay-link",
    "overlay-lb",
    "overlay-firewall",
    "overlay-crypto",
    "overlay-dns",
];

const DRIVER: &[&str] = &[
    "overlay-core",
    "overlay-kernel",
    "overlay-store",
    "overlay-ipam",
    "overlay-gossip",
    "overlay-vxlan",
    "overlay-link",
    "overlay-lb",
    "overlay-firewall",
    "overlay-crypto",
    "overlay-dns",
    "overlay-datapath",
    "overlay-node",
    "tokio",
];

const FABRIC: &[&str] = &[
    "overlay-core",
    "overlay-ipam",
    "overlay-gossip",
    "overlay-vxlan",
    "overlay-link",
    "overlay-lb",
    "overlay-firewall",
    "overlay-crypto",
    "overlay-dns",
    "overlay-datapath",
    "overlay-node",
];
