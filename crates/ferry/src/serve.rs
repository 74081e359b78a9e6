use std::io::Write;

use anyhow::Context;
use ferry_serve::{Limits, RegistryService};
use ferry_storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::settings::Serve;

/// Runs `ferry serve` until it is stopped.
pub(crate) async fn serve(settings: Serve, stop: CancellationToken) -> anyhow::Result<Exit> {
    let storage = Storage::open(&settings.storage).await?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!("cannot listen on {}; is something else using the port?", settings.listen)
    })?;
    let address = listener.local_addr()?;
    // Whoever started us may be waiting for this line to know the port.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "ferry: serving {} at http://{address}", settings.storage.display());
    let _ = out.flush();
    ferry_serve::serve(listener, RegistryService::new(storage), Limits::default(), stop).await;
    Ok(Exit::Done)
}
