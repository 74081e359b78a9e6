use std::io::Write;
use std::sync::Arc;

use ferry_serve::{Front, Limits, RegistryService};
use ferry_storage::Storage;
use tokio_util::sync::CancellationToken;

use crate::Environment;
use crate::config::Registries;
use crate::exit::Exit;
use crate::https::Https;
use crate::listeners;
use crate::mirror;
use crate::settings::{Mirror, Serve};

/// Runs `ferry serve` until it is stopped.
pub(crate) async fn serve(
    mut settings: Serve,
    registries: Registries,
    environment: Environment,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let storage = Storage::open_with(&settings.storage, settings.options.clone()).await?;
    let mut service = RegistryService::new(Arc::clone(&storage) as _);
    let mut upstreams = None;
    if let Some(mirror) = &settings.mirror {
        warn(mirror, &registries, settings.open);
        let stores = mirror::Stores::open(mirror, &storage, registries, environment.clone()).await?;
        service = service.mirroring(stores.front(mirror.addressing.clone())?);
        upstreams = Some(stores);
    }
    let https = settings.https.take().map(|https| Https::open(https, &settings.storage)).transpose()?;
    let listeners = listeners::open(&settings, https.as_ref().map(|https| &https.tls), &environment).await?;
    listeners::announce(&listeners, &settings.storage)?;
    announce(settings.mirror.as_ref());
    let mut front = Front::new(service);
    if let Some(https) = &https {
        front = https.before(front, listeners::encrypted_port(&listeners));
    }
    let certificates = https.map(|https| https.look_after(&stop));
    let upkeep = {
        let (storage, stop) = (Arc::clone(&storage), stop.clone());
        tokio::spawn(async move { storage.upkeep(stop, settings.upkeep_every).await })
    };
    ferry_serve::serve_all(listeners, front, Limits::default(), stop).await;
    if let Some(certificates) = certificates {
        certificates.join_all().await;
    }
    if let Some(upstreams) = upstreams {
        upstreams.stop().await;
    }
    // It has been stopped as well, and ends after the piece under way.
    let _ = upkeep.await;
    Ok(Exit::Done)
}

/// What is mirrored, after the lines that tell where.
fn announce(mirror: Option<&Mirror>) {
    let mut out = std::io::stdout();
    if let Some(mirror) = mirror {
        let _ = writeln!(out, "ferry: mirroring {}", mirror.names());
    }
    let _ = out.flush();
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
