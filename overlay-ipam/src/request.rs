//! What is asked for, and everything that can be wrong with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::{IpFamily, Name};
use serde::{Deserialize, Serialize};

use crate::subnet::hosts;
use crate::{AddressRange, RequestError, Subnet, SubnetKind, Use};

/// A subnet that a network wants.
///
/// ```
/// use overlay_core::IpFamily;
/// use overlay_ipam::{RequestError, SubnetRequest};
///
/// let any = SubnetRequest::any(IpFamily::V4);
/// let this = SubnetRequest::this("10.9.0.0/16".parse()?);
/// let wrong = SubnetRequest { gateway: overlay_ipam::Gateway::This([10, 8, 0, 1].into()), ..this };
/// assert_eq!(wrong.check().unwrap_err().to_string(), "gateway 10.8.0.1 is not of subnet 10.9.0.0/16");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRequest {
    /// Which subnet.
    pub wanted: Wanted,
    /// Its router. [`Gateway::First`] by default.
    pub gateway: Gateway,
    /// Dynamic claims for endpoints are made here only; all over the subnet if `None`. With a static subnet only.
    pub endpoints: Option<AddressRange>,
    /// Claims for VIPs are made here only, and dynamic ones for endpoints are not; like those for endpoints if `None`. With a static
    /// subnet only.
    pub vips: Option<AddressRange>,
    /// Addresses that others have, by name: never claimed. With a static subnet only.
    pub auxiliary: BTreeMap<Name, IpAddr>,
    /// Whose addresses they are.
    pub kind: SubnetKind,
    /// Whether a static subnet is claimed though a host or an exclusion occupies some of it.
    pub even_if_occupied: bool,
}

/// Which subnet is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Any that is free, of the pools.
    Any {
        /// Of this family.
        family: IpFamily,
        /// Of this size; as large as the pools have them if `None`.
        prefix_len: Option<u8>,
    },
    /// This one, in a pool or not.
    This(IpNet),
}

/// Which router a subnet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gateway {
    /// One at the first address that a host may have and that is no auxiliary one. A subnet of one address has none.
    #[default]
    First,
    /// One at this address.
    This(IpAddr),
    /// None.
    None,
}

impl SubnetRequest {
    /// Any subnet of `family`.
    pub const fn any(family: IpFamily) -> Self {
        Self::wanting(Wanted::Any { family, prefix_len: None })
    }

    /// The subnet `net`.
    pub const fn this(net: IpNet) -> Self {
        Self::wanting(Wanted::This(net))
    }

    const fn wanting(wanted: Wanted) -> Self {
        Self {
            wanted,
            gateway: Gateway::First,
            endpoints: None,
            vips: None,
            auxiliary: BTreeMap::new(),
            kind: SubnetKind::Own,
            even_if_occupied: false,
        }
    }

    /// The family of the subnet wanted.
    pub fn family(&self) -> IpFamily {
        match self.wanted {
            Wanted::Any { family, .. } => family,
            Wanted::This(net) => IpFamily::of(net.addr()),
        }
    }

    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), RequestError> {
        match self.wanted {
            Wanted::This(net) => self.place(net).map(drop),
            Wanted::Any { family, prefix_len } => self.check_any(family, prefix_len),
        }
    }

    fn check_any(&self, family: IpFamily, prefix_len: Option<u8>) -> Result<(), RequestError> {
        let (shortest, longest) = match family {
            IpFamily::V4 => (8, 29),
            IpFamily::V6 => (16, 125),
        };
        if let Some(found) = prefix_len.filter(|len| !(shortest..=longest).contains(len)) {
            return Err(RequestError::PrefixLen { family, found, shortest, longest });
        }
        let gateway = matches!(self.gateway, Gateway::This(_)).then_some("a gateway");
        let range = self.endpoints.or(self.vips).map(|_| "a range");
        let auxiliary = (!self.auxiliary.is_empty()).then_some("an auxiliary address");
        let external = (self.kind == SubnetKind::External).then_some("external");
        match gateway.or(range).or(auxiliary).or(external) {
            Some(what) => Err(RequestError::NeedsSubnet { what }),
            None => Ok(()),
        }
    }

    /// The subnet that it makes of `net`: for other implementations of [`Ipam`](crate::Ipam), which choose by themselves.
    ///
    /// # Errors
    /// The first thing that makes no sense there.
    pub fn place(&self, net: IpNet) -> Result<Subnet, RequestError> {
        check_net(net)?;
        self.check_ranges(net)?;
        self.check_auxiliary(net)?;
        let subnet = Subnet {
            net,
            gateway: self.router(net)?,
            endpoints: self.endpoints,
            vips: self.vips,
            auxiliary: self.auxiliary.clone(),
            kind: self.kind,
        };
        match room(&subnet) {
            true => Ok(subnet),
            false => Err(RequestError::NoRoom { subnet: net }),
        }
    }

    /// Whether an existing subnet is what it asks for.
    pub(crate) fn is_met_by(&self, subnet: &Subnet) -> bool {
        let size = match self.wanted {
            Wanted::This(net) => subnet.net == net,
            Wanted::Any { family, prefix_len } => {
                subnet.family() == family && prefix_len.is_none_or(|len| len == subnet.net.prefix_len())
            }
        };
        size && self.place(subnet.net).is_ok_and(|placed| placed == *subnet)
    }

    fn router(&self, net: IpNet) -> Result<Option<IpAddr>, RequestError> {
        let hosts = hosts(net);
        match self.gateway {
            Gateway::None => Ok(None),
            Gateway::First if hosts.span() == 0 => Ok(None),
            Gateway::First => {
                let is_free = |offset: &u128| self.auxiliary.values().all(|other| *other != hosts.at(*offset));
                let first = (0..=hosts.span().min(self.auxiliary.len() as u128)).find(is_free);
                Ok(first.map(|offset| hosts.at(offset)))
            }
            Gateway::This(gateway) => {
                within("gateway", gateway.into(), net)?;
                if !hosts.contains(gateway) {
                    return Err(RequestError::NoHost { what: "gateway", address: gateway, subnet: net });
                }
                match self.auxiliary.iter().find(|(_, address)| **address == gateway) {
                    Some((name, _)) => Err(RequestError::Twice {
                        address: gateway,
                        first: "gateway".to_owned(),
                        second: name.to_string(),
                    }),
                    None => Ok(Some(gateway)),
                }
            }
        }
    }

    fn check_ranges(&self, net: IpNet) -> Result<(), RequestError> {
        if let Some(endpoints) = self.endpoints {
            within("range", endpoints, net)?;
        }
        if let Some(vips) = self.vips {
            within("VIP range", vips, net)?;
        }
        match (self.endpoints, self.vips) {
            (Some(first), Some(second)) if first.overlaps(second) => {
                Err(RequestError::RangesOverlap { first, second, subnet: net })
            }
            _ => Ok(()),
        }
    }

    fn check_auxiliary(&self, net: IpNet) -> Result<(), RequestError> {
        if self.auxiliary.len() > MOST_AUXILIARY {
            let (found, most) = (self.auxiliary.len(), MOST_AUXILIARY);
            return Err(RequestError::TooManyAuxiliary { subnet: net, found, most });
        }
        let mut seen = BTreeMap::new();
        for (name, address) in &self.auxiliary {
            within("auxiliary address", (*address).into(), net)?;
            if let Some(first) = seen.insert(*address, name) {
                let (first, second) = (first.to_string(), name.to_string());
                return Err(RequestError::Twice { address: *address, first, second });
            }
        }
        Ok(())
    }
}

/// What is wanted as command lines have it: four lists, matched by what lies in what.
///
/// ```
/// use overlay_ipam::SubnetOptions;
///
/// let options = SubnetOptions {
///     subnets: vec!["10.1.0.0/16".parse()?, "fd00:1::/64".parse()?],
///     gateways: vec!["fd00:1::1".parse()?],
///     ..SubnetOptions::default()
/// };
/// let requests = options.requests()?;
/// assert_eq!(requests[1].gateway, overlay_ipam::Gateway::This("fd00:1::1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubnetOptions {
    /// The subnets; `0.0.0.0/N` and `::/N` mean any of that size.
    pub subnets: Vec<IpNet>,
    /// Ranges that endpoints get their addresses from.
    pub ranges: Vec<IpNet>,
    /// Routers.
    pub gateways: Vec<IpAddr>,
    /// Addresses of others.
    pub auxiliary: BTreeMap<Name, IpAddr>,
}

impl SubnetOptions {
    /// One request for each subnet, in their order.
    ///
    /// # Errors
    /// What matches no subnet, or doubly; and what is wrong with any request.
    pub fn requests(&self) -> Result<Vec<SubnetRequest>, RequestError> {
        let mut requests: Vec<_> = self.subnets.iter().map(|net| request(*net)).collect();
        for range in &self.ranges {
            if *range != range.trunc() {
                return Err(RequestError::HostBits { what: "range", given: *range, should: range.trunc() });
            }
            let (subnet, request) = matching(&mut requests, "range", range.network())?;
            if let Some(first) = request.endpoints.replace((*range).into()) {
                return Err(RequestError::TwoRanges { first, second: (*range).into(), subnet });
            }
        }
        for gateway in &self.gateways {
            let (subnet, request) = matching(&mut requests, "gateway", *gateway)?;
            if let Gateway::This(first) = std::mem::replace(&mut request.gateway, Gateway::This(*gateway)) {
                return Err(RequestError::TwoGateways { first, second: *gateway, subnet });
            }
        }
        for (name, address) in &self.auxiliary {
            let (_, request) = matching(&mut requests, "auxiliary address", *address)?;
            request.auxiliary.insert(name.clone(), *address);
        }
        check(&requests)?;
        Ok(requests)
    }
}

/// Whether the requests of one network make sense together.
pub(crate) fn check(requests: &[SubnetRequest]) -> Result<(), RequestError> {
    if requests.len() > MOST {
        return Err(RequestError::TooMany { found: requests.len(), most: MOST });
    }
    requests.iter().try_for_each(SubnetRequest::check)?;
    let nets: Vec<IpNet> = requests.iter().filter_map(SubnetRequest::net).collect();
    for (at, first) in nets.iter().enumerate() {
        if let Some(second) = nets[at + 1..].iter().find(|second| overlap(*first, **second)) {
            return Err(RequestError::Overlap { first: *first, second: *second });
        }
    }
    Ok(())
}

impl SubnetRequest {
    /// The static subnet.
    pub(crate) const fn net(&self) -> Option<IpNet> {
        match self.wanted {
            Wanted::This(net) => Some(net),
            Wanted::Any { .. } => None,
        }
    }
}

/// Subnets of one network.
pub(crate) const MOST: usize = 16;
/// Auxiliary addresses of one subnet: a record of 16 subnets is of some 340 KB at most then.
const MOST_AUXILIARY: usize = 256;

/// "This" network, loopback, multicast and what is above; unspecified and loopback, link-local, multicast (RFC 6890).
const UNUSABLE: [IpNet; 6] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 3),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 127),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

pub(crate) fn overlap(first: IpNet, second: IpNet) -> bool {
    first.contains(&second.network()) || second.contains(&first.network())
}

fn request(net: IpNet) -> SubnetRequest {
    match net.addr().is_unspecified() {
        true => {
            let family = IpFamily::of(net.addr());
            SubnetRequest::wanting(Wanted::Any { family, prefix_len: Some(net.prefix_len()) })
        }
        false => SubnetRequest::this(net),
    }
}

fn matching<'r>(
    requests: &'r mut [SubnetRequest],
    what: &'static str,
    address: IpAddr,
) -> Result<(IpNet, &'r mut SubnetRequest), RequestError> {
    let holds = |request: &SubnetRequest| request.net().filter(|net| net.contains(&address));
    let found = requests.iter_mut().find_map(|request| holds(request).map(|net| (net, request)));
    found.ok_or(RequestError::NoSubnetFor { what, address })
}

fn check_net(net: IpNet) -> Result<(), RequestError> {
    if net != net.trunc() {
        return Err(RequestError::HostBits { what: "subnet", given: net, should: net.trunc() });
    }
    match UNUSABLE.into_iter().find(|other| overlap(net, *other)) {
        Some(reserved) => Err(RequestError::Unusable { subnet: net, reserved }),
        None => Ok(()),
    }
}

fn within(what: &'static str, range: AddressRange, net: IpNet) -> Result<(), RequestError> {
    let subnet = AddressRange::from(net);
    if range.family() != subnet.family() {
        return Err(RequestError::WrongFamily { what, range, subnet: net });
    }
    match subnet.covers(range) {
        true => Ok(()),
        false if range.covers(subnet) => Err(RequestError::Larger { what, range, subnet: net }),
        false => Err(RequestError::Outside { what, range, subnet: net }),
    }
}

/// Whether any address is left for an endpoint.
fn room(subnet: &Subnet) -> bool {
    let reserved = subnet.auxiliary.len() as u128 + 3;
    let ranges = subnet.ranges(Use::Endpoint);
    ranges.iter().any(|range| {
        (0..=range.span().min(reserved)).any(|offset| subnet.reserved(range.at(offset)).is_none())
            || subnet.reserved(range.last()).is_none()
    })
}
