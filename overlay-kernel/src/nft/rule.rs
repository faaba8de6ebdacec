//! Rules.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, Name};

use super::expr::{Compare, Expr, Found, Register, Verdict};
use super::field::{Field, Load, Operand, Part, ct, ip, ip6, meta};
use super::value::{Bytes, Scalar, Type, Value, bytes_of};
use super::{CtDirection, CtState, Limit, Log, Mark, NatFlags, NatTarget, Reject};

/// A rule: what a packet must be, and then what becomes of it. Built by methods, in the order in which they act; if one
/// does not match, the next rule's turn has come.
///
/// A rule's id is for people and for `explain`: it is the rule's comment in the kernel, and need not be unique.
///
/// ```
/// use overlay_kernel::nft::{CtState, IpProtocol, Rule, Verdict, ct, ip, meta, th};
///
/// let replies = Rule::new("replies")?.any(&ct::STATE, CtState::ESTABLISHED | CtState::RELATED).accept();
/// let web = Rule::new("web")?
///     .eq(&meta::L4PROTO, IpProtocol::TCP)
///     .eq(&ip::DADDR, [10, 0, 9, 2].into())
///     .eq(&th::DPORT, 80)
///     .counter()
///     .accept();
/// # Ok::<(), overlay_core::Refusal>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) id: Box<str>,
    pub(super) exprs: Vec<Expr>,
    pub(super) uses: Uses,
}

/// What a rule takes the sets it looks into for. Known of rules that were built; says nothing about equality.
#[derive(Debug, Clone, Default)]
pub(super) struct Uses(pub(super) Vec<Use>);

impl PartialEq for Uses {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Uses {}

/// What a rule takes a set for.
#[derive(Debug, Clone)]
pub(super) struct Use {
    pub(super) set: Name,
    pub(super) key: &'static [Type],
    pub(super) gives: Gives,
}

/// What a lookup gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gives {
    Nothing,
    Verdict,
    Value(&'static [Type]),
    /// It takes values of these types.
    Room(&'static [Type]),
}

impl Rule {
    /// The longest id, in bytes.
    pub const MAX_ID: usize = 120;

    /// A rule that matches everything and does nothing yet.
    ///
    /// # Errors
    /// If the id is empty, longer than [`MAX_ID`](Self::MAX_ID), or has `"`, `\` or what is no printable ASCII in it.
    pub fn new(id: impl Into<Box<str>>) -> Result<Self, overlay_core::Refusal> {
        let id = id.into();
        super::check::id(&id)?;
        Ok(Self { id, exprs: Vec::new(), uses: Uses::default() })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The field is this.
    #[must_use]
    pub fn eq<T: Scalar>(self, field: &Field<T>, value: T) -> Self {
        self.compare(field, Compare::Equal, &value)
    }

    /// The field is not this.
    #[must_use]
    pub fn ne<T: Scalar>(self, field: &Field<T>, value: T) -> Self {
        self.compare(field, Compare::NotEqual, &value)
    }

    /// The field is from `low` to `high`, both included.
    #[must_use]
    pub fn within<T: Scalar>(self, field: &Field<T>, low: T, high: T) -> Self {
        self.range(field, (low, high), false)
    }

    /// The field is not from `low` to `high`.
    #[must_use]
    pub fn outside<T: Scalar>(self, field: &Field<T>, low: T, high: T) -> Self {
        self.range(field, (low, high), true)
    }

    /// The source is in this subnet. In `inet`, and after [`family`](Self::family), as for any field of a header.
    #[must_use]
    pub fn from(self, net: IpNet) -> Self {
        self.subnet(net, &(ip::SADDR.part, ip6::SADDR.part), Compare::Equal)
    }

    /// The destination is in this subnet.
    #[must_use]
    pub fn to(self, net: IpNet) -> Self {
        self.subnet(net, &(ip::DADDR.part, ip6::DADDR.part), Compare::Equal)
    }

    /// The source is not in this subnet.
    #[must_use]
    pub fn not_from(self, net: IpNet) -> Self {
        self.subnet(net, &(ip::SADDR.part, ip6::SADDR.part), Compare::NotEqual)
    }

    /// The destination is not in this subnet.
    #[must_use]
    pub fn not_to(self, net: IpNet) -> Self {
        self.subnet(net, &(ip::DADDR.part, ip6::DADDR.part), Compare::NotEqual)
    }

    /// The packet is of the family of this address: what a rule of an `inet` table says before it looks into headers.
    #[must_use]
    pub fn family(self, family: overlay_core::IpFamily) -> Self {
        self.eq(&meta::NFPROTO, family)
    }

    /// The device's name begins so.
    #[must_use]
    pub fn begins(self, field: &Field<IfName>, prefix: IfName) -> Self {
        let bytes = Bytes::new(prefix.as_str().as_bytes());
        self.load(std::slice::from_ref(&field.part)).with(Expr::Compare { from: 0, how: Compare::Equal, bytes })
    }

    /// At least one of these bits is set.
    #[must_use]
    pub fn any<T: Scalar>(self, field: &Field<T>, bits: T) -> Self {
        self.bits(field, &bits, Compare::NotEqual)
    }

    /// None of these bits is set.
    #[must_use]
    pub fn none<T: Scalar>(self, field: &Field<T>, bits: T) -> Self {
        self.bits(field, &bits, Compare::Equal)
    }

    /// The packet's flow has one of these states.
    #[must_use]
    pub fn ct_state(self, states: CtState) -> Self {
        self.any(&ct::STATE, states)
    }

    /// The fields together are in a set of this table, which is no map: Linux 6.1 asks none for its keys alone.
    #[must_use]
    pub fn is_in<O: Operand>(self, operand: &O, set: &Name) -> Self {
        self.lookup::<O>(operand, set, (None, false), Gives::Nothing)
    }

    /// The fields together are not in a set of this table.
    #[must_use]
    pub fn not_in<O: Operand>(self, operand: &O, set: &Name) -> Self {
        self.lookup::<O>(operand, set, (None, true), Gives::Nothing)
    }

    /// Counts packets and bytes that come as far as here: read by [`Nft`](super::Nft)'s `Meter`.
    #[must_use]
    pub fn counter(self) -> Self {
        self.with(Expr::Counter)
    }

    /// Goes on only within a limit, or only beyond it.
    #[must_use]
    pub fn limit(self, limit: Limit) -> Self {
        self.with(Expr::Limit(limit))
    }

    /// Makes a note of the packet.
    #[must_use]
    pub fn log(self, log: Log) -> Self {
        self.with(Expr::Log(log))
    }

    /// Gives the packet a mark: a number, [`Field::value`] or what another field says.
    #[must_use]
    pub fn set_mark(self, mark: &Field<Mark>) -> Self {
        self.load(std::slice::from_ref(&mark.part)).with(Expr::SetMeta { from: 0, key: META_MARK })
    }

    /// Gives the packet's flow a mark.
    #[must_use]
    pub fn set_ct_mark(self, mark: &Field<Mark>) -> Self {
        self.load(std::slice::from_ref(&mark.part)).with(Expr::SetCt { from: 0, key: CT_MARK, direction: None })
    }

    /// Gives the packet the mark that a map has for these fields; one without an entry goes to the next rule.
    #[must_use]
    pub fn set_mark_by<O: Operand>(self, operand: &O, map: &Name) -> Self {
        self.lookup::<O>(operand, map, (Some(Found::In(0)), false), Gives::Value(Mark::TYPES))
            .with(Expr::SetMeta { from: 0, key: META_MARK })
    }

    /// Gives the flow that this packet begins the [zone](Mark::zone) that a map has for these fields, for what goes the packet's way; replies are of the
    /// zone 0, where no two flows may be alike, so one of two that are gets another source port. A packet without an entry goes to the next rule. In
    /// chains of priority -300, before flows are looked for.
    #[must_use]
    pub fn set_zone_by<O: Operand>(self, operand: &O, map: &Name) -> Self {
        let direction = Some(CtDirection::Original);
        self.lookup::<O>(operand, map, (Some(Found::In(0)), false), Gives::Value(Mark::TYPES)).with(Expr::SetCt {
            from: 0,
            key: CT_ZONE,
            direction,
        })
    }

    /// Remembers in a map that [rules fill](super::Set::filled) that these fields lead to those, for so many seconds from now on. A key that is there
    /// begins its time anew, and leads to what it led to; where no room is left for another, the packet goes to the next rule.
    #[must_use]
    pub fn update<K: Operand, V: Operand>(self, (key, value): (&K, &V), map: &Name, seconds: u32) -> Self {
        let (parts, values) = (key.parts(), value.parts());
        // As nf_tables' own tool has it: four registers are the key's at least.
        let after = taken(&parts).max(4);
        let mut rule = self.load(&parts);
        rule.load_at(&values, after, after + taken(&values));
        rule.uses.0.push(Use { set: map.clone(), key: K::Value::TYPES, gives: Gives::Room(V::Value::TYPES) });
        rule.with(Expr::Update { set: map.clone(), key: 0, value: after, seconds })
    }

    /// The packet is not tracked. In chains of priority -300 or lower.
    #[must_use]
    pub fn untracked(self) -> Self {
        self.with(Expr::Untracked)
    }

    /// The end of the rule, for packets that came as far.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.with(Expr::Verdict(verdict))
    }

    /// The packet may pass.
    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    /// The packet is gone.
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    /// The rules of a regular chain, then those after this one.
    #[must_use]
    pub fn jump(self, chain: &Name) -> Self {
        self.verdict(Verdict::Jump(chain.clone()))
    }

    /// The rules of a regular chain, and none after this one.
    #[must_use]
    pub fn goto(self, chain: &Name) -> Self {
        self.verdict(Verdict::Goto(chain.clone()))
    }

    /// The verdict that a map has for these fields; a packet without an entry goes to the next rule.
    #[must_use]
    pub fn verdict_by<O: Operand>(self, operand: &O, map: &Name) -> Self {
        self.lookup::<O>(operand, map, (Some(Found::Verdict), false), Gives::Verdict)
    }

    /// Drops the packet and tells its sender.
    #[must_use]
    pub fn reject(self, reject: Reject) -> Self {
        self.with(Expr::Reject(reject))
    }

    /// Translates the destination, for all of the packet's flow.
    #[must_use]
    pub fn dnat(self, address: IpAddr, port: Option<u16>) -> Self {
        self.translate(true, address, port, NatFlags::default())
    }

    /// Translates the source.
    #[must_use]
    pub fn snat(self, address: IpAddr, port: Option<u16>, flags: NatFlags) -> Self {
        self.translate(false, address, port, flags)
    }

    /// Translates the destination to what a map has for these fields; a packet without an entry goes to the next rule.
    #[must_use]
    pub fn dnat_by<V: NatTarget, O: Operand>(self, operand: &O, map: &Name) -> Self {
        self.translate_by::<V, O>(operand, map, true)
    }

    /// Translates the source to what a map has for these fields.
    #[must_use]
    pub fn snat_by<V: NatTarget, O: Operand>(self, operand: &O, map: &Name) -> Self {
        self.translate_by::<V, O>(operand, map, false)
    }

    /// Translates the source to the address of the device that the packet leaves by.
    #[must_use]
    pub fn masquerade(self, flags: NatFlags) -> Self {
        self.with(Expr::Masquerade(flags))
    }

    /// Translates the destination to this host, and to this port if one is given.
    #[must_use]
    pub fn redirect(self, port: Option<u16>) -> Self {
        let rule = match port {
            Some(port) => self.with(Expr::Value { to: 0, bytes: bytes_of(&port) }),
            None => self,
        };
        rule.with(Expr::Redirect { port: port.map(|_| 0), flags: NatFlags::default() })
    }

    /// Hands the packet to a transparent socket of this host; the rule must say too that it is TCP or UDP, and mark it
    /// for a route to this host.
    #[must_use]
    pub fn transparent_proxy(self, address: Option<IpAddr>, port: u16) -> Self {
        let (mut rule, mut next) = (self, 0);
        if let Some(address) = address {
            rule = rule.with(Expr::Value { to: 0, bytes: address_bytes(address) });
            next = 4;
        }
        rule.with(Expr::Value { to: next, bytes: bytes_of(&port) }).with(Expr::TransparentProxy {
            ipv6: address.map(|address| address.is_ipv6()),
            address: address.map(|_| 0),
            port: Some(next),
        })
    }

    fn with(mut self, expr: Expr) -> Self {
        self.exprs.push(expr);
        self
    }

    fn compare<T: Scalar>(self, field: &Field<T>, how: Compare, value: &T) -> Self {
        let bytes = bytes_of(value);
        self.load(std::slice::from_ref(&field.part)).with(Expr::Compare { from: 0, how, bytes })
    }

    fn range<T: Scalar>(self, field: &Field<T>, (low, high): (T, T), outside: bool) -> Self {
        let (mut low, mut high) = (bytes_of(&low).to_vec(), bytes_of(&high).to_vec());
        let mut rule = self.load(std::slice::from_ref(&field.part));
        if T::TYPE.is_host_order() {
            if cfg!(target_endian = "little") {
                low.reverse();
                high.reverse();
            }
            rule = rule.with(Expr::ToNetworkOrder { at: 0, size: 4 });
        }
        let (low, high) = (Bytes::new(&low), Bytes::new(&high));
        if outside {
            return rule.with(Expr::Range { from: 0, outside, low, high });
        }
        rule.with(Expr::Compare { from: 0, how: Compare::GreaterOrEqual, bytes: low }).with(Expr::Compare {
            from: 0,
            how: Compare::LessOrEqual,
            bytes: high,
        })
    }

    fn subnet(self, net: IpNet, (v4, v6): &(Part, Part), how: Compare) -> Self {
        let part = if net.addr().is_ipv4() { v4 } else { v6 };
        let bytes = address_bytes(net.network());
        let len = usize::from(net.prefix_len());
        if len.is_multiple_of(8) && len > 0 {
            // Whole bytes need no mask: only those are loaded.
            let part = Part { size: len / 8, ..part.clone() };
            return self.load(&[part]).with(Expr::Compare { from: 0, how, bytes: Bytes::new(&bytes[..len / 8]) });
        }
        let mask = address_bytes(net.netmask());
        let part = Part { mask: Some(mask), ..part.clone() };
        self.load(&[part]).with(Expr::Compare { from: 0, how, bytes })
    }

    fn bits<T: Scalar>(self, field: &Field<T>, bits: &T, how: Compare) -> Self {
        let bits = bytes_of(bits);
        let zero = Bytes::new(&vec![0; bits.len()]);
        let part = Part { mask: Some(bits), ..field.part.clone() };
        self.load(&[part]).with(Expr::Compare { from: 0, how, bytes: zero })
    }

    fn lookup<O: Operand>(self, operand: &O, set: &Name, (to, negated): (Option<Found>, bool), gives: Gives) -> Self {
        let mut rule = self.load(&operand.parts());
        rule.uses.0.push(Use { set: set.clone(), key: O::Value::TYPES, gives });
        rule.with(Expr::Lookup { set: set.clone(), from: 0, to, negated })
    }

    fn translate(self, destination: bool, address: IpAddr, port: Option<u16>, flags: NatFlags) -> Self {
        let bytes = address_bytes(address);
        let after = 4; // behind the longest address, as nf_tables' own tool has it
        let mut rule = self.with(Expr::Value { to: 0, bytes });
        if let Some(port) = port {
            rule = rule.with(Expr::Value { to: after, bytes: bytes_of(&port) });
        }
        let ipv6 = address.is_ipv6();
        rule.with(Expr::Nat { destination, ipv6, address: Some(0), port: port.map(|_| after), flags })
    }

    fn translate_by<V: NatTarget, O: Operand>(self, operand: &O, map: &Name, destination: bool) -> Self {
        let port = V::PORT.then_some(if V::IPV6 { 4 } else { 1 });
        let (ipv6, flags) = (V::IPV6, NatFlags::default());
        self.lookup::<O>(operand, map, (Some(Found::In(0)), false), Gives::Value(V::TYPES)).with(Expr::Nat {
            destination,
            ipv6,
            address: Some(0),
            port,
            flags,
        })
    }

    /// Puts values into the registers from 0 on, one after the other.
    fn load(mut self, parts: &[Part]) -> Self {
        self.load_at(parts, 0, taken(parts));
        self
    }

    fn load_at(&mut self, parts: &[Part], mut to: Register, free: Register) {
        for part in parts {
            self.load_one(part, to, free);
            if let Some(mask) = &part.mask {
                let xor = Bytes::new(&vec![0; mask.len()]);
                self.exprs.push(Expr::Bits { at: to, mask: mask.clone(), xor });
            }
            to += words(part.size);
        }
    }

    fn load_one(&mut self, part: &Part, to: Register, free: Register) {
        let size = part.size as u32;
        let expr = match &part.load {
            Load::Payload { base, offset } => Expr::Payload { to, base: *base, offset: *offset, size },
            Load::Meta(key) => Expr::Meta { to, key: *key },
            Load::Ct(key, direction) => Expr::Ct { to, key: *key, direction: *direction },
            Load::Route(key) => Expr::Route { to, key: *key },
            Load::Fib { flags } => Expr::Fib { to, flags: *flags },
            Load::Numgen { random, modulus } => Expr::Numgen { to, random: *random, modulus: *modulus },
            Load::Symhash { modulus } => Expr::Symhash { to, modulus: *modulus },
            Load::Value(bytes) => Expr::Value { to, bytes: bytes.clone() },
            Load::Jhash { of, modulus, seed } => {
                let after = of.iter().map(|part| words(part.size)).sum::<Register>();
                self.load_at(of, free, free + after);
                let size = of.iter().map(|part| part.size.next_multiple_of(4) as u32).sum();
                let size = if let [one] = &of[..] { one.size as u32 } else { size };
                Expr::Jhash { to, from: free, size, modulus: *modulus, seed: *seed }
            }
        };
        self.exprs.push(expr);
    }
}

/// How many registers values take. As nf_tables' own tool has it, a single one takes four, whatever its length.
fn taken(parts: &[Part]) -> Register {
    if parts.len() == 1 { 4 } else { parts.iter().map(|part| words(part.size)).sum() }
}

/// How many registers so many bytes take.
pub(super) const fn words(size: usize) -> Register {
    size.div_ceil(4) as Register
}

fn address_bytes(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(ip) => bytes_of(&ip),
        IpAddr::V6(ip) => bytes_of(&ip),
    }
}

pub(super) const META_MARK: u32 = 3;
pub(super) const CT_MARK: u32 = 3;
pub(super) const CT_ZONE: u32 = 17;
