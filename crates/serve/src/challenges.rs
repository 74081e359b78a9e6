//! What certificate authorities are shown as proof that a host is ours (RFC 8555 section 8, RFC 8737).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use ferry_store::{Error, Kind, Result};
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{Response, StatusCode};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::tls::Certificate;

/// Where the proof of `http-01` is looked for (RFC 8555 section 8.3).
const PATH: &str = "/.well-known/acme-challenge/";

/// The protocol in which the proof of `tls-alpn-01` is looked for (RFC 8737 section 6.2).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// The proofs that can be seen now, each only under the host that it is for.
#[derive(Default)]
pub struct Challenges {
    /// By host and token.
    answers: RwLock<HashMap<(String, String), String>>,
    /// By host.
    handshakes: RwLock<HashMap<String, Arc<ServerConfig>>>,
}

impl Challenges {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Answers `http-01`: who asks `host` for `token` gets `answer`, the key authorization.
    pub fn show_answer(&self, host: &str, token: &str, answer: &str) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.insert((host.to_ascii_lowercase(), token.to_owned()), answer.to_owned());
    }

    /// Answers it no more.
    pub fn hide_answer(&self, host: &str, token: &str) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.remove(&(host.to_ascii_lowercase(), token.to_owned()));
    }

    /// Answers `tls-alpn-01`: an authority that asks for `host` is shown this certificate.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn show_certificate(&self, host: &str, certificate: &Certificate) -> Result<()> {
        let failed = |e: rustls::Error| Error::new(Kind::Unavailable, "set up", "TLS", e.to_string());
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Only(Arc::clone(certificate.key()))));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        let mut handshakes = self.handshakes.write().unwrap_or_else(PoisonError::into_inner);
        handshakes.insert(host.to_ascii_lowercase(), Arc::new(config));
        Ok(())
    }

    /// Shows it no more.
    pub fn hide_certificate(&self, host: &str) {
        let mut handshakes = self.handshakes.write().unwrap_or_else(PoisonError::into_inner);
        handshakes.remove(&host.to_ascii_lowercase());
    }

    /// How to shake hands with an authority that asks for a host, in lower case.
    pub(crate) fn handshake(&self, host: &str) -> Option<Arc<ServerConfig>> {
        self.handshakes.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// The answer to a request for a proof; `None` if it is for something else.
    pub(crate) fn answer(&self, parts: &Parts) -> Option<Response<ResponseBody>> {
        let token = parts.uri.path().strip_prefix(PATH)?;
        let asked = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        // The port is that of a proxy before us, or of a test.
        let host = asked.rsplit_once(':').map_or(asked, |(host, _)| host).to_ascii_lowercase();
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        let found = answers.get(&(host, token.to_owned()));
        Some(match found {
            Some(text) => {
                answer(StatusCode::OK, full(text.clone())).with(CONTENT_TYPE, "application/octet-stream")
            }
            None => answer(StatusCode::NOT_FOUND, full("there is no such challenge\n"))
                .with(CONTENT_TYPE, "text/plain"),
        })
    }
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenges")
    }
}

/// One certificate, whatever is asked for.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
