use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ferry_store::Result;
use tokio_util::sync::CancellationToken;

use super::{Certificate, Certificates};

/// How often the files are read again. Reading them is cheaper than every way to be told, and works on every file system.
const EVERY: Duration = Duration::from_secs(5);

/// A certificate and its key in files, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Pair {
    fn name(&self) -> String {
        self.certificate.display().to_string()
    }

    /// What is in the files, as far as they can be read.
    fn content(&self) -> Content {
        [&self.certificate, &self.key].map(|path| std::fs::read(path).ok())
    }
}

/// The bytes of the two files.
type Content = [Option<Vec<u8>>; 2];

/// Certificates in files that are watched: whoever renews them has to tell nobody.
#[derive(Debug)]
pub struct CertificateFiles {
    pairs: Vec<Pair>,
    /// What was last seen of each, good or not, so that it is judged once.
    seen: Mutex<Vec<Content>>,
    certificates: Arc<Certificates>,
}

impl CertificateFiles {
    /// Reads all pairs into `certificates`.
    ///
    /// # Errors
    /// As [`Certificate::read`], for the first that is wrong.
    pub fn open(pairs: Vec<Pair>, certificates: Arc<Certificates>) -> Result<Self> {
        let mut seen = Vec::new();
        for pair in &pairs {
            // Before the certificate is read, so that a change in between is seen later.
            seen.push(pair.content());
            let certificate = Certificate::read(&pair.certificate, &pair.key)?;
            warn(&pair.name(), &certificate);
            certificates.set(&pair.name(), certificate);
        }
        Ok(Self { pairs, seen: Mutex::new(seen), certificates })
    }

    /// Looks for changes now. A pair that is broken, or half written, changes nothing.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (pair, seen) in self.pairs.iter().zip(seen.iter_mut()) {
            let content = pair.content();
            if content == *seen {
                continue;
            }
            *seen = content;
            match Certificate::read(&pair.certificate, &pair.key) {
                Ok(certificate) => {
                    tracing::info!(file = pair.name(), "there is a new certificate");
                    warn(&pair.name(), &certificate);
                    self.certificates.set(&pair.name(), certificate);
                }
                Err(error) => {
                    tracing::warn!(%error, "the new certificate cannot be used; the one before stays");
                }
            }
        }
    }

    /// Looks for changes every few seconds until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let files = Arc::clone(&self);
            // It reads files, which may be on a network.
            let _ = tokio::task::spawn_blocking(move || files.look()).await;
        }
    }
}

fn warn(file: &str, certificate: &Certificate) {
    if let Some(trouble) = certificate.trouble(SystemTime::now()) {
        tracing::warn!("{file}: {trouble}");
    }
}
