//! Tells systemd how the server is: `sd_notify(3)`, `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Environment;

/// Whoever started this wants to know how it is, if anybody does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notify {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Notify {
    pub(crate) fn new(environment: &Environment) -> Self {
        let path = environment.variable("NOTIFY_SOCKET");
        let address = path.and_then(|path| {
            // A name that is in no directory begins with a zero byte, which is written as @.
            match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name).ok(),
                None => SocketAddr::from_pathname(path).ok(),
            }
        });
        let ours = |pid: String| pid == std::process::id().to_string();
        let watched = environment.variable("WATCHDOG_PID").is_none_or(ours);
        let every = environment.variable("WATCHDOG_USEC").and_then(|text| text.parse().ok());
        let watchdog = every.filter(|_| watched).map(Duration::from_micros);
        Self { address, watchdog }
    }

    /// It answers.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\n");
    }

    /// It reads its configuration; [`Notify::ready`] follows.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000));
    }

    /// It ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    /// Says that it is alive, twice as often as is demanded. Returns at once if nobody does.
    pub(crate) async fn keep_alive(self) {
        let Some(every) = self.watchdog.filter(|every| !every.is_zero()) else { return };
        loop {
            self.tell("WATCHDOG=1\n");
            tokio::time::sleep(every / 2).await;
        }
    }

    fn tell(&self, state: &str) {
        let Some(address) = &self.address else { return };
        let told = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(state.as_bytes(), address)
        });
        if let Err(error) = told {
            tracing::warn!(%error, "NOTIFY_SOCKET cannot be told how the server is");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_supervisor_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let pid = std::process::id().to_string();
        let notify = Notify::new(&environment(&[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "1000000"),
            ("WATCHDOG_PID", &pid),
        ]));
        notify.ready();
        assert_eq!(received(&socket), "READY=1\n");
        notify.reloading();
        assert!(received(&socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notify.stopping();
        assert_eq!(received(&socket), "STOPPING=1\n");
        let alive = tokio::spawn(notify.keep_alive());
        let told = tokio::task::spawn_blocking(move || received(&socket)).await.unwrap();
        assert_eq!(told, "WATCHDOG=1\n");
        alive.abort();
    }

    #[tokio::test]
    async fn nobody_is_told_who_did_not_ask() {
        let notify = Notify::new(&environment(&[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]));
        notify.ready();
        notify.keep_alive().await;
    }
}
