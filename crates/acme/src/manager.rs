use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_store::{Error, Kind, Result};
use instant_acme::{Account, CertificateIdentifier};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::account::{Authority, Opener};
use crate::kept::{self, Kept};
use crate::order::{Road, Way};
use crate::tries::Tries;
use crate::{Pem, Site, renewal};

/// It is looked at least so often whether there is something to do, because the clock may be set.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// And no more often than this, because a clock may only tell seconds.
const LEAST: Duration = Duration::from_millis(200);

/// The authority is asked no more often than this when to renew, whatever it says.
const ASK_LEAST: Duration = Duration::from_secs(60 * 60);

/// It is asked again after this time if it does not say when.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 60 * 60);

/// How long one certificate may take, beside the hooks.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What a [`Manager`] looks after.
#[derive(Clone)]
pub struct Options {
    /// Who gives the certificates.
    pub authority: Authority,
    /// How it sees that the hosts are ours.
    pub way: Way,
    /// The hosts of each certificate; the first is its name.
    pub wanted: Vec<Vec<String>>,
    /// The directory where the account and the certificates are kept.
    pub directory: PathBuf,
    /// What time it is.
    pub now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

/// One certificate.
struct Entry {
    names: Vec<String>,
    /// What is in use, if anything is.
    current: Option<Pem>,
    /// When a new one is got.
    due: SystemTime,
    /// When the authority is asked whether that is the right time.
    ask: SystemTime,
    /// The authority has said when, so it wants to know which certificate the next one replaces.
    suggested: bool,
    /// So many tries in a row were in vain.
    failures: u32,
    /// Drawn once, so that certificates do not come all at once; from 0 to 1.
    share: f64,
}

impl Entry {
    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// When there is something to do.
    fn next(&self) -> SystemTime {
        if self.current.is_some() { self.due.min(self.ask) } else { self.due }
    }

    /// How a certificate is called when it is renewed.
    fn der(&self) -> Option<CertificateDer<'static>> {
        self.current.as_ref().and_then(|pem| kept::first(&pem.chain))
    }
}

/// Looks after certificates.
pub struct Manager {
    options: Options,
    site: Arc<dyn Site>,
    kept: Kept,
    opener: Opener,
    /// Opened when it is first needed.
    account: Option<Account>,
    all: Vec<Entry>,
}

impl Manager {
    /// Installs what was kept; a server that listens only afterwards has it from its first connection on.
    ///
    /// # Errors
    /// If the directory cannot be used, or a root is no certificate.
    pub fn open(options: Options, site: Arc<dyn Site>) -> Result<Self> {
        let kept = Kept::open(&options.directory, &options.authority.directory)?;
        let opener = Opener::new(options.authority.clone(), kept.clone())?;
        let mut manager = Self { options, site, kept, opener, account: None, all: Vec::new() };
        manager.load();
        Ok(manager)
    }

    /// Gets what is missing, and renews all in time, until `stop`. What goes wrong with a single certificate is logged, and
    /// tried again after a while.
    pub async fn run(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.work()).await;
    }

    fn now(&self) -> SystemTime {
        (self.options.now)()
    }

    /// Installs what was kept.
    fn load(&mut self) {
        let now = self.now();
        for names in std::mem::take(&mut self.options.wanted) {
            let share = rand::random();
            let mut entry =
                Entry { names, current: None, due: now, ask: now, suggested: false, failures: 0, share };
            let kept = match self.kept.certificate(entry.name()) {
                Ok(Some(pem)) => self.install(&mut entry, pem),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = kept {
                tracing::warn!(%error, "what was kept cannot be used");
            }
            self.recall(&mut entry);
            self.all.push(entry);
        }
    }

    /// Goes on waiting if an earlier process was to wait, and says so where there is no certificate.
    fn recall(&self, entry: &mut Entry) {
        let now = self.now();
        let tries = self.kept.tries(entry.name()).filter(|tries| tries.count(&entry.names, now));
        if let Some(tries) = tries.filter(|_| entry.due <= now) {
            entry.failures = tries.failures;
            entry.due = tries.next;
            // It may say that the time has come, which it has not after a failure.
            entry.ask = entry.ask.max(entry.due);
        }
        if entry.current.is_none() {
            let when = match entry.due.duration_since(now) {
                Ok(wait) if !wait.is_zero() => format!(
                    "it was asked for in vain and is again in {} minutes, or when {} is removed and ferry started again",
                    minutes(wait),
                    self.kept.tries_path(entry.name()).display()
                ),
                _ => "it is asked for now".to_owned(),
            };
            tracing::warn!("there is no certificate for {} yet; {when}", entry.names.join(", "));
        }
    }

    /// Uses a certificate, and decides when it is renewed.
    fn install(&self, entry: &mut Entry, pem: Pem) -> Result<()> {
        let found = self.site.install(entry.name(), &pem)?;
        let whole = entry.names.iter().all(|name| found.names.contains(name));
        // One that was for other hosts serves only until there is a better one.
        entry.due = if whole { renewal::due(&found.valid, entry.share) } else { self.now() };
        entry.current = Some(pem);
        entry.suggested = false;
        Ok(())
    }

    async fn work(&mut self) {
        loop {
            for mut entry in std::mem::take(&mut self.all) {
                self.look_after(&mut entry).await;
                self.all.push(entry);
            }
            let next = self.all.iter().map(Entry::next).min();
            let wait = next.map_or(LOOK, |next| next.duration_since(self.now()).unwrap_or_default());
            tokio::time::sleep(wait.clamp(LEAST, LOOK)).await;
        }
    }

    async fn look_after(&mut self, entry: &mut Entry) {
        let now = self.now();
        if entry.current.is_some() && entry.ask <= now && entry.due > now {
            self.ask(entry).await;
        }
        if entry.due > now {
            return;
        }
        // As if in vain, for whoever is killed while asking.
        self.keep_tries(entry, entry.failures.saturating_add(1), now + renewal::pause(1, None, 0.0));
        let Err(error) = self.renew(entry).await else { return };
        // Opened again, as it may be the reason.
        self.account = None;
        entry.failures = entry.failures.saturating_add(1);
        let asked = match error.kind() {
            Kind::RateLimited { after } => after,
            _ => None,
        };
        let wait = renewal::pause(entry.failures, asked, rand::random());
        entry.due = self.now() + wait;
        entry.ask = entry.ask.max(entry.due);
        self.keep_tries(entry, entry.failures, entry.due);
        let minutes = minutes(wait);
        tracing::warn!("no new certificate for {}: {error}; next try in {minutes} minutes", entry.name());
    }

    /// Keeps what the next process is to know if this one ends.
    fn keep_tries(&self, entry: &Entry, failures: u32, next: SystemTime) {
        let tries = Tries { names: entry.names.clone(), failures, last: self.now(), next };
        if let Err(error) = self.kept.keep_tries(entry.name(), &tries) {
            tracing::warn!(%error, "after a restart it will be asked again at once");
        }
    }

    /// Gets a certificate and uses it.
    async fn renew(&mut self, entry: &mut Entry) -> Result<()> {
        let account = self.account().await?;
        let road = Road { opener: &self.opener, way: &self.options.way, site: &*self.site };
        // Not twice: the authority may refuse the order because of it.
        let before = entry.der().filter(|_| entry.suggested && entry.failures == 0);
        let before = before.as_ref().and_then(|der| CertificateIdentifier::try_from(der).ok());
        let obtained = tokio::time::timeout(LIMIT, road.obtain(&account, &entry.names, before)).await;
        let pem = obtained.map_err(|_| {
            Error::new(Kind::Stalled, "ask", self.opener.name(), format!("it took longer than {LIMIT:?}"))
        })??;
        // A certificate that cannot be kept is still better than none, but a restart must not ask for the next at once.
        let kept = self.kept.keep_certificate(entry.name(), &pem);
        if let Err(error) = kept.and_then(|()| self.kept.forget_tries(entry.name())) {
            tracing::warn!(%error, "the new certificate cannot be kept");
        }
        self.install(entry, pem)?;
        entry.failures = 0;
        // The authority has just given it.
        entry.ask = self.now() + ASK_LEAST;
        tracing::info!(names = entry.names.join(", "), "there is a new certificate");
        Ok(())
    }

    /// Asks the authority when to renew (RFC 9773). Not all can tell.
    async fn ask(&mut self, entry: &mut Entry) {
        match self.suggestion(entry).await {
            Ok((window, again)) => {
                entry.due = renewal::within(&window, entry.share);
                entry.suggested = true;
                entry.ask = self.now() + again.max(ASK_LEAST);
            }
            Err(error) => {
                tracing::debug!(%error, "no time of renewal is suggested");
                entry.ask = self.now() + ASK_AGAIN;
            }
        }
    }

    async fn suggestion(&mut self, entry: &Entry) -> Result<(Range<SystemTime>, Duration)> {
        let account = self.account().await?;
        let unknown = || Error::new(Kind::Invalid, "ask about", entry.name(), "it has no identifier");
        let der = entry.der().ok_or_else(unknown)?;
        let id = CertificateIdentifier::try_from(&der).map_err(|_| unknown())?;
        let (info, again) = account.renewal_info(&id).await.map_err(|e| self.opener.error(e))?;
        let window = info.suggested_window;
        Ok((window.start.into()..window.end.into(), again))
    }

    async fn account(&mut self) -> Result<Account> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let account = self.opener.open().await?;
        self.account = Some(account.clone());
        Ok(account)
    }
}

fn minutes(wait: Duration) -> u64 {
    wait.as_secs().div_ceil(60)
}

#[cfg(test)]
mod tests;
