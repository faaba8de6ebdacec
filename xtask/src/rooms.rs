//! Who may depend on whom: ARCHITECTURE.md's rooms as a table.

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
