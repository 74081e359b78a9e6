use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use ferry_store::Result;

/// A certificate with its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The chain, the server's own certificate first.
    pub chain: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// What the authority is to see under a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// `http-01`: under `/.well-known/acme-challenge/TOKEN` (RFC 8555 section 8.3).
    Http {
        /// The host that is asked.
        host: String,
        /// The last part of the path.
        token: String,
        /// The body of the answer.
        answer: String,
    },
    /// `tls-alpn-01`: in a handshake for `acme-tls/1` (RFC 8737).
    Tls {
        /// The host that is asked.
        host: String,
        /// What is shown.
        certificate: Pem,
    },
}

/// What a certificate turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// The hosts that it is for, in lower case.
    pub names: Vec<String>,
    /// When it is good.
    pub valid: Range<SystemTime>,
}

/// The server that the certificates are for.
pub trait Site: Send + Sync {
    /// Shows a proof until it is hidden.
    ///
    /// # Errors
    /// If it cannot be shown.
    fn show(&self, proof: &Proof) -> Result<()>;

    /// Shows it no more.
    fn hide(&self, proof: &Proof);

    /// Uses a certificate from now on, in the place of the one that was installed under this name before.
    ///
    /// # Errors
    /// If it is none, or the key is not its own; the one before stays then.
    fn install(&self, name: &str, certificate: &Pem) -> Result<Validity>;
}
