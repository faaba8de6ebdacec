//! A root whose key a signer elsewhere has, asked over HTTPS.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use overlay_core::testing::block_on;
use overlay_core::{ClusterId, MemoryStore, NodeId, Prefix, Seat, Store, Term, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Authority, Certificate, CertificateAuthority, Denied, Grant, Identity, Invitation, JoinRefusal, Joining,
    Life, NextRoot, Proof, Renewing, Role, RootRefusal, SealingKey, Serial, SignerError, SignerTransport, SigningKey,
    SigningRequest, StoreAuthority, TokenRefusal, Trouble, Usage,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};

const CLUSTER: ClusterId = ClusterId::from_bytes([5; 16]);

fn now() -> UnixTime {
    UnixTime::from_millis(1_800_000_000_000)
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EcdsaP256).unwrap()
}

fn serial() -> Serial {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Serial::generate(|bytes| bytes[8..].copy_from_slice(&next.to_be_bytes()))
}

fn root() -> Authority {
    Authority::create(CLUSTER, key(), &serial(), now()).unwrap()
}

/// How the signer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Right,
    OtherKey,
    OtherName,
    AsRoot,
    OtherRoot,
    TooLong,
    ForEver,
    Refuses,
    Nonsense,
    Endless,
}

struct Signer {
    root: Authority,
    way: Mutex<Way>,
}

impl Signer {
    fn answer(&self, body: &[u8]) -> Vec<u8> {
        let ask: serde_json::Value = serde_json::from_slice(body).unwrap();
        let way = *self.way.lock().unwrap();
        let text = |at: &str| ask.pointer(at).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
        let der = pem::parse(text("/certificate_request")).unwrap().into_contents();
        let signed = match way {
            Way::Refuses => {
                return br#"{"success":false,"result":null,"errors":[{"code":1,"message":"closed today"}]}"#.to_vec();
            }
            Way::Nonsense => return b"<html>".to_vec(),
            Way::Endless => return vec![b' '; 300 * 1024],
            _ if text("/profile") == "CA" => self.sign_root(&der),
            _ => self.sign_node(&der, way, &text),
        };
        serde_json::json!({"success": true, "result": {"certificate": signed.to_pem()}, "errors": [], "messages": []})
            .to_string()
            .into_bytes()
    }

    fn sign_node(&self, der: &[u8], way: Way, text: &dyn Fn(&str) -> String) -> Certificate {
        let role = if text("/subject/names/0/OU") == "swarm-manager" { Role::Manager } else { Role::Worker };
        assert_eq!(text("/hosts/0"), text("/subject/names/0/OU"));
        let cluster = text("/subject/names/0/O").parse().unwrap();
        let mut identity = Identity { node: text("/subject/CN").parse().unwrap(), role, cluster };
        let mut request = SigningRequest::from_der(der).unwrap();
        match way {
            Way::OtherKey => request = SigningRequest::create(&key()).unwrap(),
            Way::OtherName => identity.role = Role::Manager,
            Way::AsRoot => return self.sign_root(der),
            _ => {}
        }
        let days = if way == Way::ForEver { 3000 } else { 90 };
        let life = Life::new(Duration::from_secs(days * 24 * 3600)).unwrap();
        let grant = Grant { identity, life, serial: serial() };
        let other = root();
        let signs = if way == Way::OtherRoot { &other } else { &self.root };
        let at = if way == Way::TooLong { now() + Duration::from_secs(7200) } else { now() };
        signs.issue(&request, &grant, at).unwrap()
    }

    fn sign_root(&self, der: &[u8]) -> Certificate {
        let asked = rcgen::CertificateSigningRequestParams::from_der(&der.to_vec().into()).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, CLUSTER.to_string());
        params.distinguished_name.push(rcgen::DnType::CommonName, "swarm-ca");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1));
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.not_before = time::OffsetDateTime::from_unix_timestamp(now().as_secs() as i64 - 3600).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(now().as_secs() as i64 + 86_400 * 800).unwrap();
        let mut own = rcgen::CertificateParams::default();
        own.distinguished_name = params.distinguished_name.clone();
        let pair = rcgen::KeyPair::try_from(self.root.key().to_pkcs8().as_slice()).unwrap();
        let signed = params.signed_by(&asked.public_key, &rcgen::Issuer::new(own, pair)).unwrap();
        Certificate::from_der(signed.der().to_vec()).unwrap()
    }
}

/// One request on one connection.
fn serve(stream: &mut (impl Read + Write), signer: &Signer) -> std::io::Result<()> {
    let (head, mut body) = read_head(stream)?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let mut part = [0; 4096];
    while body.len() < length {
        let read = stream.read(&mut part)?;
        body.extend_from_slice(&part[..read]);
    }
    let answer = signer.answer(&body);
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len())?;
    stream.write_all(&answer)?;
    stream.flush()
}

fn read_head(stream: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(at) = all.windows(4).position(|end| end == b"\r\n\r\n") {
            let body = all.split_off(at + 4);
            return Ok((String::from_utf8(all).unwrap(), body));
        }
        match stream.read(&mut part)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => all.extend_from_slice(&part[..read]),
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// An HTTPS server that signs, until the test is over.
#[expect(clippy::disallowed_methods, reason = "a server of a test is a thread")]
fn start(signer: Arc<Signer>) -> (SocketAddr, CertificateDer<'static>) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
    let (der, key) = (own.der().clone(), PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![der.clone()], key.into()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            if serve(&mut tls, &signer).is_ok() {
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    (address, der)
}

/// HTTPS, as a test needs it.
#[derive(Debug)]
struct Https {
    server: SocketAddr,
    config: Arc<rustls::ClientConfig>,
}

impl Https {
    fn new(server: SocketAddr, trusted: CertificateDer<'static>) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions().unwrap();
        Self { server, config: Arc::new(config.with_root_certificates(roots).with_no_client_auth()) }
    }

    fn ask(&self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection =
            rustls::ClientConnection::new(Arc::clone(&self.config), name).map_err(std::io::Error::other)?;
        let mut tls = rustls::StreamOwned::new(connection, TcpStream::connect(self.server)?);
        write!(tls, "POST /sign HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len())?;
        tls.write_all(body)?;
        let (_, mut answer) = read_head(&mut tls)?;
        tls.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

#[async_trait]
impl SignerTransport for Https {
    async fn post(&self, _url: &str, body: Vec<u8>) -> Result<Vec<u8>, String> {
        self.ask(&body).map_err(|error| error.to_string())
    }
}

struct Bench {
    signer: Arc<Signer>,
    authority: StoreAuthority,
    next: NextRoot,
}

const URL: &str = "https://localhost/sign";

fn elsewhere(root: &Authority) -> NextRoot {
    NextRoot::Elsewhere { certificate: root.certificate().clone(), url: URL.to_owned() }
}

/// A leading manager of a cluster that is not founded yet, and a signer.
fn bench() -> Bench {
    let signer = Arc::new(Signer { root: root(), way: Mutex::new(Way::Right) });
    let (address, trusted) = start(Arc::clone(&signer));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let seat = Seat::new(&Prefix::new("manager/").unwrap(), NodeId::from_bytes([1; 16])).unwrap();
    let term = block_on(Term::campaign(&*store, &seat, now())).unwrap();
    let authority = StoreAuthority::new(store, &Prefix::ALL, CLUSTER, [7; 32]).unwrap();
    let authority = authority.with_transport(Arc::new(Https::new(address, trusted)));
    authority.hold(SealingKey::generate(|bytes| bytes.fill(8)));
    authority.lead(term);
    let next = elsewhere(&signer.root);
    Bench { signer, authority, next }
}

fn joining(authority: &StoreAuthority) -> Joining {
    let invitation = Invitation { role: Role::Worker, until: None, uses: Some(1), node: None };
    let token = block_on(authority.invite(&invitation)).unwrap();
    Joining { token, request: SigningRequest::create(&key()).unwrap(), node: None }
}

#[test]
fn a_signer_elsewhere_signs_nodes_in_and_what_it_signed_is_given_again_not_signed_again() {
    let Bench { signer, authority, next } = bench();
    block_on(authority.found(&next, now())).unwrap();
    let asked = joining(&authority);
    let issued = block_on(authority.join(&asked, now())).unwrap();
    let trusted = block_on(authority.trusted()).unwrap();
    assert_eq!(trusted.roots, [signer.root.certificate().clone()]);
    assert_eq!(trusted.verify(&issued.chain, Usage::Server, now()).unwrap().role, Role::Worker);
    *signer.way.lock().unwrap() = Way::Refuses;
    assert_eq!(block_on(authority.join(&asked, now())).unwrap(), issued);
    let member = block_on(authority.members(now())).unwrap().pop().unwrap();
    assert_eq!(member.held.serial, *issued.certificate().unwrap().serial());

    *signer.way.lock().unwrap() = Way::Right;
    let proof = Proof::Session(issued.certificate().unwrap().clone());
    let renewing = Renewing { proof, request: SigningRequest::create(&key()).unwrap() };
    let renewed = block_on(authority.renew(&renewing, now())).unwrap();
    assert!(block_on(authority.seen(renewed.certificate().unwrap(), now())).unwrap().renew.is_none());
}

#[test]
fn what_a_signer_answers_that_does_not_fit_is_refused_by_name_and_spends_no_use_for_another() {
    let Bench { signer, authority, next } = bench();
    block_on(authority.found(&next, now())).unwrap();
    let asked = joining(&authority);
    let refused = |way| {
        *signer.way.lock().unwrap() = way;
        match block_on(authority.join(&asked, now())) {
            Err(Denied::Trouble(Trouble::Signer(error))) => error,
            other => panic!("{way:?}: {other:?}"),
        }
    };
    assert!(matches!(refused(Way::OtherKey), SignerError::OtherKey { .. }));
    assert_eq!(refused(Way::OtherName), SignerError::OtherName);
    assert_eq!(refused(Way::AsRoot), SignerError::Authority);
    assert!(matches!(refused(Way::OtherRoot), SignerError::OtherRoot(_)));
    assert!(matches!(refused(Way::TooLong), SignerError::Life(_)));
    assert!(matches!(refused(Way::ForEver), SignerError::Life(_)));
    assert!(matches!(refused(Way::Refuses), SignerError::Refuses { why, .. } if why == "closed today"));
    assert!(matches!(refused(Way::Nonsense), SignerError::Unreachable { .. }));
    assert!(matches!(refused(Way::Endless), SignerError::TooLong { .. }));
    *signer.way.lock().unwrap() = Way::Right;
    assert!(block_on(authority.join(&asked, now())).is_ok(), "its use was spent for it, and once");
    let other = Joining { request: SigningRequest::create(&key()).unwrap(), ..asked };
    let spent = block_on(authority.join(&other, now())).unwrap_err();
    assert_eq!(spent.refusal(), Some(&JoinRefusal::Token(TokenRefusal::Spent)));
}

#[test]
fn the_root_is_changed_to_a_signer_elsewhere_and_back_and_from_one_signer_to_another_it_is_not() {
    let Bench { signer, authority, next } = bench();
    block_on(authority.found(&NextRoot::Generate(Algorithm::EcdsaP256), now())).unwrap();
    let first = block_on(authority.join(&joining(&authority), now())).unwrap();
    let refusal = |next: &NextRoot| match block_on(authority.rotate_root(next, now())) {
        Err(Denied::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let wrong = refusal(&elsewhere(&root()));
    assert!(matches!(wrong, RootRefusal::Signer(SignerError::OtherRoot(_))), "another root's signer: {wrong:?}");
    *signer.way.lock().unwrap() = Way::Nonsense;
    assert!(matches!(refusal(&next), RootRefusal::Signer(SignerError::Unreachable { .. })));
    *signer.way.lock().unwrap() = Way::Right;
    block_on(authority.rotate_root(&next, now())).unwrap();

    let renew = |shown: &Certificate| {
        let request = SigningRequest::create(&key()).unwrap();
        let renewed = block_on(authority.renew(&Renewing { proof: Proof::Session(shown.clone()), request }, now()));
        let renewed = renewed.unwrap();
        block_on(authority.seen(renewed.certificate().unwrap(), now())).unwrap();
        renewed
    };
    let second = renew(first.certificate().unwrap());
    assert!(block_on(authority.tend(now())).unwrap().root_changed);
    let trusted = block_on(authority.trusted()).unwrap();
    assert_eq!(trusted.roots, [signer.root.certificate().clone()]);
    assert!(trusted.verify(&second.chain, Usage::Client, now()).is_ok());
    assert_eq!(refusal(&elsewhere(&root())), RootRefusal::BothElsewhere);

    // Back: the signer signs the next root, whose key is here.
    block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::Ed25519), now())).unwrap();
    let third = renew(second.certificate().unwrap());
    let old = overlay_crypto::pki::Trust::new(trusted.roots).unwrap();
    assert!(old.verify(&third.chain, Usage::Client, now()).is_ok());
    assert!(block_on(authority.tend(now())).unwrap().root_changed);
}
