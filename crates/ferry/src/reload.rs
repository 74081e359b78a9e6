//! Reading the configuration again while the server runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ferry_serve::{Front, Live};
use ferry_store::{Error, Kind};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::Environment;
use crate::access_log::AccessLog;
use crate::cli::ServeArguments;
use crate::config::{Loaded, Registries};
use crate::front::Lasting;
use crate::notify::Notify;
use crate::operations::Reload;
use crate::remote;
use crate::settings::{AccessLogAt, Serve};

/// What was typed, and where the rest is written.
pub(crate) struct Written {
    pub(crate) typed: ServeArguments,
    pub(crate) config: Option<PathBuf>,
    pub(crate) environment: Environment,
}

impl Written {
    /// Reads and checks everything, and opens nothing.
    fn read(&self) -> anyhow::Result<(Serve, Registries)> {
        let loaded = Loaded::find(self.config.as_deref(), &self.environment)?;
        let registries = Registries::new(&loaded, &self.environment)?;
        remote::check(&registries, &self.environment)?;
        Ok((Serve::new(self.typed.clone(), &loaded, &self.environment)?, registries))
    }
}

/// What tells a server to read its configuration again.
pub(crate) struct Told {
    /// SIGHUP, which would end the process if nobody waited for it.
    hangups: Signal,
    asked: mpsc::Receiver<Reload>,
}

impl Told {
    /// From now on SIGHUP is waited for.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn new(asked: mpsc::Receiver<Reload>) -> std::io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, asked })
    }
}

/// A server that runs, and how it was told to.
pub(crate) struct Running {
    pub(crate) written: Written,
    /// What needs a restart, as it was at the start.
    pub(crate) settings: Serve,
    /// Where clients come in until it ends, whatever is configured meanwhile.
    pub(crate) listening: Vec<SocketAddr>,
    pub(crate) lasting: Arc<Lasting>,
    pub(crate) front: Live<Front>,
    pub(crate) notify: Notify,
}

/// The access log as it is to be from now on: the one that is there, if it is the same.
pub(crate) fn access_log(
    at: Option<&AccessLogAt>,
    before: Option<Arc<AccessLog>>,
) -> anyhow::Result<Option<Arc<AccessLog>>> {
    match (at, before) {
        (Some(at), Some(before)) if before.at() == at => Ok(Some(before)),
        (Some(at), _) => Ok(Some(Arc::new(AccessLog::open(at.clone())?))),
        (None, _) => Ok(None),
    }
}

/// Checks that the settings are good for where clients come in already.
fn fit(settings: &Serve, listening: &[SocketAddr]) -> anyhow::Result<()> {
    listening.iter().try_for_each(|address| settings.may_listen("this process listens on", *address))
}

impl Running {
    /// Reads the configuration again whenever it is told to.
    pub(crate) async fn reload_when_told(self, mut told: Told) {
        loop {
            let answer = tokio::select! {
                _ = told.hangups.recv() => None,
                answer = told.asked.recv() => match answer {
                    Some(answer) => Some(answer),
                    None => return,
                },
            };
            let reloaded = self.reload().await;
            if let Some(answer) = answer {
                // Whoever asked may be gone.
                let _ = answer
                    .send(reloaded.map_err(|why| Error::new(Kind::Invalid, "reload", "configuration", why)));
            }
        }
    }

    /// What needs a restart; otherwise what is wrong, which is said as well.
    async fn reload(&self) -> Result<Vec<String>, String> {
        self.notify.reloading();
        if let Some(log) = self.lasting.operated.log() {
            log.reopen();
        }
        let reloaded = self.apply().await.map_err(|error| format!("{error:#}"));
        match &reloaded {
            Ok(restart) if restart.is_empty() => note!("ferry: the configuration was read again"),
            Ok(restart) => {
                note!(
                    "ferry: the configuration was read again; these need a restart: {}",
                    restart.join(", ")
                );
            }
            Err(why) => note!("ferry: the configuration is wrong, and all stays as it was: {why}"),
        }
        self.notify.ready();
        reloaded
    }

    /// Everything is opened before anything is exchanged. What is configured has to be good for where clients come in now, which
    /// need not be what the configuration says by now, nor what it ever said.
    async fn apply(&self) -> anyhow::Result<Vec<String>> {
        let (settings, registries) = self.written.read()?;
        fit(&settings, &self.listening)?;
        let reached = (registries, self.written.environment.clone());
        let operated = &self.lasting.operated;
        let log = access_log(settings.operation.access_log.as_ref(), operated.log())?;
        self.lasting.change(&self.front, &settings, reached).await?;
        let before = operated.set_log(log);
        // Waits for what is still to be written to a log that is no more.
        tokio::task::spawn_blocking(move || drop(before));
        Ok(self.restart(&settings))
    }

    /// The fields that have changed and only count after a restart.
    fn restart(&self, new: &Serve) -> Vec<String> {
        let old = &self.settings;
        let of = |settings: &Serve| format!("{:?}", settings.options);
        let (was, is) = (&old.operation, &new.operation);
        let changed = [
            ("storage", old.storage != new.storage),
            ("listen", old.listen != new.listen),
            ("tls", old.tls != new.tls),
            ("limits: connections", old.limits.server_differs(&new.limits)),
            ("limits and ages of the storage", of(old) != of(new) || old.upkeep_every != new.upkeep_every),
            ("admin", was.admin != is.admin),
            ("stop", (was.delay, was.grace) != (is.delay, is.grace)),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reach_already_is_not_opened_by_a_reload() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        let [near, far]: [SocketAddr; 2] = ["127.0.0.1:5000", "192.0.2.1:5000"].map(|at| at.parse().unwrap());
        let fits = |serve: &str, listening: &[SocketAddr]| {
            std::fs::write(&path, format!("serve: {{storage: s, {serve}}}\n")).unwrap();
            let environment = Environment::default();
            let loaded = Loaded::find(Some(&path), &environment).unwrap();
            let typed = ServeArguments {
                storage: None,
                listen: None,
                open: false,
                mirror: false,
                untagged_older_than: None,
                size_limit: None,
                evict_pushed: false,
            };
            let settings = Serve::new(typed, &loaded, &environment).unwrap();
            fit(&settings, listening).map_err(|e| e.to_string())
        };
        // Access was there when it began to listen, and is taken away together with the address.
        let refused = fits("listen: '127.0.0.1:5000'", &[near, far]).unwrap_err();
        assert!(refused.contains("192.0.2.1:5000: others could reach this address"), "{refused}");
        assert!(fits("mirror: {}", &[far]).unwrap_err().contains("fetch images through the mirror"));
        for (serve, at) in [("access: {}", far), ("open: true", far), ("mirror: {}", near)] {
            assert_eq!(fits(serve, &[at]), Ok(()), "{serve}");
        }
    }
}
