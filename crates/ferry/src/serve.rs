use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use ferry_oci::Registry;
use ferry_serve::{Admin, Limits, Listener, Observed, Observer, Operations};
use ferry_storage::Storage;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Loaded, Registries};
use crate::exit::Exit;
use crate::front::Lasting;
use crate::https::Https;
use crate::listeners;
use crate::mirror;
use crate::notify::Notify;
use crate::operations::{Kept, Operated};
use crate::reload::{Running, Told, Written, access_log};
use crate::remote;
use crate::settings::{AdminAt, Mirror, Serve};
#[cfg(feature = "otel")]
use crate::traces::Traced;

/// Runs `ferry serve` until it is stopped.
pub(crate) async fn serve(
    written: Written,
    (loaded, registries): (&Loaded, Registries),
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let mut settings = Serve::new(written.typed.clone(), loaded, &written.environment)?;
    let notify = Notify::new(&written.environment);
    let log = access_log(settings.operation.access_log.as_ref(), None)?;
    let storage = Storage::open_with(&settings.storage, settings.options.clone()).await?;
    if let Some(mirror) = &settings.mirror {
        // A secret that is missing is told now rather than at the first pull.
        remote::check(&registries, &written.environment).with_context(|| loaded.name())?;
        warn(mirror, &registries, &settings);
    }
    let https = settings.https.take().map(|https| Https::open(https, &settings.storage)).transpose()?;
    let tls = https.as_ref().map(|https| &https.tls);
    let listeners = listeners::open(&settings, tls, &written.environment).await?;
    let before = https.as_ref().map(|https| https.before(listeners::encrypted_port(&listeners)));
    let (orders, ordered) = mpsc::channel(1);
    let told = Told::new(ordered)?;
    let (directory, size_limit) = (settings.storage.clone(), settings.options.size_limit);
    let ends = https.as_ref().map(|https| Arc::clone(&https.ends));
    let kept = Kept { storage: Arc::clone(&storage), directory: directory.clone(), size_limit, ends };
    let operated = Arc::new(Operated::new(kept, orders, stop.clone()));
    operated.set_log(log);
    let reached = (registries, written.environment.clone());
    let lasting = Lasting::new((Arc::clone(&storage), directory), Arc::clone(&operated), before);
    let front = lasting.begin(&settings, reached).await?;
    let closed = CancellationToken::new();
    let admin = admin(settings.operation.admin.as_ref(), &operated, &closed).await?;
    announce(&settings, &listeners, admin.as_ref().map(|(address, _)| *address))?;
    let upkeep = {
        let (storage, stop, every) = (Arc::clone(&storage), stop.clone(), settings.upkeep_every);
        tokio::spawn(async move { storage.upkeep(stop, every).await })
    };
    let certificates = https.map(|https| https.look_after(&stop));
    let lasting = Arc::new(lasting);
    let listening = listeners.iter().map(Listener::address).collect::<Result<_, _>>()?;
    let (loaded, lasting_too) = (loaded.clone(), Arc::clone(&lasting));
    let running = Running { written, settings, loaded, listening, lasting: lasting_too, front, notify };
    run(running, (listeners, told), stop).await;
    if let Some(certificates) = certificates {
        certificates.join_all().await;
    }
    lasting.end().await;
    if let Some(stores) = operated.stores() {
        stores.stop().await;
    }
    closed.cancel();
    if let Some((_, admin)) = admin {
        let _ = admin.await;
    }
    // It has been stopped as well, and ends after the piece under way.
    let _ = upkeep.await;
    storage.close().await;
    // What is still to be written of the access log is waited for.
    let log = operated.set_log(None);
    let _ = tokio::task::spawn_blocking(move || drop(log)).await;
    Ok(Exit::Done)
}

/// Answers until it is stopped, and lets requests under way end.
async fn run(running: Running, (listeners, told): (Vec<Listener>, Told), stop: CancellationToken) {
    let (operation, operated) = (&running.settings.operation, &running.lasting.operated);
    let (delay, grace) = (operation.delay, operation.grace);
    let limits = running.settings.limits.server.clone();
    let limits = Limits { open: operated.connections.clone(), grace, ..limits };
    let observer = Arc::clone(operated) as Arc<dyn Observer>;
    let observed = Observed::new(running.front.clone(), observer, operated.running.clone());
    #[cfg(feature = "otel")]
    let observed = Traced(observed);
    let notify = running.notify.clone();
    let watched = tokio::spawn(notify.clone().keep_alive());
    let reloading = tokio::spawn(running.reload_when_told(told));
    notify.ready();
    let closing = CancellationToken::new();
    let ended = async {
        stop.cancelled().await;
        notify.stopping();
        // Meanwhile it says that it is not ready, so that whoever chooses among servers chooses another.
        tokio::time::sleep(delay).await;
        closing.cancel();
    };
    tokio::join!(ended, ferry_serve::serve_all(listeners, observed, limits, closing.clone()));
    reloading.abort();
    watched.abort();
}

/// The admin API, until it is `closed`: to the very end, so that it can be seen how the server ends.
async fn admin(
    at: Option<&AdminAt>,
    operated: &Arc<Operated>,
    closed: &CancellationToken,
) -> anyhow::Result<Option<(SocketAddr, JoinHandle<()>)>> {
    let Some(at) = at else { return Ok(None) };
    let listener = TcpListener::bind(at.listen).await;
    let failed = |error| listeners::cannot_listen(at.listen, error).context("serve: admin");
    let listener = listener.map_err(failed)?;
    let address = listener.local_addr()?;
    let operations = Arc::clone(operated) as Arc<dyn Operations>;
    let admin = Admin::new(operations, at.token.expose(), at.open_metrics);
    let limits = Limits { connections: ADMIN_CONNECTIONS, grace: ADMIN_GRACE, ..Limits::default() };
    let serving = ferry_serve::serve(listener, admin, limits, closed.clone());
    Ok(Some((address, tokio::spawn(serving))))
}

/// Connections to the admin API at once.
const ADMIN_CONNECTIONS: usize = 64;

/// How long requests to it may still run when all else has ended.
const ADMIN_GRACE: std::time::Duration = std::time::Duration::from_secs(1);

/// Whoever started us may be waiting for these lines, as for those of [`listeners::announce`].
fn announce(settings: &Serve, listeners: &[Listener], admin: Option<SocketAddr>) -> std::io::Result<()> {
    listeners::announce(listeners, &settings.storage)?;
    let mut out = std::io::stdout();
    if let Some(mirror) = &settings.mirror {
        let _ = writeln!(out, "ferry: mirroring {}", mirror.names());
    }
    if let Some(admin) = admin {
        let _ = writeln!(out, "ferry: the admin API is at http://{admin}");
    }
    hint(settings, listeners)?;
    let _ = out.flush();
    Ok(())
}

/// What a person does next, after the lines that programs wait for.
fn hint(settings: &Serve, listeners: &[Listener]) -> std::io::Result<()> {
    let Some(mirror) = &settings.mirror else { return Ok(()) };
    let domain = mirror.addressing.front().domain.as_ref().map(ToString::to_string);
    let Some((url, host)) = listeners::found_at(listeners, domain.as_deref())? else { return Ok(()) };
    let mut out = std::io::stdout();
    if settings.page.enabled {
        let _ = writeln!(out, "ferry: how to use it is told at {url}");
    }
    if let Some(upstream) = mirror.addressing.upstreams().iter().next() {
        let example = match mirror.addressing.upstreams().iter().any(|one| one.registry.is_docker_hub()) {
            true => "docker.io/library/busybox:latest".to_owned(),
            false => format!("{}/REPOSITORY:TAG", upstream.prefix()),
        };
        let _ = writeln!(out, "ferry: for example: docker pull {host}/{example}");
    }
    Ok(())
}

/// Accounts of the mirror serve whoever may use it.
fn warn(mirror: &Mirror, registries: &Registries, settings: &Serve) {
    let readable = |upstream: &&Registry| match &settings.access {
        Some(access) => access.lets_strangers_read(upstream),
        None => settings.open,
    };
    let with_accounts = mirror::with_accounts(mirror, registries).into_iter().filter(readable);
    let with_accounts: Vec<&str> = with_accounts.map(Registry::as_str).collect();
    let others = settings.open || settings.listen.iter().any(|listen| !listen.address.ip().is_loopback());
    if others && !with_accounts.is_empty() {
        note!(
            "warning: everybody who reaches this mirror can pull what the configured accounts can at {}; \
             keep others out with rules (serve: access) or a firewall, or remove the accounts",
            with_accounts.join(", ")
        );
    }
}
