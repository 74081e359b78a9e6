//! A certificate for servers, and clients that trust it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use ferry_testkit::authority::Authority;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// A certificate with its key in files, and who trusts it.
pub struct Tls {
    pub files: (PathBuf, PathBuf),
    pub client: Arc<ClientConfig>,
    _directory: TempDir,
}

impl Tls {
    pub fn new() -> Result<Self> {
        let authority = Authority::new()?;
        let certified = authority.certify(&["localhost"])?;
        let directory = tempfile::tempdir()?;
        let files = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
        std::fs::write(&files.0, certified.certificate)?;
        std::fs::write(&files.1, certified.key)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes())?)?;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { files, client: Arc::new(client), _directory: directory })
    }
}
