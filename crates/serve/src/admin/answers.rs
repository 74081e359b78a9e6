//! What is told, as JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferry_store::{Error, Kind};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::of_json;
use crate::body::ResponseBody;
use crate::figures::{Figures, Health, StorageFigures, Transfer, UpstreamFigures};
use crate::operations::{CachedImage, WarmState, Warming};

pub(super) fn error(status: StatusCode, why: &str) -> Response<ResponseBody> {
    of_json(status, &json!({"error": why}))
}

/// How an error of a store is told.
pub(super) fn failed(error: &Error) -> (StatusCode, String) {
    let status = match error.kind() {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Denied => StatusCode::CONFLICT,
        Kind::Full => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

fn seconds(time: Duration) -> u64 {
    time.as_secs()
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) fn figures(figures: &Figures) -> Value {
    let Figures { version, uptime, requests, bytes_served, upstreams, transfers, storage } = figures;
    let StorageFigures { bytes, objects, limit, free } = storage;
    json!({
        "version": version, "uptimeSeconds": seconds(*uptime), "requests": requests, "bytesServed": bytes_served,
        "upstreams": upstreams.iter().map(upstream).collect::<Vec<_>>(),
        "flights": flights(transfers),
        "storage": {"bytes": bytes, "objects": objects, "limit": limit, "free": free},
    })
}

pub(super) fn flights(transfers: &[Transfer]) -> Value {
    let flight = |transfer: &Transfer| {
        let Transfer { registry, repository, digest, size, present, readers } = transfer;
        json!({"registry": registry.as_str(), "repository": repository.as_str(), "digest": digest.to_string(),
            "size": size, "present": present, "readers": readers})
    };
    transfers.iter().map(flight).collect()
}

fn upstream(figures: &UpstreamFigures) -> Value {
    let UpstreamFigures { registry, hits, misses, stale, bytes_fetched, health, quota } = figures;
    let (health, failing) = match health {
        Health::Unknown => ("unknown", None),
        Health::Good => ("good", None),
        Health::Failing { since } => ("failing", Some(seconds(*since))),
    };
    let quota = quota.map(|quota| json!({"limit": quota.limit, "remaining": quota.remaining}));
    json!({"registry": registry.as_str(), "hits": hits, "misses": misses, "stale": stale,
        "bytesFetched": bytes_fetched, "health": health, "failingSeconds": failing, "quota": quota})
}

pub(super) fn health(ready: &Result<(), Error>, figures: &Figures) -> Value {
    let why = ready.as_ref().err().map(ToString::to_string);
    let upstreams: Vec<Value> = figures.upstreams.iter().map(upstream).collect();
    json!({"ready": ready.is_ok(), "why": why, "upstreams": upstreams})
}

pub(super) fn warming(warming: &Warming) -> Value {
    let images = warming.images.iter().map(|image| {
        let (state, error) = match &image.state {
            WarmState::Waiting => ("waiting", None),
            WarmState::Running => ("running", None),
            WarmState::Done => ("done", None),
            WarmState::Failed(why) => ("failed", Some(why)),
        };
        json!({"image": image.image.to_string(), "state": state, "bytes": image.bytes, "error": error})
    });
    json!({"id": warming.id, "over": warming.is_over(), "images": images.collect::<Vec<_>>()})
}

pub(super) fn cached(image: &CachedImage) -> Value {
    let CachedImage { registry, repository, tag, digest, bytes, used, confirmed, pinned } = image;
    json!({"registry": registry.as_ref().map(ferry_oci::Registry::as_str), "repository": repository.as_str(),
        "tag": tag.as_ref().map(ferry_oci::Tag::as_str), "digest": digest.to_string(), "bytes": bytes,
        "used": unix(*used), "confirmed": confirmed.map(unix), "pinned": pinned})
}
