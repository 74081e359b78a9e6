use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use ferry_oci::Registry;
use ferry_serve::{Access, Keys, RegistryService};
use ferry_storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Environment;
use crate::config::Registries;
use crate::exit::Exit;
use crate::limits::Limiting;
use crate::mirror;
use crate::settings::{Mirror, Serve};

/// Runs `ferry serve` until it is stopped.
pub(crate) async fn serve(
    settings: Serve,
    registries: Registries,
    environment: Environment,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let storage = Storage::open_with(&settings.storage, settings.options.clone()).await?;
    let mut service = RegistryService::new(Arc::clone(&storage) as _);
    let mut upstreams = None;
    if let Some(mirror) = &settings.mirror {
        warn(mirror, &registries, &settings);
        let stores = mirror::Stores::open(mirror, &storage, registries, environment).await?;
        service = service.mirroring(stores.front(mirror)?);
        upstreams = Some(stores);
    }
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!("cannot listen on {}; is something else using the port?", settings.listen)
    })?;
    announce(&listener, &settings.storage, settings.mirror.as_ref())?;
    let upkeep = {
        let (storage, stop) = (Arc::clone(&storage), stop.clone());
        tokio::spawn(async move { storage.upkeep(stop, settings.upkeep_every).await })
    };
    let limiting = Limiting::start(settings.limits.clients, &settings.storage).await;
    let mut front = limiting.front(service);
    if let Some(access) = &settings.access {
        let keys = Keys::new(access.keys(&settings.storage), Arc::new(SystemTime::now));
        front = front.guarded(Arc::new(Access::new(access.policy.clone(), keys)));
    }
    let figures = upstreams.as_ref().map(mirror::Stores::figures);
    if let Some(page) = settings.page.of(settings.mirror.as_ref(), figures) {
        front = front.showing(page, &stop);
    }
    ferry_serve::serve(listener, front, settings.limits.server, stop).await;
    limiting.stop().await;
    if let Some(upstreams) = upstreams {
        upstreams.stop().await;
    }
    // It has been stopped as well, and ends after the piece under way.
    let _ = upkeep.await;
    Ok(Exit::Done)
}

/// Whoever started us may be waiting for these lines to know the port.
fn announce(listener: &TcpListener, storage: &Path, mirror: Option<&Mirror>) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    let _ = writeln!(out, "ferry: serving {} at http://{address}", storage.display());
    if let Some(mirror) = mirror {
        let _ = writeln!(out, "ferry: mirroring {}", mirror.names());
    }
    let _ = out.flush();
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
    let others = settings.open || !settings.listen.ip().is_loopback();
    if others && !with_accounts.is_empty() {
        note!(
            "warning: everybody who reaches this mirror can pull what the configured accounts can at {}; \
             keep others out with rules (serve: access) or a firewall, or remove the accounts",
            with_accounts.join(", ")
        );
    }
}
