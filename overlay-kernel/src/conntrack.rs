//! Flows that the kernel tracks (ctnetlink, `linux/netfilter/nfnetlink_conntrack.h`).

use std::net::IpAddr;

use overlay_core::{BackendError, IpFamily};

use crate::Namespace;
use crate::errno_kind;
use crate::netlink::{Attribute, Attributes, Family, Flags, Malformed, Message, Requests, Socket};

/// The tracked flows of one namespace: to list them, and to cut them.
///
/// A flow outlives the rule that let it in: what was translated stays translated, and replies are let pass. So when a
/// permission is withdrawn, an endpoint goes or a published port moves, its flows are cut *after* the rules have changed,
/// so that the next packet of each is judged anew. That cutting is done cannot be read back from the kernel: whoever must
/// not forget it keeps a mark until it is done, and cuts again after a crash.
///
/// It needs `CAP_NET_ADMIN` over the namespace. Flows are tracked only in namespaces where a rule asks for them.
///
/// ```no_run
/// use overlay_kernel::Namespace;
/// use overlay_kernel::conntrack::Conntrack;
///
/// let mut flows = Conntrack::open(&Namespace::create()?)?;
/// let gone = [10, 0, 9, 2].into();
/// let cut = flows.cut(|flow| flow.touches(gone))?;
/// println!("{cut} flows cut");
/// # Ok::<(), overlay_core::BackendError>(())
/// ```
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Works in `namespace`.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if it may not be entered.
    pub fn open(namespace: &Namespace) -> Result<Self, BackendError> {
        let socket = namespace.run(|| Socket::open(Family::Netfilter))?;
        let socket = socket.map_err(|error| error.during(format!("open conntrack in {}", namespace.id())))?;
        Ok(Self { socket })
    }

    /// All flows. About a microsecond each; those that come or go meanwhile may be missing.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](overlay_core::ErrorKind::Unsupported) or
    /// [`Invalid`](overlay_core::ErrorKind::Invalid) if this kernel cannot list flows.
    pub fn flows(&mut self) -> Result<Vec<Flow>, BackendError> {
        self.socket.dump(&dump(), parse).map_err(|error| error.during("list flows"))
    }

    /// The flows that matter to the caller: none is asked for where there is none at all.
    ///
    /// # Errors
    /// As [`flows`](Self::flows).
    pub fn some(&mut self, mut matters: impl FnMut(&Flow) -> bool) -> Result<Vec<Flow>, BackendError> {
        // A list costs a walk through a table of the whole machine, even if none of its flows is of this namespace.
        if self.count()? == Some(0) {
            return Ok(Vec::new());
        }
        Ok(self.flows()?.into_iter().filter(|flow| matters(flow)).collect())
    }

    /// Cuts the flows that are to go, and says how many were there to cut. One that ended by itself meanwhile counts as
    /// cut.
    ///
    /// Another of the same addresses and ports that began meanwhile is mostly not cut: the kernel tells them apart by where in memory they are. But a
    /// connection that is opened by the port of one that [has ended](Flow::has_ended) often gets its very place. So whoever cuts flows of clients that go
    /// on coming had better leave ended connections alone.
    ///
    /// # Errors
    /// As [`flows`](Self::flows); and if the kernel refuses one: some may be cut then. Calling it again goes on.
    pub fn cut(&mut self, goes: impl FnMut(&Flow) -> bool) -> Result<usize, BackendError> {
        let mut requests = Requests::default();
        for flow in &self.some(goes)? {
            delete(&mut requests, flow);
        }
        let gone = |_, errno| errno_kind(errno) == overlay_core::ErrorKind::Gone;
        self.socket.batch(&requests, gone).map_err(|error| error.source.during("cut flows"))?;
        Ok(requests.len())
    }
}

impl Conntrack {
    /// How many flows there are at most, where the kernel says.
    fn count(&mut self) -> Result<Option<u32>, BackendError> {
        let asks = Requests::one(COUNT, Flags::NONE, |body| {
            body.raw(&[0; HEAD]);
        });
        let found = self.socket.ask(&asks, entries);
        Ok(found.map_err(|error| error.during("count flows"))?.first().copied())
    }
}

fn entries(message: &Message<'_>) -> Result<Option<u32>, Malformed> {
    for attribute in message.attributes(HEAD)? {
        let attribute: Attribute<'_> = attribute?;
        if message.kind == COUNT && attribute.kind == ENTRIES {
            return attribute.be32().map(Some);
        }
    }
    Ok(None)
}

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flow {
    /// The protocol above IP: 6 is TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// As its first packet came.
    pub original: Way,
    /// As its replies come: what differs from the original turned around was translated.
    pub reply: Way,
    /// Bits of its status (`IPS_…`): 2 replies were seen, 8 confirmed, 16 source translated, 32 destination translated.
    pub status: u32,
    /// Its mark.
    pub mark: u32,
    /// Its zone.
    pub zone: u16,
    /// Of TCP and SCTP, how far it is (`enum tcp_conntrack`, `enum sctp_conntrack`).
    pub stage: Option<u8>,
    id: Option<u32>,
    /// The original way as the kernel wrote it, by which it finds the flow again.
    key: Box<[u8]>,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// Source port, of protocols that have ports; 0 of others.
    pub from_port: u16,
    /// Destination port.
    pub to_port: u16,
}

impl Flow {
    /// Whether nothing more is to come of it: it is only kept in mind, or was reset. Never of a protocol that does not say an end.
    pub fn has_ended(&self) -> bool {
        match self.protocol {
            TCP => matches!(self.stage, Some(TCP_TIME_WAIT | TCP_CLOSE)),
            SCTP => self.stage == Some(SCTP_CLOSED),
            _ => false,
        }
    }

    /// Whether an address is at either end of it, before or after translation.
    pub fn touches(&self, address: IpAddr) -> bool {
        [self.original.from, self.original.to, self.reply.from, self.reply.to].contains(&address)
    }
}

fn dump() -> Requests {
    Requests::one(GET, Flags::NONE, |body| {
        body.raw(&[0; HEAD]);
    })
}

fn delete(requests: &mut Requests, flow: &Flow) {
    requests.add(DELETE, Flags::NONE, |body| {
        body.raw(&[if flow.original.from.is_ipv4() { AF_INET } else { AF_INET6 }, 0, 0, 0]);
        body.attribute(ORIGINAL | NESTED, &flow.key);
        if flow.zone != 0 {
            body.be16(ZONE, flow.zone);
        }
        if let Some(id) = flow.id {
            body.be32(ID, id);
        }
    });
}

fn parse(message: &Message<'_>) -> Result<Option<Flow>, Malformed> {
    let [family, ..] = message.head::<HEAD>()?;
    let family = match family {
        AF_INET => IpFamily::V4,
        AF_INET6 => IpFamily::V6,
        _ => return Ok(None),
    };
    if message.kind != NEW {
        return Ok(None);
    }
    let (mut original, mut reply, mut key) = (None, None, Box::default());
    let (mut status, mut mark, mut zone, mut id, mut stage) = (0, 0, 0, None, None);
    for attribute in message.attributes(HEAD)? {
        let attribute: Attribute<'_> = attribute?;
        match attribute.kind {
            ORIGINAL => {
                original = way(attribute.nested(), family)?;
                key = attribute.value.into();
            }
            REPLY => reply = way(attribute.nested(), family)?,
            STATUS => status = attribute.be32()?,
            MARK => mark = attribute.be32()?,
            ZONE => zone = attribute.be16()?,
            ABOUT => stage = self::stage(attribute.nested())?,
            ID => id = Some(attribute.be32()?),
            _ => {}
        }
    }
    let (Some((protocol, original)), Some((_, reply))) = (original, reply) else { return Ok(None) };
    Ok(Some(Flow { protocol, original, reply, status, mark, zone, stage, id, key }))
}

/// How far a flow is, of protocols that tell.
fn stage(attributes: Attributes<'_>) -> Result<Option<u8>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        for inner in attribute.nested().filter(|_| matches!(attribute.kind, OF_TCP | OF_SCTP)) {
            let inner = inner?;
            if inner.kind == STAGE {
                return inner.u8().map(Some);
            }
        }
    }
    Ok(None)
}

/// A direction, and the protocol.
fn way(attributes: Attributes<'_>, family: IpFamily) -> Result<Option<(u8, Way)>, Malformed> {
    let (mut from, mut to, mut protocol) = (None, None, 0);
    let (mut from_port, mut to_port) = (0, 0);
    for attribute in attributes {
        let attribute = attribute?;
        for inner in attribute.nested().filter(|_| matches!(attribute.kind, ADDRESSES | PORTS)) {
            let inner = inner?;
            match (attribute.kind, inner.kind) {
                (ADDRESSES, V4_FROM | V6_FROM) => from = Some(inner.ip()?),
                (ADDRESSES, V4_TO | V6_TO) => to = Some(inner.ip()?),
                (PORTS, PROTOCOL) => protocol = inner.u8()?,
                (PORTS, FROM_PORT) => from_port = inner.be16()?,
                (PORTS, TO_PORT) => to_port = inner.be16()?,
                _ => {}
            }
        }
    }
    let is_of_family = |ip: &IpAddr| IpFamily::of(*ip) == family;
    let (from, to) = (from.filter(is_of_family), to.filter(is_of_family));
    Ok(from.zip(to).map(|(from, to)| (protocol, Way { from, to, from_port, to_port })))
}

const HEAD: usize = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NEW: u16 = 1 << 8; // NFNL_SUBSYS_CTNETLINK
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const COUNT: u16 = 1 << 8 | 5;
const ENTRIES: u16 = 1;
const NESTED: u16 = 0x8000;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const ABOUT: u16 = 4;
const OF_TCP: u16 = 1;
const OF_SCTP: u16 = 3;
const STAGE: u16 = 1;
const TCP: u8 = 6;
const SCTP: u8 = 132;
const TCP_TIME_WAIT: u8 = 7;
const TCP_CLOSE: u8 = 8;
const SCTP_CLOSED: u8 = 1;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const ADDRESSES: u16 = 1;
const PORTS: u16 = 2;
const V4_FROM: u16 = 1;
const V4_TO: u16 = 2;
const V6_FROM: u16 = 3;
const V6_TO: u16 = 4;
const PROTOCOL: u16 = 1;
const FROM_PORT: u16 = 2;
const TO_PORT: u16 = 3;
