use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_store::{Error, Kind, Result};
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a failed operation was doing.
const OPERATION: &str = "read certificate";

/// A certificate with those above it and its private key, ready to be shown to clients.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    valid: Range<SystemTime>,
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its key, both in PEM; `place` names them in errors.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if something is missing or not understood, or if the key is that of another certificate.
    pub fn from_pem(place: &str, chain: &[u8], key: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::new(Kind::Invalid, OPERATION, place, what);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| bad(format!("it is no certificate in PEM form: {e}")))?;
        let Some(first) = chain.first() else {
            return Err(bad("there is no certificate in it; one in PEM form is needed".to_owned()));
        };
        let (names, valid) = contents(first).map_err(bad)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            bad("its private key is not understood; one in PEM form, without a password, is needed"
                .to_owned())
        })?;
        let key = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|e| bad(format!("its private key is of no kind that is known: {e}")))?;
        let key = CertifiedKey::new(chain, key);
        // What the check does not understand may be right, as the certificates of RFC 8737 are.
        if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = key.keys_match() {
            return Err(bad("the private key is not that of the certificate".to_owned()));
        }
        Ok(Self { key: Arc::new(key), names, valid })
    }

    /// Reads a chain and a key from files.
    ///
    /// # Errors
    /// As [`Certificate::from_pem`], and if a file cannot be read.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let read = |path: &Path| std::fs::read(path).map_err(|e| Error::io(OPERATION, path.display(), e));
        let place = format!("{} with the key {}", certificate.display(), key.display());
        Self::from_pem(&place, &read(certificate)?, &read(key)?)
    }

    /// The hosts and addresses that it is for, in lower case; a wildcard as it is written: `*.cr.example.cn`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// From when and until when it is good.
    pub fn valid(&self) -> &Range<SystemTime> {
        &self.valid
    }

    /// What clients will not like about it at `now`, in words for people.
    pub fn trouble(&self, now: SystemTime) -> Option<String> {
        let at = humantime::format_rfc3339_seconds;
        if now >= self.valid.end {
            Some(format!("the certificate expired at {}", at(self.valid.end)))
        } else if now < self.valid.start {
            Some(format!("the certificate is good only from {} on", at(self.valid.start)))
        } else if self.names.is_empty() {
            Some(
                "the certificate is for no host; clients look for one among its alternative names".to_owned(),
            )
        } else {
            None
        }
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Whether it is for that very host, which is in lower case.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        self.names.iter().any(|name| name == host)
    }

    /// Whether a wildcard in it stands for the host (RFC 9525 section 6.3): for one label, the first.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| name.strip_prefix("*.").is_some_and(|rest| Some(rest) == parent))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).field("valid", &self.valid).finish()
    }
}

/// The names that a certificate is for, and when.
fn contents(der: &CertificateDer<'_>) -> std::result::Result<(Vec<String>, Range<SystemTime>), String> {
    let bad = |e: &dyn fmt::Display| format!("it is no certificate: {e}");
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(&e))?;
    let names = certificate.subject_alternative_name().map_err(|e| bad(&e))?;
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(text).collect();
    let validity = certificate.validity();
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    Ok((names, at(validity.not_before.timestamp())..at(validity.not_after.timestamp())))
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let sixteen = || <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
            four.or_else(|_| sixteen()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
