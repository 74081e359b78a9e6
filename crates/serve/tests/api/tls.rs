//! TLS as clients see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_serve::{
    Certificate, CertificateFiles, Certificates, Challenges, Front, Limits, Listener, Pair, Redirect,
    RegistryService, Tls, serve_all,
};
use ferry_store::MemoryStore;
use ferry_testkit::authority::{Authority, Certified};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server with an encrypted and a plain listener.
struct Served {
    encrypted: SocketAddr,
    plain: SocketAddr,
    authority: Authority,
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    _stop: DropGuard,
}

impl Served {
    async fn start(limits: Limits) -> Self {
        let (certificates, challenges) = (Certificates::new(), Challenges::new());
        let tls = Arc::new(Tls::new(Arc::clone(&certificates), Arc::clone(&challenges)).unwrap());
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = vec![Listener::plain(bind().await), Listener::encrypted(bind().await, tls)];
        let [plain, encrypted] = [0, 1].map(|at: usize| listeners[at].address().unwrap());
        let front = Front::new(RegistryService::new(Arc::new(MemoryStore::new())))
            .proving(Arc::clone(&challenges))
            .redirecting(Redirect { port: encrypted.port() });
        let stop = CancellationToken::new();
        tokio::spawn(serve_all(listeners, front, limits, stop.clone()));
        let authority = Authority::new().unwrap();
        Self { encrypted, plain, authority, certificates, challenges, _stop: stop.drop_guard() }
    }

    /// With a certificate for `cr.test`.
    async fn usual() -> Self {
        let served = Self::start(Limits::default()).await;
        served.certify("first", &["cr.test"]);
        served
    }

    fn certify(&self, key: &str, names: &[&str]) {
        self.certificates.set(key, read(&self.authority.certify(names).unwrap()));
    }

    fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.certificate().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    async fn connect(&self, config: Arc<ClientConfig>, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.encrypted).await.unwrap();
        TlsConnector::from(config).connect(ServerName::try_from(host.to_owned()).unwrap(), stream).await
    }

    /// Whether a client that trusts our authority gets an answer from that host.
    async fn trusts(&self, host: &str) -> bool {
        let Ok(mut stream) = self.connect(self.client(&[]), host).await else { return false };
        assert!(get(&mut stream, host, "/v2/").await.starts_with("HTTP/1.1 200"));
        true
    }
}

fn read(certified: &Certified) -> Certificate {
    Certificate::from_pem("test", certified.certificate.as_bytes(), certified.key.as_bytes()).unwrap()
}

async fn get<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get_plain(address: SocketAddr, host: &str, path: &str) -> String {
    get(&mut TcpStream::connect(address).await.unwrap(), host, path).await
}

#[tokio::test]
async fn the_certificate_is_that_of_the_host_and_can_be_replaced() {
    let served = Served::start(Limits::default()).await;
    assert!(!served.trusts("cr.test").await, "there is none");
    served.certify("first", &["cr.test"]);
    assert!(served.trusts("cr.test").await && !served.trusts("gcr.cr.test").await);
    served.certify("wild", &["*.cr.test"]);
    assert!(served.trusts("gcr.cr.test").await && served.trusts("CR.test").await);
    assert!(!served.trusts("a.gcr.cr.test").await && !served.trusts("other.test").await);
    served.certify("exact", &["gcr.cr.test", "127.0.0.1"]);
    let names = |host: Option<&str>| served.certificates.find(host).unwrap().names().join(" ");
    assert_eq!(names(Some("GCR.cr.test")), "gcr.cr.test 127.0.0.1", "before the wildcard");
    assert_eq!(names(Some("quay.cr.test")), "*.cr.test");
    assert_eq!(names(None), "cr.test", "the first for who says nothing");
    served.certify("first", &["other.test"]);
    assert!(served.trusts("other.test").await && !served.trusts("cr.test").await);
    served.certificates.remove("exact");
    assert_eq!(names(Some("gcr.cr.test")), "*.cr.test");
}

#[tokio::test]
async fn http_1_is_spoken_and_nothing_else() {
    let served = Served::usual().await;
    let stream = served.connect(served.client(&["h2", "http/1.1"]), "cr.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(served.connect(served.client(&["h2"]), "cr.test").await.is_err());
    assert!(served.connect(served.client(&["http/1.1", "acme-tls/1"]), "cr.test").await.is_ok());
}

#[tokio::test]
async fn a_client_that_comes_again_need_not_be_shown_the_certificate() {
    let served = Served::usual().await;
    let client = served.client(&[]);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = served.connect(Arc::clone(&client), "cr.test").await.unwrap();
        assert!(get(&mut stream, "cr.test", "/v2/").await.starts_with("HTTP/1.1 200"));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
    }
}

#[tokio::test]
async fn who_speaks_plain_http_to_it_is_told() {
    let served = Served::usual().await;
    let answer = get_plain(served.encrypted, "cr.test", "/v2/").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_holds_up_nobody() {
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let served = Served::start(limits).await;
    served.certify("first", &["cr.test"]);
    let mut silent = TcpStream::connect(served.encrypted).await.unwrap();
    let mut slow = TcpStream::connect(served.encrypted).await.unwrap();
    slow.write_all(&[22, 3, 1, 2]).await.unwrap();
    assert!(served.trusts("cr.test").await);
    for stream in [&mut silent, &mut slow] {
        // Without the limit this would wait for ever.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test]
async fn rubbish_harms_nobody_here_either() {
    let served = Served::usual().await;
    for rubbish in
        [&b"\x16\x03\x01\xff\xff rubbish that is as long as it likes"[..], b"\0\0\0", b"SSH-2.0-x\r\n"]
    {
        let mut stream = TcpStream::connect(served.encrypted).await.unwrap();
        stream.write_all(rubbish).await.unwrap();
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert!(served.trusts("cr.test").await);
}

#[tokio::test]
async fn who_comes_without_encryption_is_sent_to_where_there_is_some() {
    let served = Served::usual().await;
    let answer = get_plain(served.plain, "cr.test:5000", "/v2/a/tags/list?n=1").await;
    let port = served.encrypted.port();
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    assert!(answer.contains(&format!("location: https://cr.test:{port}/v2/a/tags/list?n=1\r\n")), "{answer}");
    assert!(get_plain(served.plain, "10.0.0.1", "/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn authorities_see_what_was_put_there_for_that_host_alone() {
    let served = Served::usual().await;
    let path = "/.well-known/acme-challenge/token";
    served.challenges.show_answer("cr.test", "token", "token.thumbprint");
    let answer = get_plain(served.plain, "CR.test:80", path).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\ntoken.thumbprint"), "{answer}");
    for (host, path) in [("evil.test", path), ("cr.test", "/.well-known/acme-challenge/other")] {
        assert!(get_plain(served.plain, host, path).await.starts_with("HTTP/1.1 404"), "{host} {path}");
    }
    served.challenges.hide_answer("cr.test", "token");
    assert!(get_plain(served.plain, "cr.test", path).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn authorities_shake_hands_in_their_own_protocol() {
    let served = Served::usual().await;
    let authority = served.client(&["acme-tls/1"]);
    assert!(served.connect(Arc::clone(&authority), "cr.test").await.is_err(), "nothing is there");
    let proof = read(&served.authority.certify(&["cr.test"]).unwrap());
    served.challenges.show_certificate("cr.test", &proof).unwrap();
    let mut stream = served.connect(Arc::clone(&authority), "cr.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0, "the handshake is all");
    assert!(served.connect(Arc::clone(&authority), "gcr.cr.test").await.is_err());
    assert!(served.trusts("cr.test").await, "clients see nothing of it");
    served.challenges.hide_certificate("cr.test");
    assert!(served.connect(authority, "cr.test").await.is_err());
}

#[tokio::test]
async fn listeners_share_their_limit() {
    let served = Served::start(Limits { connections: 1, ..Limits::default() }).await;
    served.certify("first", &["cr.test"]);
    let first = served.connect(served.client(&[]), "cr.test").await.unwrap();
    // One more is waited for by the plain listener.
    let held = TcpStream::connect(served.plain).await.unwrap();
    let waiting = served.trusts("cr.test");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting.as_mut()).await.is_err());
    drop((first, held));
    assert!(waiting.await);
}

/// A pair of files, written as `certified`.
fn write(directory: &std::path::Path, certified: &Certified) -> Pair {
    let pair = Pair { certificate: directory.join("tls.crt"), key: directory.join("tls.key") };
    std::fs::write(&pair.certificate, &certified.certificate).unwrap();
    std::fs::write(&pair.key, &certified.key).unwrap();
    pair
}

#[test]
fn files_are_taken_when_they_are_whole() {
    let (authority, directory) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
    let [old, new] = [["old.test"], ["new.test"]].map(|names| authority.certify(&names).unwrap());
    let pair = write(directory.path(), &old);
    let certificates = Certificates::new();
    let files = CertificateFiles::open(vec![pair.clone()], Arc::clone(&certificates)).unwrap();
    let names = || certificates.find(None).unwrap().names().join(" ");
    files.look();
    assert_eq!(names(), "old.test");
    for half in ["", "-----BEGIN CERT", &new.certificate[..200], &new.certificate] {
        std::fs::write(&pair.certificate, half).unwrap();
        files.look();
        assert_eq!(names(), "old.test", "{half:?}");
    }
    std::fs::remove_file(&pair.key).unwrap();
    files.look();
    assert_eq!(names(), "old.test");
    std::fs::write(&pair.key, &new.key).unwrap();
    files.look();
    assert_eq!(names(), "new.test");
}

#[tokio::test(start_paused = true)]
async fn files_are_looked_at_every_few_seconds() {
    let (authority, directory) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
    let pair = write(directory.path(), &authority.certify(&["old.test"]).unwrap());
    let certificates = Certificates::new();
    let files = Arc::new(CertificateFiles::open(vec![pair], Arc::clone(&certificates)).unwrap());
    let stop = CancellationToken::new();
    let watching = tokio::spawn(files.watch(stop.clone()));
    write(directory.path(), &authority.certify(&["new.test"]).unwrap());
    while certificates.find(None).unwrap().names() != ["new.test"] {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.cancel();
    watching.await.unwrap();
}

#[test]
fn what_is_wrong_with_files_is_said_with_their_names() {
    let (authority, directory) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
    let [one, other] = [["one.test"], ["other.test"]].map(|names| authority.certify(&names).unwrap());
    let pair = write(directory.path(), &one);
    let open = || CertificateFiles::open(vec![pair.clone()], Certificates::new()).unwrap_err().to_string();
    for (certificate, key, expected) in [
        (&*one.certificate, &*other.key, "the private key is not that of the certificate"),
        (&one.certificate, "rubbish", "its private key is not understood"),
        ("rubbish", &one.key, "there is no certificate in it"),
        (&one.key, &one.key, "there is no certificate in it"),
    ] {
        std::fs::write(&pair.certificate, certificate).unwrap();
        std::fs::write(&pair.key, key).unwrap();
        let error = open();
        assert!(
            error.contains(expected) && error.contains("tls.crt") && error.contains("tls.key"),
            "{error}"
        );
    }
    std::fs::remove_file(&pair.key).unwrap();
    assert!(open().contains("tls.key: No such file"), "{}", open());
}

#[test]
fn a_certificate_that_is_not_good_now_is_told_of() {
    let good = read(&Authority::new().unwrap().certify(&["one.test"]).unwrap());
    let valid = good.valid().clone();
    assert_eq!(good.trouble(valid.start), None);
    assert!(good.trouble(valid.end).unwrap().contains("expired at"));
    assert!(good.trouble(valid.start - Duration::from_secs(1)).unwrap().contains("good only from"));
    let nameless = read(&Authority::new().unwrap().certify(&[]).unwrap());
    assert!(nameless.trouble(valid.start).unwrap().contains("for no host"));
}
