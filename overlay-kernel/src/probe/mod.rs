//! What this machine can do, found by doing it in a namespace that is thrown away.

mod ipsec;
mod ipvs;
mod link;
mod nft;

use std::fmt;

use overlay_core::BackendError;
use serde::Serialize;

use crate::Namespace;
use crate::netlink::{Buffers, Family, NetlinkError, Socket};

/// Tries every [`Feature`] but [`Feature::UserNamespaces`], in a new namespace that is gone afterwards. Where the
/// kernel has a feature as a module, trying loads it. Takes some milliseconds, more the first time.
///
/// ```no_run
/// use overlay_kernel::probe;
///
/// let report = probe();
/// for finding in &report.findings {
///     println!("{finding}");
/// }
/// ```
pub fn probe() -> Report {
    match Namespace::create() {
        Err(error) => Report::blind(&error),
        Ok(namespace) => match namespace.run(|| (tried(), limits())) {
            Err(error) => Report::blind(&error),
            Ok((findings, buffers)) => Report { findings, buffers },
        },
    }
}

/// What [`probe`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One for each feature that was tried, in the order of [`Feature::ALL`].
    pub findings: Vec<Finding>,
    /// The largest netlink buffers this process can have, in bytes up to 1 GiB; 0 where it cannot open a socket.
    pub buffers: Buffers,
}

impl Report {
    /// What was found of one feature.
    pub fn of(&self, feature: Feature) -> Option<&Found> {
        self.findings.iter().find(|finding| finding.feature == feature).map(|finding| &finding.found)
    }

    fn blind(error: &BackendError) -> Self {
        let reason = format!("there is no namespace to try it in: {}", causes(error));
        let findings = Feature::ALL.into_iter().filter(|feature| *feature != Feature::UserNamespaces);
        let found = |feature| Finding { feature, found: Found::Missing { reason: reason.clone() } };
        Self { findings: findings.map(found).collect(), buffers: Buffers { send: 0, receive: 0 } }
    }
}

/// One feature and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried.
    pub feature: Feature,
    /// What came of it.
    #[serde(flatten)]
    pub found: Found,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20} {}", self.feature.to_string(), self.found)
    }
}

/// Whether a feature is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "lowercase")]
pub enum Found {
    /// It was used just now.
    Available,
    /// It could not be used.
    Missing {
        /// What failed, in the kernel's words where it has some.
        reason: String,
    },
}

impl Found {
    /// Whether it is there.
    pub const fn is_available(&self) -> bool {
        matches!(self, Self::Available)
    }
}

impl<T> From<Result<T, BackendError>> for Found {
    fn from(result: Result<T, BackendError>) -> Self {
        match result {
            Ok(_) => Self::Available,
            Err(error) => Self::Missing { reason: causes(&error) },
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available => f.write_str("available"),
            Self::Missing { reason } => write!(f, "missing    {reason}"),
        }
    }
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        /// Something an overlay may need of the kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Feature {
            $($(#[$doc])* $name,)*
        }

        impl Feature {
            /// All of them.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

features! {
    /// Making a network namespace and entering it (`CONFIG_NET_NS`, `CAP_SYS_ADMIN`).
    Namespaces "namespaces",
    /// A user namespace for an ordinary user (`CONFIG_USER_NS`): only a process of its own can try, with
    /// [`enter_private`](crate::enter_private).
    UserNamespaces "user-namespaces",
    /// A bridge (`CONFIG_BRIDGE`).
    Bridge "bridge",
    /// A pair of virtual Ethernet devices (`CONFIG_VETH`).
    Veth "veth",
    /// A VXLAN device (`CONFIG_VXLAN`).
    Vxlan "vxlan",
    /// A macvlan device (`CONFIG_MACVLAN`).
    Macvlan "macvlan",
    /// A dummy device (`CONFIG_DUMMY`).
    Dummy "dummy",
    /// A tap (`CONFIG_TUN`, and `/dev/net/tun` opens).
    Tun "tun",
    /// Tables and filter chains of the `inet` family (`CONFIG_NF_TABLES_INET`).
    NfTables "nf_tables",
    /// A masquerade rule in a `nat` chain (`CONFIG_NFT_NAT`, `CONFIG_NFT_MASQ`).
    NftNat "nft-nat",
    /// A rule that matches connection tracking's state (`CONFIG_NFT_CT`).
    NftConntrack "nft-conntrack",
    /// A filter chain of the `bridge` family (`CONFIG_NF_TABLES_BRIDGE`).
    NftBridge "nft-bridge",
    /// Connection tracking's state in the `bridge` family (`CONFIG_NF_CONNTRACK_BRIDGE`).
    NftBridgeConntrack "nft-bridge-conntrack",
    /// A chain of the `netdev` family, at an interface's ingress (`CONFIG_NF_TABLES_NETDEV`).
    NftNetdev "nft-netdev",
    /// A virtual service (`CONFIG_IP_VS`, `CONFIG_IP_VS_RR`).
    Ipvs "ipvs",
    /// An IPsec policy that blocks (`CONFIG_XFRM_USER`).
    XfrmPolicy "xfrm-policy",
    /// An ESP security association with AES-GCM (`CONFIG_INET_ESP`, `CONFIG_CRYPTO_GCM`).
    Esp "esp",
    /// Netlink buffers beyond `net.core.wmem_max` and `rmem_max` (`CAP_NET_ADMIN` in the first user namespace).
    ForcedBuffers "forced-buffers",
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

fn tried() -> Vec<Finding> {
    let tried = Feature::ALL.into_iter().filter_map(|feature| Some(Finding { feature, found: try_one(feature)? }));
    tried.collect()
}

fn try_one(feature: Feature) -> Option<Found> {
    Some(match feature {
        Feature::UserNamespaces => return None,
        Feature::Namespaces => Found::Available, // this runs in one
        Feature::Bridge => link::make("bridge").into(),
        Feature::Veth => link::make("veth").into(),
        Feature::Vxlan => link::make("vxlan").into(),
        Feature::Macvlan => link::make("macvlan").into(),
        Feature::Dummy => link::make("dummy").into(),
        Feature::Tun => link::make_tap().into(),
        Feature::NfTables => nft::filter(nft::INET, &[]).into(),
        Feature::NftNat => nft::nat().into(),
        Feature::NftConntrack => nft::filter(nft::INET, &["ct"]).into(),
        Feature::NftBridge => nft::filter(nft::BRIDGE, &[]).into(),
        Feature::NftBridgeConntrack => nft::filter(nft::BRIDGE, &["ct"]).into(),
        Feature::NftNetdev => nft::netdev().into(),
        Feature::Ipvs => ipvs::serve().into(),
        Feature::XfrmPolicy => ipsec::block().into(),
        Feature::Esp => ipsec::seal().into(),
        Feature::ForcedBuffers => force_buffers().into(),
    })
}

fn force_buffers() -> Result<(), BackendError> {
    socket(Family::Route)?.force_buffers().map_err(|error| error.during("force a netlink buffer's size"))
}

fn limits() -> Buffers {
    let most = Buffers { send: MOST, receive: MOST };
    Socket::with_buffers(Family::Route, most).map_or(Buffers { send: 0, receive: 0 }, |socket| socket.buffers())
}

fn socket(family: Family) -> Result<Socket, BackendError> {
    Socket::open(family).map_err(|error: NetlinkError| error.during("open a netlink socket"))
}

/// An error and what caused it, on one line.
fn causes(error: &BackendError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

const MOST: usize = 1 << 30;
