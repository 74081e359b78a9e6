//! What is kept from one run to the next: an account and the certificates, for each authority apart.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ferry_store::{Error, Kind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::Pem;
use crate::tries::Tries;

/// A directory that nobody else reads.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    directory: PathBuf,
}

impl Kept {
    /// The part of `directory` that belongs to the authority of that URL.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn open(directory: &Path, authority: &str) -> Result<Self> {
        let directory = directory.join(plain(authority.trim_start_matches("https://")));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|e| Error::io("create", directory.display(), e))?;
        Ok(Self { directory })
    }

    /// The tries to get the certificate of that name that were in vain. What cannot be read is none.
    pub(crate) fn tries(&self, name: &str) -> Option<Tries> {
        let path = self.tries_path(name);
        let read =
            self.read(&path).inspect_err(|error| tracing::warn!(%error, "earlier failures are forgotten"));
        Tries::from_text(std::str::from_utf8(&read.ok().flatten()?).ok()?)
    }

    /// Keeps these tries.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn keep_tries(&self, name: &str, tries: &Tries) -> Result<()> {
        self.write(&self.tries_path(name), tries.to_text().as_bytes())
    }

    /// Forgets the tries to get the certificate of that name.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn forget_tries(&self, name: &str) -> Result<()> {
        remove(&self.tries_path(name))
    }

    /// The account as it was kept.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub(crate) fn account(&self) -> Result<Option<Vec<u8>>> {
        self.read(&self.account_path())
    }

    /// Keeps the account.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn keep_account(&self, account: &[u8]) -> Result<()> {
        self.write(&self.account_path(), account)
    }

    /// Forgets the account, which the authority does not know any more.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn forget_account(&self) -> Result<()> {
        remove(&self.account_path())
    }

    /// The certificate of that name as it was kept.
    ///
    /// # Errors
    /// If it is there and cannot be read or understood.
    pub(crate) fn certificate(&self, name: &str) -> Result<Option<Pem>> {
        let path = self.certificate_path(name);
        let Some(bytes) = self.read(&path)? else { return Ok(None) };
        let bad = |what: &str| Error::new(Kind::Invalid, "read certificate", path.display(), what);
        let text = String::from_utf8(bytes).map_err(|_| bad("it is no text"))?;
        // The key stands before the first certificate.
        let at = text.find(BEGIN).ok_or_else(|| bad("there is no certificate in it"))?;
        let (key, chain) = text.split_at(at);
        Ok(Some(Pem { chain: chain.to_owned(), key: key.to_owned() }))
    }

    /// Keeps a certificate with its key in one file, so that there is never one without the other.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn keep_certificate(&self, name: &str, pem: &Pem) -> Result<()> {
        let both = format!("{}\n{}", pem.key.trim_end(), pem.chain);
        self.write(&self.certificate_path(name), both.as_bytes())
    }

    fn account_path(&self) -> PathBuf {
        self.directory.join("account.json")
    }

    fn certificate_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}.pem", plain(name)))
    }

    /// Where the tries to get the certificate of that name are kept.
    pub(crate) fn tries_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}.tries", plain(name)))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path.display(), e)),
        }
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let temporary = path.with_extension("new");
        let written = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            // What a killed run left may be readable by others.
            let _ = fs::remove_file(&temporary);
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            fs::File::open(&self.directory)?.sync_all()
        };
        written().map_err(|e| Error::io("write", path.display(), e))
    }
}

/// Removes a file, which may be gone.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path.display(), e)),
        _ => Ok(()),
    }
}

/// How a certificate begins in PEM.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The first certificate of a chain.
pub(crate) fn first(chain: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(chain.as_bytes()).next()?.ok()
}

/// A name for a file: whatever has a meaning in paths is replaced.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    let text: String = text.trim_end_matches('/').chars().map(plain).collect();
    text.trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const URL: &str = "https://acme.example.cn:14000/dir/";

    #[test]
    fn what_is_kept_is_found_again_and_read_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::open(directory.path(), URL).unwrap();
        assert!(kept.account().unwrap().is_none() && kept.certificate("*.a.test").unwrap().is_none());
        kept.keep_account(b"{}").unwrap();
        let chain = format!("{BEGIN}\nAA==\n-----END CERTIFICATE-----\n");
        let key = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n".to_owned();
        let pem = Pem { chain, key };
        for _ in 0..2 {
            kept.keep_certificate("*.a.test", &pem).unwrap();
        }
        let own = directory.path().join("acme.example.cn_14000_dir");
        let again = Kept::open(directory.path(), URL).unwrap();
        assert_eq!(again.account().unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(again.certificate("*.a.test").unwrap(), Some(pem));
        for name in ["account.json", "_.a.test.pem"] {
            let mode = fs::metadata(own.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&own).unwrap().count(), 2, "nothing temporary is left");
        again.forget_account().unwrap();
        again.forget_account().unwrap();
        assert!(again.account().unwrap().is_none());
    }

    #[test]
    fn authorities_are_kept_apart_and_names_lead_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let one = Kept::open(directory.path(), "https://../../one/dir").unwrap();
        let other = Kept::open(directory.path(), "https://other/dir").unwrap();
        one.keep_account(b"1").unwrap();
        assert!(other.account().unwrap().is_none());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_broken_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::open(directory.path(), URL).unwrap();
        fs::write(kept.certificate_path("a.test"), "half").unwrap();
        assert_eq!(kept.certificate("a.test").unwrap_err().kind(), Kind::Invalid);
    }
}
