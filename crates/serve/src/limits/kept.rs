use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Limiter;

/// How often what was counted is written down; so much a kill can make us forget.
const EVERY: Duration = Duration::from_secs(60);

/// The file in which daily quotas outlive the process.
pub struct QuotaFile {
    limiter: Arc<Limiter>,
    path: PathBuf,
}

impl QuotaFile {
    /// Goes on from what the file says of today. A file that cannot be read is reported, and written anew.
    pub async fn open(limiter: Arc<Limiter>, path: PathBuf) -> Self {
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => {
                if let Err(error) = limiter.restore(&text) {
                    tracing::warn!(path = %path.display(), %error, "daily quotas begin anew: the file is damaged");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "daily quotas begin anew"),
        }
        Self { limiter, path }
    }

    /// Writes down every minute what has changed, and a last time when `stop` is cancelled. That is to be after the last
    /// answer.
    pub async fn keep(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            self.write().await;
        }
        self.write().await;
    }

    async fn write(&self) {
        let Some(text) = self.limiter.to_write() else { return };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || replace(&path, &text)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            tracing::warn!(path = %self.path.display(), %error, "cannot write down what counts for daily quotas");
        }
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)
}
