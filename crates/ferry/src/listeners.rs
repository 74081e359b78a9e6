//! Where `ferry serve` listens: at sockets that systemd has opened for it, else at the addresses that are configured.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Socket};
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
        let socket = TcpListener::bind(address).await.map_err(|error| cannot_listen(*address, error))?;
        listeners.push(listener(socket, tls.filter(|_| *encrypted)));
    }
    Ok(listeners)
}

/// Why an address cannot be listened on, and what to do about it.
pub(crate) fn cannot_listen(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "is something else using the port?",
        ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; write one of its own, or 0.0.0.0 for all of them"
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 are not for every user; write another one, or let systemd open the socket"
        }
        _ => "write an address of this machine and a free port",
    };
    anyhow::Error::new(error).context(format!("cannot listen on {address}; {remedy}"))
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
pub(crate) fn announce(listeners: &[Listener], storage: &std::path::Path) -> io::Result<()> {
    let mut out = std::io::stdout();
    for listener in listeners {
        let scheme = if listener.is_encrypted() { "https" } else { "http" };
        let address: SocketAddr = listener.address()?;
        let _ = writeln!(out, "ferry: serving {} at {scheme}://{address}", storage.display());
    }
    Ok(())
}

/// Where a person on this machine finds what is served: where HTTPS is spoken by the mirror's `domain`, because certificates
/// are for names; else by an address. `None` if nothing is listened on.
///
/// # Errors
/// If a socket does not tell its address.
pub(crate) fn found_at(listeners: &[Listener], domain: Option<&str>) -> io::Result<Option<(String, String)>> {
    let encrypted = listeners.iter().find(|listener| listener.is_encrypted());
    let Some(listener) = encrypted.or(listeners.first()) else { return Ok(None) };
    let address = reachable(listener.address()?);
    let (scheme, usual) = if listener.is_encrypted() { ("https", 443) } else { ("http", 80) };
    let host = match domain.filter(|_| listener.is_encrypted()) {
        Some(domain) if address.port() == usual => domain.to_owned(),
        Some(domain) => format!("{domain}:{}", address.port()),
        None => address.to_string(),
    };
    Ok(Some((format!("{scheme}://{host}/"), host)))
}

/// All addresses of a machine include its loopback address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
