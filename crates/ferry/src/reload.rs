//! Reading the configuration again while the server runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use ferry_serve::{Front, Live};
use ferry_store::{Error, Kind};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::Environment;
use crate::access_log::AccessLog;
use crate::cli::ServeArguments;
use crate::config::{Loaded, Registries};
use crate::front::Lasting;
use crate::notify::Notify;
use crate::operations::Order;
use crate::remote;
use crate::settings::{AccessLogAt, Serve};

/// What was typed, and where the rest is written.
pub(crate) struct Written {
    pub(crate) typed: ServeArguments,
    pub(crate) config: Option<PathBuf>,
    pub(crate) environment: Environment,
}

impl Written {
    fn read(&self) -> anyhow::Result<Loaded> {
        Loaded::find(self.config.as_deref(), &self.environment)
    }

    /// Checks everything, and opens nothing.
    fn check(&self, loaded: &Loaded) -> anyhow::Result<(Serve, Registries)> {
        let registries = Registries::new(loaded, &self.environment)?;
        remote::check(&registries, &self.environment)?;
        Ok((Serve::new(self.typed.clone(), loaded, &self.environment)?, registries))
    }
}

/// What tells a server to read its configuration again.
pub(crate) struct Told {
    /// SIGHUP, which would end the process if nobody waited for it.
    hangups: Signal,
    orders: mpsc::Receiver<Order>,
}

impl Told {
    /// From now on SIGHUP is waited for.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn new(orders: mpsc::Receiver<Order>) -> std::io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, orders })
    }
}

/// A server that runs, and how it was told to.
pub(crate) struct Running {
    pub(crate) written: Written,
    /// What needs a restart, as it was at the start.
    pub(crate) settings: Serve,
    /// What it goes by now.
    pub(crate) loaded: Loaded,
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
    /// Reads the configuration again whenever it is told to, and does what else is ordered.
    pub(crate) async fn reload_when_told(mut self, mut told: Told) {
        loop {
            let order = tokio::select! {
                _ = told.hangups.recv() => {
                    // What is wrong has been said.
                    let _ = self.reload().await;
                    continue;
                }
                order = told.orders.recv() => order,
            };
            let wrong = |why| Error::new(Kind::Invalid, "reload", "configuration", why);
            // Whoever asked may be gone.
            match order {
                Some(Order::Reload(answer)) => drop(answer.send(self.reload().await.map_err(wrong))),
                Some(Order::Access(sent, answer)) => drop(answer.send(self.access(sent).await)),
                None => return,
            }
        }
    }

    /// What counts of access, after it was replaced if something was sent.
    async fn access(&mut self, sent: Option<String>) -> Result<Value, Error> {
        const OPERATION: &str = "change access";
        let error = |kind, why| Error::new(kind, OPERATION, "serve: access", why);
        if self.loaded.access().is_none() {
            let why = "this server has none; write serve: access: into its configuration and reload it";
            return Err(error(Kind::Denied, why.to_owned()));
        }
        if let Some(text) = sent {
            let replaced = self.replace_access(&text).await;
            replaced.map_err(|why| error(Kind::Invalid, format!("all stays as it was: {why:#}")))?;
            note!("ferry: access was replaced; it counts until the configuration is read again");
        }
        serde_json::to_value(self.loaded.access()).map_err(|e| error(Kind::Invalid, e.to_string()))
    }

    async fn replace_access(&mut self, text: &str) -> anyhow::Result<()> {
        let loaded = self.loaded.with_access(text)?;
        let keys = |loaded: &Loaded| loaded.access().and_then(|access| access.keys.clone());
        if keys(&loaded) != keys(&self.loaded) {
            bail!("keys: others can only be configured, and count after a restart");
        }
        let (settings, registries) = self.written.check(&loaded)?;
        self.go_by(loaded, &settings, registries).await
    }

    /// What needs a restart; otherwise what is wrong, which is said as well.
    async fn reload(&mut self) -> Result<Vec<String>, String> {
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

    async fn apply(&mut self) -> anyhow::Result<Vec<String>> {
        let loaded = self.written.read()?;
        let (settings, registries) = self.written.check(&loaded)?;
        let operated = Arc::clone(&self.lasting.operated);
        let log = access_log(settings.operation.access_log.as_ref(), operated.log())?;
        self.go_by(loaded, &settings, registries).await?;
        let before = operated.set_log(log);
        // Waits for what is still to be written to a log that is no more.
        tokio::task::spawn_blocking(move || drop(before));
        Ok(self.restart(&settings))
    }

    /// Everything is opened before anything is exchanged. What is configured has to be good for where clients come in now,
    /// which need not be what the configuration says by now, nor what it ever said.
    async fn go_by(
        &mut self,
        loaded: Loaded,
        settings: &Serve,
        registries: Registries,
    ) -> anyhow::Result<()> {
        fit(settings, &self.listening)?;
        let reached = (registries, self.written.environment.clone());
        self.lasting.change(&self.front, settings, reached).await?;
        self.loaded = loaded;
        Ok(())
    }

    /// The fields that have changed and only count after a restart.
    fn restart(&self, new: &Serve) -> Vec<String> {
        let old = &self.settings;
        let of = |settings: &Serve| format!("{:?}", settings.options);
        let (was, is) = (&old.operation, &new.operation);
        let keys = |settings: &Serve| settings.access.as_ref().map(|access| access.keys(&settings.storage));
        let other_keys = keys(old).zip(keys(new)).is_some_and(|(was, is)| was != is);
        let changed = [
            ("access: keys", other_keys),
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
            let settings = Serve::new(ServeArguments::typed(&[]), &loaded, &environment).unwrap();
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
