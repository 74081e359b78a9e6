use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use ferry_serve::{Limits, RegistryService};
use ferry_storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::settings::Serve;

/// Runs `ferry serve` until it is stopped.
pub(crate) async fn serve(settings: Serve, stop: CancellationToken) -> anyhow::Result<Exit> {
    let storage = Storage::open_with(&settings.storage, settings.options).await?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!("cannot listen on {}; is something else using the port?", settings.listen)
    })?;
    let address = listener.local_addr()?;
    // Whoever started us may be waiting for this line to know the port.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "ferry: serving {} at http://{address}", settings.storage.display());
    let _ = out.flush();
    let upkeep = {
        let (storage, stop) = (Arc::clone(&storage), stop.clone());
        tokio::spawn(async move { storage.upkeep(stop, settings.upkeep_every).await })
    };
    ferry_serve::serve(listener, RegistryService::new(storage), Limits::default(), stop).await;
    // It has been stopped as well, and ends after the piece under way.
    let _ = upkeep.await;
    Ok(Exit::Done)
}
