use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use ferry_serve::{Admin, Limits, Live, Observed, Observer, Operations};
use ferry_storage::Storage;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Loaded, Registries};
use crate::exit::Exit;
use crate::mirror;
use crate::notify::Notify;
use crate::operations::{Kept, Operated};
use crate::reload::{Running, Told, Written, access_log, build};
use crate::settings::{AdminAt, Mirror, Serve};

/// Runs `ferry serve` until it is stopped.
pub(crate) async fn serve(
    written: Written,
    (loaded, registries): (&Loaded, Registries),
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let settings = Serve::new(written.typed.clone(), loaded, &written.environment)?;
    let notify = Notify::new(&written.environment);
    let log = access_log(settings.operation.access_log.as_ref(), None)?;
    let storage = Storage::open_with(&settings.storage, settings.options.clone()).await?;
    if let Some(mirror) = &settings.mirror {
        warn(mirror, &registries, settings.open);
    }
    let (reload, asked) = mpsc::channel(1);
    let told = Told::new(asked)?;
    let (directory, size_limit) = (settings.storage.clone(), settings.options.size_limit);
    let kept = Kept { storage: Arc::clone(&storage), directory, size_limit };
    let operated = Arc::new(Operated::new(kept, reload, stop.clone()));
    operated.set_log(log);
    let reached = (registries, written.environment.clone());
    let (stores, front) = build(settings.mirror.as_ref(), &storage, &operated, reached).await?;
    operated.set_stores(stores);
    let listener = bind(settings.listen).await?;
    let closed = CancellationToken::new();
    let admin = admin(settings.operation.admin.as_ref(), &operated, &closed).await?;
    announce(&listener, &settings, admin.as_ref().map(|(address, _)| *address))?;
    let upkeep = {
        let (storage, stop, every) = (Arc::clone(&storage), stop.clone(), settings.upkeep_every);
        tokio::spawn(async move { storage.upkeep(stop, every).await })
    };
    let front = Live::new(front);
    let running = Running { written, settings, storage, operated: Arc::clone(&operated), front, notify };
    run(running, (listener, told), stop).await;
    if let Some(stores) = operated.stores() {
        stores.stop().await;
    }
    closed.cancel();
    if let Some((_, admin)) = admin {
        let _ = admin.await;
    }
    // It has been stopped as well, and ends after the piece under way.
    let _ = upkeep.await;
    // What is still to be written of the access log is waited for.
    let log = operated.set_log(None);
    let _ = tokio::task::spawn_blocking(move || drop(log)).await;
    Ok(Exit::Done)
}

/// Answers until it is stopped, and lets requests under way end.
async fn run(running: Running, (listener, told): (TcpListener, Told), stop: CancellationToken) {
    let (operation, operated) = (&running.settings.operation, &running.operated);
    let (delay, grace) = (operation.delay, operation.grace);
    let limits = Limits { open: operated.connections.clone(), grace, ..Limits::default() };
    let observer = Arc::clone(operated) as Arc<dyn Observer>;
    let observed = Observed::new(running.front.clone(), observer, operated.running.clone());
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
    tokio::join!(ended, ferry_serve::serve(listener, observed, limits, closing.clone()));
    reloading.abort();
    watched.abort();
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(listen).await;
    bound.with_context(|| format!("cannot listen on {listen}; is something else using the port?"))
}

/// The admin API, until it is `closed`: to the very end, so that it can be seen how the server ends.
async fn admin(
    at: Option<&AdminAt>,
    operated: &Arc<Operated>,
    closed: &CancellationToken,
) -> anyhow::Result<Option<(SocketAddr, tokio::task::JoinHandle<()>)>> {
    let Some(at) = at else { return Ok(None) };
    let listener = bind(at.listen).await.context("serve: admin")?;
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

/// Whoever started us may be waiting for these lines to know the port.
fn announce(listener: &TcpListener, settings: &Serve, admin: Option<SocketAddr>) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    let _ = writeln!(out, "ferry: serving {} at http://{address}", settings.storage.display());
    if let Some(mirror) = &settings.mirror {
        let _ = writeln!(out, "ferry: mirroring {}", mirror.names());
    }
    if let Some(admin) = admin {
        let _ = writeln!(out, "ferry: the admin API is at http://{admin}");
    }
    let _ = out.flush();
    Ok(())
}

fn warn(mirror: &Mirror, registries: &Registries, open: bool) {
    let with_accounts = mirror::with_accounts(mirror, registries);
    if open && !with_accounts.is_empty() {
        note!(
            "warning: everybody who reaches this mirror can pull what the configured accounts can at {}; \
             keep others out with a firewall, or remove the accounts",
            with_accounts.join(", ")
        );
    }
}
