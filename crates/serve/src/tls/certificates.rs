use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;

/// The certificates of a server, each under a key of its own by which it can be replaced while clients come.
///
/// A client gets the first that names the host that it asks for, else the first with a wildcard for it, else the first of
/// all, whose name at least tells people what is wrong. As long as there is none, handshakes end with an alert.
#[derive(Debug, Default)]
pub struct Certificates {
    table: RwLock<Vec<(String, Certificate)>>,
}

impl Certificates {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a certificate, or puts it in the place of the one of this key.
    pub fn set(&self, key: &str, certificate: Certificate) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        match table.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = certificate,
            None => table.push((key.to_owned(), certificate)),
        }
    }

    /// Removes the certificate of this key, if there is one.
    pub fn remove(&self, key: &str) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| other != key);
    }

    /// All of them with their keys.
    pub fn all(&self) -> Vec<(String, Certificate)> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one for a client that asks for `host`, or for none.
    pub fn find(&self, host: Option<&str>) -> Option<Certificate> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let host = host.map(str::to_ascii_lowercase).unwrap_or_default();
        let exact = table.iter().find(|(_, certificate)| certificate.is_for(&host));
        let wildcard = || table.iter().find(|(_, certificate)| certificate.covers(&host));
        exact.or_else(wildcard).or(table.first()).map(|(_, certificate)| certificate.clone())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.find(hello.server_name());
        if found.is_none() {
            tracing::debug!(host = ?hello.server_name(), "there is no certificate yet");
        }
        found.map(|certificate| Arc::clone(certificate.key()))
    }
}
