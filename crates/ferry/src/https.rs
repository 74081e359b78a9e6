//! HTTPS, put together: certificates from files and from an authority, and who sees to them.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ferry_acme::{Manager, Options, Pem, Proof, Site, Validity};
use ferry_serve::{Certificate, CertificateFiles, Certificates, Challenges, Front, Redirect, Tls};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::settings;

/// Where an authority's certificates are, below the storage.
const ACME: &str = "acme";

/// What ACME certificates are called among the others, before their name.
const BY_ACME: &str = "acme ";

/// Until when the certificates of a server are good.
pub(crate) struct Ends {
    certificates: Arc<Certificates>,
    /// What there should be from an authority.
    wanted: Vec<String>,
}

impl Ends {
    /// For each certificate, by its file or else by its first host, the seconds from 1970 until it ends; 0 if it is still to come
    /// from the authority.
    pub(crate) fn all(&self) -> Vec<(String, u64)> {
        let all = self.certificates.all().into_iter();
        let seconds = |end: SystemTime| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut ends: Vec<_> =
            all.map(|(key, certificate)| (key, seconds(certificate.valid().end))).collect();
        let missing = self.wanted.iter().map(|name| by_acme(name));
        let missing: Vec<_> = missing.filter(|key| !ends.iter().any(|(other, _)| other == key)).collect();
        ends.extend(missing.into_iter().map(|key| (key, 0)));
        let plain = |key: String| key.strip_prefix(BY_ACME).map(str::to_owned).unwrap_or(key);
        ends.into_iter().map(|(key, end)| (plain(key), end)).collect()
    }
}

fn by_acme(name: &str) -> String {
    format!("{BY_ACME}{name}")
}

/// The certificates of a server, and what looks after them.
pub(crate) struct Https {
    pub(crate) tls: Arc<Tls>,
    challenges: Arc<Challenges>,
    files: Arc<CertificateFiles>,
    acme: Option<Manager>,
    redirect: bool,
    pub(crate) ends: Arc<Ends>,
}

impl Https {
    /// Reads the certificates that are in files, and those that an authority gave before, which `storage` keeps.
    ///
    /// # Errors
    /// If a file has changed since it was checked, and for the worse, or if nothing can be kept.
    pub(crate) fn open(settings: settings::Https, storage: &Path) -> ferry_store::Result<Self> {
        let (certificates, challenges) = (Certificates::new(), Challenges::new());
        let tls = Arc::new(Tls::new(Arc::clone(&certificates), Arc::clone(&challenges))?);
        let files = Arc::new(CertificateFiles::open(settings.pairs, Arc::clone(&certificates))?);
        let wanted = settings.acme.iter().flat_map(|acme| &acme.wanted).filter_map(|names| names.first());
        let ends = Ends { certificates: Arc::clone(&certificates), wanted: wanted.cloned().collect() };
        let own = Own { certificates, challenges: Arc::clone(&challenges) };
        let acme = settings.acme.map(|acme| {
            let options = Options {
                authority: acme.authority,
                way: acme.way,
                wanted: acme.wanted,
                directory: storage.join(ACME),
                now: Arc::new(SystemTime::now),
            };
            Manager::open(options, Arc::new(own))
        });
        let (acme, ends) = (acme.transpose()?, Arc::new(ends));
        Ok(Self { tls, challenges, files, acme, redirect: settings.redirect, ends })
    }

    /// What has to be answered before anything else; `port` is where HTTPS is spoken.
    pub(crate) fn before(&self, port: u16) -> Before {
        let redirect = self.redirect.then_some(Redirect { port });
        Before { challenges: Arc::clone(&self.challenges), redirect }
    }

    /// Sees to the certificates until `stop`. The server has to listen by then, for authorities will come.
    pub(crate) fn look_after(self, stop: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.files.watch(stop.clone()));
        if let Some(acme) = self.acme {
            tasks.spawn(acme.run(stop.clone()));
        }
        tasks
    }
}

/// What has to be answered before anything else.
pub(crate) struct Before {
    challenges: Arc<Challenges>,
    redirect: Option<Redirect>,
}

impl Before {
    /// Has it answered before `front`.
    pub(crate) fn put(&self, front: Front) -> Front {
        let front = front.proving(Arc::clone(&self.challenges));
        match self.redirect {
            Some(redirect) => front.redirecting(redirect),
            None => front,
        }
    }
}

/// Our own server, as an authority's client sees it.
struct Own {
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
}

impl Site for Own {
    fn show(&self, proof: &Proof) -> ferry_store::Result<()> {
        match proof {
            Proof::Http { host, token, answer } => {
                self.challenges.show_answer(host, token, answer);
                Ok(())
            }
            Proof::Tls { host, certificate } => {
                self.challenges.show_certificate(host, &read(host, certificate)?)
            }
        }
    }

    fn hide(&self, proof: &Proof) {
        match proof {
            Proof::Http { host, token, .. } => self.challenges.hide_answer(host, token),
            Proof::Tls { host, .. } => self.challenges.hide_certificate(host),
        }
    }

    fn install(&self, name: &str, certificate: &Pem) -> ferry_store::Result<Validity> {
        let certificate = read(name, certificate)?;
        let validity = Validity { names: certificate.names().to_vec(), valid: certificate.valid().clone() };
        self.certificates.set(&by_acme(name), certificate);
        Ok(validity)
    }
}

fn read(host: &str, pem: &Pem) -> ferry_store::Result<Certificate> {
    Certificate::from_pem(host, pem.chain.as_bytes(), pem.key.as_bytes())
}

#[cfg(test)]
mod tests {
    use ferry_testkit::authority::Authority;

    use super::*;

    #[test]
    fn every_certificate_has_an_end() {
        let certified = Authority::new().unwrap().certify(&["a.test"]).unwrap();
        let certificate =
            Certificate::from_pem("a", certified.certificate.as_bytes(), certified.key.as_bytes()).unwrap();
        let end = certificate.valid().end.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let certificates = Certificates::new();
        for key in ["/etc/tls.crt", &by_acme("a.test")] {
            certificates.set(key, certificate.clone());
        }
        let wanted = ["a.test", "*.b.test"].map(str::to_owned).to_vec();
        let expected = [("/etc/tls.crt", end), ("a.test", end), ("*.b.test", 0)];
        assert_eq!(Ends { certificates, wanted }.all(), expected.map(|(name, end)| (name.to_owned(), end)));
    }
}
