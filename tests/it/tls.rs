//! The listener over TLS: certificates of both sides, and clients that speak
//! something else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nodegauge::auth::reviews::Times;
use nodegauge::auth::{Guard, How, Reviews, Tls, TlsFiles, rules};
use nodegauge::expose::http::Limits;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::served::{POLICY, Server, eventually, limits};
use crate::standin::apiserver::ApiServer;

/// An authority that signs what it is asked to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
pub(crate) type Pair = (String, String);

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, name: &str, group: Option<&str>, usage: ExtendedKeyUsagePurpose) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn server(&self) -> Pair {
        self.sign("server", None, ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self, name: &str, group: Option<&str>) -> Pair {
        self.sign(name, group, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// Certificate, key and client CA in a directory.
pub(crate) struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new(pair: &Pair, client_ca: &Authority) -> Files {
        let files = Files { dir: tempfile::tempdir().unwrap() };
        files.write(pair);
        std::fs::write(files.at("ca"), &client_ca.pem).unwrap();
        files
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, (certificate, key): &Pair) {
        std::fs::write(self.at("cert"), certificate).unwrap();
        std::fs::write(self.at("key"), key).unwrap();
    }

    fn tls(&self) -> Tls {
        let (certificate, key, client_ca) = (self.at("cert"), self.at("key"), Some(self.at("ca")));
        Tls::open(TlsFiles { certificate, key, client_ca }).unwrap()
    }
}

fn serve(tls: Tls, limits: Limits) -> Server {
    let server = Server::guarded(POLICY, limits, move |telemetry| {
        Guard::new(rules::AGENT, How::Token(None), Some(tls), telemetry)
    });
    server.publish(1, 2);
    server
}

/// The status of one request over TLS, with a client's certificate or without.
fn get(address: SocketAddr, trust: &Authority, client: Option<&Pair>, path: &str) -> Result<u16, String> {
    let mut stream = connect(address, trust, client);
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    let result = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    match text.split(' ').nth(1) {
        Some(status) => Ok(status.parse().unwrap()),
        None => Err(result.expect_err("an answer or an error").to_string()),
    }
}

/// A client's end of a connection.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection over TLS, with a client's certificate or without.
pub(crate) fn connect(address: SocketAddr, trust: &Authority, client: Option<&Pair>) -> Stream {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trust.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    };
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    StreamOwned::new(session, socket)
}

fn failures(server: &Server, reason: &str) -> f64 {
    server.own(&format!("nodegauge_tls_handshake_failures_total{{reason=\"{reason}\"}}")).unwrap()
}

#[test]
fn a_clients_certificate_lets_in_and_probes_need_none() {
    let (ours, theirs, other) = (Authority::new("ours"), Authority::new("theirs"), Authority::new("other"));
    let files = Files::new(&ours.server(), &theirs);
    let server = serve(files.tls(), limits());
    let get = |client, path| get(server.address, &ours, client, path);
    assert_eq!((get(None, "/healthz"), get(None, "/metrics")), (Ok(200), Ok(401)));
    let client = theirs.client("collector", None);
    assert_eq!(get(Some(&client), "/metrics"), Ok(200));
    // A wrong one lets nobody in, not even to the probes.
    let stranger = other.client("collector", None);
    assert!(get(Some(&stranger), "/healthz").is_err());
    let wrong_use = theirs.server();
    assert!(get(Some(&wrong_use), "/healthz").is_err());
    eventually("two wrong certificates", || failures(&server, "certificate") == 2.0);
    assert_eq!(
        server.own("nodegauge_auth_decisions_total{method=\"certificate\",result=\"accepted\"}"),
        Some(1.0)
    );
    // rcgen's certificates end in the year 4096.
    assert!(server.own("nodegauge_tls_certificate_not_after_seconds") > Some(4e9));
}

#[test]
fn a_certificate_names_user_and_groups() {
    let authority = Authority::new("cluster");
    let api = ApiServer::start();
    api.allows("monitoring", "nodes/metrics");
    api.allows("system:authenticated", "/metrics/self");
    let files = Files::new(&authority.server(), &authority);
    let (tls, client) = (files.tls(), api.clone());
    let server = Server::guarded(POLICY, limits(), move |telemetry| {
        let reviews = Reviews::new(client.client(), "node-1".to_owned(), Times::default()).unwrap();
        Guard::new(rules::AGENT, How::Kubernetes(Box::new(reviews)), Some(tls), telemetry)
    });
    server.publish(1, 2);
    let get = |client: &Pair, path| get(server.address, &authority, Some(client), path);
    let (member, stranger) =
        (authority.client("prometheus", Some("monitoring")), authority.client("eve", None));
    assert_eq!((get(&member, "/metrics"), get(&stranger, "/metrics")), (Ok(200), Ok(403)));
    assert_eq!(get(&stranger, "/metrics/self"), Ok(200));
    let asked = api.asked();
    assert!(asked.iter().all(|review| review["spec"].get("token").is_none()));
    assert_eq!(asked[0]["spec"]["user"], "prometheus");
    assert_eq!(asked[0]["spec"]["groups"], serde_json::json!(["monitoring", "system:authenticated"]));
}

#[test]
fn a_new_certificate_serves_without_a_restart() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let files = Files::new(&first.server(), &first);
    // Mounted as Kubernetes does: a link to a directory, which is turned.
    let at = |name: &str| files.at(name);
    let mounted = |name: &str, authority: &Authority, pair: &Pair| {
        let dir = at(name);
        std::fs::create_dir(&dir).unwrap();
        for (file, text) in [("tls.crt", &pair.0), ("tls.key", &pair.1), ("ca.crt", &authority.pem)] {
            std::fs::write(dir.join(file), text).unwrap();
        }
    };
    let turn = |name: &str| {
        std::os::unix::fs::symlink(name, at("next")).unwrap();
        std::fs::rename(at("next"), at("..data")).unwrap();
    };
    let link = |file: &str| -> PathBuf {
        std::os::unix::fs::symlink(Path::new("..data").join(file), at(file)).unwrap();
        at(file)
    };
    mounted("one", &first, &first.server());
    mounted("two", &second, &second.server());
    mounted("bad", &second, &(second.server().0, second.server().1));
    turn("one");
    let paths =
        TlsFiles { certificate: link("tls.crt"), key: link("tls.key"), client_ca: Some(link("ca.crt")) };
    let quick = Limits { tidy: Duration::from_millis(20), ..limits() };
    let server = serve(Tls::open(paths).unwrap(), quick);
    let get = |authority, client: Option<&Pair>, path| get(server.address, authority, client, path);
    assert!(get(&first, None, "/healthz") == Ok(200) && get(&second, None, "/healthz").is_err());
    let reloads = |result: &str| {
        server.own(&format!("nodegauge_credential_reloads_total{{file=\"certificate\",result=\"{result}\"}}"))
    };
    turn("two");
    eventually("the new certificate", || reloads("taken") == Some(1.0));
    assert!(get(&second, None, "/healthz") == Ok(200) && get(&first, None, "/healthz").is_err());
    // The client CA came with it.
    assert_eq!(get(&second, Some(&second.client("a", None)), "/metrics"), Ok(200));
    assert!(get(&second, Some(&first.client("a", None)), "/metrics").is_err());
    // A certificate with another's key.
    turn("bad");
    eventually("the bad certificate", || reloads("refused") == Some(1.0));
    assert_eq!(get(&second, None, "/healthz"), Ok(200), "the last one stays");
}

#[test]
fn whoever_speaks_something_else_is_counted_and_hinders_nobody() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.server(), &authority);
    let server = serve(files.tls(), Limits { handshake: Duration::from_secs(4), ..limits() });
    // Stalled handshakes: nothing, and half a record. They are open all the while.
    let silent = server.connect();
    let mut half = server.connect();
    half.write(b"\x16\x03\x01\x02\x00\x01\x00");
    assert_eq!(get(server.address, &authority, None, "/healthz"), Ok(200));
    // A hello that knows TLS 1.0 at most: version 3.1, one cipher suite of its time.
    let mut old = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x01".to_vec();
    old.extend([7; 32]);
    old.extend(b"\x00\x00\x02\x00\x2f\x01\x00");
    let garbage: Vec<u8> = (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect();
    for bytes in [b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".as_slice(), &garbage, &old] {
        let mut client = server.connect();
        // It may be closed before all is sent.
        let _ = client.0.get_mut().write_all(bytes);
        client.closed_after();
    }
    eventually("three of another language", || failures(&server, "protocol") == 3.0);
    drop(server.connect());
    eventually("one that hung up", || failures(&server, "closed") == 1.0);
    eventually("two that stalled", || failures(&server, "slow") == 2.0);
    drop((silent, half));
    assert_eq!(get(server.address, &authority, None, "/readyz"), Ok(200));
}
