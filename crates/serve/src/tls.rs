//! TLS on a listener.
//!
//! The certificate is chosen by the name that the client asks for ([`Certificates`]), from a table that can be changed at
//! any time. Clients speak HTTP/1.1 in it; the one exception is a certificate authority that looks for the proof of
//! `tls-alpn-01` (RFC 8737), whose handshake is all that it wants.

mod accept;
mod certificate;
mod certificates;
mod files;

pub use accept::Tls;
pub(crate) use accept::{Met, NotEncrypted};
pub use certificate::Certificate;
pub use certificates::Certificates;
pub use files::{CertificateFiles, Pair};
