//! What is shown of a mirror, from what its parts count.

use std::sync::Arc;
use std::time::Instant;

use ferry_oci::Registry;
use ferry_serve::{FigureSource, Figures, Health, Transfer, UpstreamFigures};
use ferry_transfer::{FlightFigures, PullThrough};

/// The figures of these upstreams from now on.
pub(crate) fn source(through: Vec<(Registry, Arc<PullThrough>)>) -> FigureSource {
    let started = Instant::now();
    Arc::new(move || {
        let mut figures = Figures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: started.elapsed(),
            ..Figures::default()
        };
        for (registry, store) in &through {
            let of = store.figures();
            figures.transfers.extend(of.flights.into_iter().map(|flight| transfer(registry, flight)));
            figures.upstreams.push(UpstreamFigures {
                registry: registry.clone(),
                hits: of.hits,
                misses: of.misses,
                stale: of.stale,
                bytes_fetched: of.bytes_fetched,
                health: Health::Unknown,
                quota: None,
            });
        }
        figures
    })
}

fn transfer(registry: &Registry, flight: FlightFigures) -> Transfer {
    let FlightFigures { repository, digest, size, present, readers } = flight;
    Transfer { registry: registry.clone(), repository, digest, size, present, readers }
}
