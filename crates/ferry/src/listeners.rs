//! Where `ferry serve` listens: at sockets that systemd has opened for it, else at the addresses that are configured.

use std::io::Write;
use std::net::{SocketAddr, TcpListener as Socket};
use std::sync::Arc;

use anyhow::{Context, bail};
use ferry_serve::{Listener, Tls};
use listenfd::ListenFd;
use tokio::net::TcpListener;

use crate::Environment;
use crate::settings::{Listen, Serve};

/// What a socket is called (`FileDescriptorName=`) that speaks plain HTTP in any case.
const HTTP: &str = "http";

/// And one that speaks HTTPS.
const HTTPS: &str = "https";

/// Opens them all.
///
/// # Errors
/// If an address cannot be listened on, or a socket that was passed is none.
pub(crate) async fn open(
    settings: &Serve,
    tls: Option<&Arc<Tls>>,
    environment: &Environment,
) -> anyhow::Result<Vec<Listener>> {
    let passed = passed(environment)?;
    if !passed.is_empty() {
        return passed.into_iter().map(|(name, socket)| adopt(&name, socket, settings, tls)).collect();
    }
    let mut listeners = Vec::new();
    for Listen { address, encrypted } in &settings.listen {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; is something else using the port?"))?;
        listeners.push(listener(socket, tls.filter(|_| *encrypted)));
    }
    Ok(listeners)
}

fn listener(socket: TcpListener, tls: Option<&Arc<Tls>>) -> Listener {
    match tls {
        Some(tls) => Listener::encrypted(socket, Arc::clone(tls)),
        None => Listener::plain(socket),
    }
}

/// The sockets that systemd has opened for this process, with their names; see `sd_listen_fds(3)`.
fn passed(environment: &Environment) -> anyhow::Result<Vec<(String, Socket)>> {
    if environment.variable("LISTEN_FDS").is_none() {
        return Ok(Vec::new());
    }
    let names = environment.variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..given.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let socket = given.take_tcp_listener(at).with_context(|| format!("socket {name} from systemd"))?;
        sockets.extend(socket.map(|socket| (name, socket)));
    }
    Ok(sockets)
}

/// A socket that was passed. It is as open to others as one that ferry would have opened, so the same rule holds.
fn adopt(name: &str, socket: Socket, settings: &Serve, tls: Option<&Arc<Tls>>) -> anyhow::Result<Listener> {
    let place = format!("socket {name} from systemd");
    let address = socket.local_addr().with_context(|| place.clone())?;
    settings.may_listen(&place, address)?;
    let tls = match (name, tls) {
        (HTTP, _) => None,
        (HTTPS, None) => bail!("{place}: it is to speak HTTPS, but `serve: tls:` is not configured"),
        (_, tls) => tls,
    };
    socket.set_nonblocking(true).with_context(|| place.clone())?;
    Ok(listener(TcpListener::from_std(socket).with_context(|| place)?, tls))
}

/// The port where HTTPS is spoken; that of HTTPS itself if none is.
pub(crate) fn encrypted_port(listeners: &[Listener]) -> u16 {
    let encrypted = listeners.iter().find(|listener| listener.is_encrypted());
    encrypted.and_then(|listener| listener.address().ok()).map_or(443, |address| address.port())
}

/// Whoever started us may be waiting for these lines to know the port.
pub(crate) fn announce(listeners: &[Listener], storage: &std::path::Path) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for listener in listeners {
        let scheme = if listener.is_encrypted() { "https" } else { "http" };
        let address: SocketAddr = listener.address()?;
        let _ = writeln!(out, "ferry: serving {} at {scheme}://{address}", storage.display());
    }
    Ok(())
}
