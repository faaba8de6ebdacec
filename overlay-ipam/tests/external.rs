//! Another allocator in the place of ours: a company's own system, asked over HTTP.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use async_trait::async_trait;
use overlay_core::testing::block_on;
use overlay_core::{IpFamily, MemoryStore, NetworkId, NodeId, Prefix, UnixTime};
use overlay_ipam::{
    AddressRequest, Allocator, ClaimRefusal, Config, Ipam, IpamError, Lease, LeaseOwner, PoolName, Release, Subnet,
    SubnetRequest, SubnetUsage, Use,
};

const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

/// What a manager does, whoever hands out the addresses.
async fn manage(ipam: &dyn Ipam) -> Vec<Lease> {
    let network = NetworkId::from_bytes([5; 16]);
    let wanted = [SubnetRequest::any(IpFamily::V4)];
    let subnets = ipam.claim_subnets(network, &wanted, NOW).await.unwrap();
    assert_eq!(ipam.claim_subnets(network, &wanted, NOW).await.unwrap(), subnets);
    assert_eq!(ipam.subnets(network).await.unwrap(), subnets);
    let owner = |number: u8| LeaseOwner::new([number]).unwrap();
    let requests: Vec<_> = (1..=3).map(|number| AddressRequest::any(owner(number), IpFamily::V4)).collect();
    let answers = ipam.claim(network, &requests, NOW).await.unwrap();
    let leases: Vec<Lease> = answers.into_iter().map(Result::unwrap).collect();
    assert!(leases.iter().all(|lease| subnets[0].net().contains(&lease.ip())));
    assert_eq!(ipam.claim_one(network, requests[1].clone(), NOW).await.unwrap(), leases[1]);
    assert!(matches!(ipam.release_subnets(network, NOW).await, Err(IpamError::InUse { leases: 3, .. })));
    assert_eq!(ipam.release(&leases, NOW).await.unwrap(), [Release::Done; 3]);
    assert_eq!(ipam.release(&leases, NOW).await.unwrap(), [Release::Gone; 3]);
    ipam.release_subnets(network, NOW).await.unwrap();
    ipam.release_subnets(network, NOW).await.unwrap();
    assert!(matches!(ipam.subnets(network).await, Err(IpamError::UnknownNetwork { .. })));
    leases
}

#[test]
fn a_manager_does_not_care_whose_allocator_it_uses() {
    let (node, store) = (NodeId::from_bytes([1; 16]), Arc::new(MemoryStore::default()));
    let ours = Allocator::new(store, &Prefix::ALL, node, Config::default(), [0; 32]).unwrap();
    assert_eq!(block_on(manage(&ours))[0].ip().to_string(), "10.0.0.2");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    #[allow(clippy::disallowed_methods, reason = "the other side of a connection")]
    std::thread::spawn(move || serve(&listener));
    let theirs: Box<dyn Ipam> = Box::new(OverHttp { server });
    assert_eq!(block_on(manage(&*theirs))[0].ip().to_string(), "192.0.2.10");
}

/// Speaks with the server below: `METHOD /path`, the answer a line.
#[derive(Debug)]
struct OverHttp {
    server: SocketAddr,
}

impl OverHttp {
    fn ask(&self, method: &str, path: &str) -> Result<String, IpamError> {
        let exchange = || {
            let mut stream = TcpStream::connect(self.server)?;
            write!(stream, "{method} {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
        };
        exchange().map_err(|error: std::io::Error| IpamError::Other {
            doing: "ask the company's IPAM",
            source: Arc::new(error),
        })
    }

    fn subnet(&self) -> Result<Vec<Subnet>, IpamError> {
        let net = self.ask("GET", "/subnet")?.parse().unwrap();
        Ok(vec![SubnetRequest::any(IpFamily::V4).place(net).map_err(|error| IpamError::Subnet(error.into()))?])
    }
}

#[async_trait]
impl Ipam for OverHttp {
    async fn claim_subnets(&self, _: NetworkId, _: &[SubnetRequest], _: UnixTime) -> Result<Vec<Subnet>, IpamError> {
        self.ask("POST", "/network")?;
        self.subnet()
    }

    async fn subnets(&self, network: NetworkId) -> Result<Vec<Subnet>, IpamError> {
        match &*self.ask("GET", "/network")? {
            "known" => self.subnet(),
            _ => Err(IpamError::UnknownNetwork { network }),
        }
    }

    async fn networks(&self) -> Result<Vec<(NetworkId, Vec<Subnet>)>, IpamError> {
        let network = NetworkId::from_bytes([5; 16]);
        match self.subnets(network).await {
            Err(IpamError::UnknownNetwork { .. }) => Ok(Vec::new()),
            subnets => Ok(vec![(network, subnets?)]),
        }
    }

    async fn release_subnets(&self, network: NetworkId, _: UnixTime) -> Result<(), IpamError> {
        match self.ask("DELETE", "/network")?.parse().unwrap() {
            0 => Ok(()),
            leases => Err(IpamError::InUse { network, leases }),
        }
    }

    async fn claim(
        &self,
        network: NetworkId,
        requests: &[AddressRequest],
        _: UnixTime,
    ) -> Result<Vec<Result<Lease, ClaimRefusal>>, IpamError> {
        let one = |request: &AddressRequest| {
            let answer = self.ask("POST", &format!("/lease/{}", request.owner))?;
            let exhausted = ClaimRefusal::Exhausted { pool: PoolName::Subnets(Vec::new()), in_use: 20, resting: 0 };
            let Ok(address) = answer.parse() else { return Ok(Err(exhausted)) };
            let owner = request.owner.clone();
            Ok(Ok(Lease { network, owner, address, purpose: Use::Endpoint, generation: 0 }))
        };
        requests.iter().map(one).collect()
    }

    async fn release(&self, leases: &[Lease], _: UnixTime) -> Result<Vec<Release>, IpamError> {
        let one = |lease: &Lease| match &*self.ask("DELETE", &format!("/lease/{}", lease.owner))? {
            "done" => Ok(Release::Done),
            _ => Ok(Release::Gone),
        };
        leases.iter().map(one).collect()
    }

    async fn leases(&self, _: NetworkId) -> Result<Vec<Lease>, IpamError> {
        Ok(Vec::new())
    }

    async fn usage(&self, _: NetworkId, _: UnixTime) -> Result<Vec<SubnetUsage>, IpamError> {
        Ok(Vec::new())
    }
}

/// Hands out 192.0.2.10 and up, a request after the other, for as long as the test lasts.
fn serve(listener: &TcpListener) {
    let mut leases: BTreeMap<String, u8> = BTreeMap::new();
    let mut known = false;
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let answer = match (method, path.split_once("/lease/")) {
            ("POST", Some((_, owner))) => {
                let free = (10..30).find(|last| !leases.values().any(|held| held == last));
                let last = *leases.entry(owner.to_owned()).or_insert_with(|| free.unwrap());
                format!("192.0.2.{last}/24")
            }
            (_, Some((_, owner))) => leases.remove(owner).map_or("gone", |_| "done").to_owned(),
            ("GET", None) if path == "/subnet" => "192.0.2.0/24".to_owned(),
            ("GET", None) => if known { "known" } else { "unknown" }.to_owned(),
            ("DELETE", None) => {
                known &= !leases.is_empty();
                leases.len().to_string()
            }
            _ => {
                known = true;
                String::new()
            }
        };
        write!(stream, "HTTP/1.0 200 OK\r\n\r\n{answer}").unwrap();
    }
}
