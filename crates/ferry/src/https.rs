//! HTTPS, put together: certificates from files and from an authority, and who sees to them.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ferry_acme::{Manager, Options, Pem, Proof, Site, Validity};
use ferry_serve::{Certificate, CertificateFiles, Certificates, Challenges, Front, Redirect, Tls};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::settings;

/// Where an authority's certificates are, below the storage.
const ACME: &str = "acme";

/// The certificates of a server, and what looks after them.
pub(crate) struct Https {
    pub(crate) tls: Arc<Tls>,
    challenges: Arc<Challenges>,
    files: Arc<CertificateFiles>,
    acme: Option<Manager>,
    redirect: bool,
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
        Ok(Self { tls, challenges, files, acme: acme.transpose()?, redirect: settings.redirect })
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
        self.certificates.set(&format!("acme {name}"), certificate);
        Ok(validity)
    }
}

fn read(host: &str, pem: &Pem) -> ferry_store::Result<Certificate> {
    Certificate::from_pem(host, pem.chain.as_bytes(), pem.key.as_bytes())
}
