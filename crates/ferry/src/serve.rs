use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ferry_serve::{Front, Limits, RegistryService};
use ferry_storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Environment;
use crate::config::Registries;
use crate::exit::Exit;
use crate::mirror;
use crate::settings::{Mirror, Serve};

/// Runs `ferry serve` until it is stopped.
pub(crate) async fn serve(
    settings: Serve,
    registries: Registries,
    environment: Environment,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let storage = Storage::open_with(&settings.storage, settings.options).await?;
    // Clients can follow links.
    let shown = storage.with_links();
    let mut service = RegistryService::new(Arc::clone(&shown) as _);
    let mut upstreams = None;
    if let Some(mirror) = &settings.mirror {
        warn(mirror, &registries, settings.open);
        let stores = mirror::Stores::open(mirror, &shown, registries, environment).await?;
        service = service.mirroring(stores.front(mirror.addressing.clone())?);
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
    ferry_serve::serve(listener, Front::new(service), Limits::default(), stop).await;
    if let Some(upstreams) = upstreams {
        upstreams.stop().await;
    }
    // It has been stopped as well, and ends after the piece under way.
    let _ = upkeep.await;
    storage.close().await;
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
