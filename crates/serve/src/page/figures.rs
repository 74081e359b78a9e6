//! What is shown of how a mirror does.

use ferry_policy::clients::Language;
use serde_json::{Value, json};

use super::history::{History, Interval};
use super::numbers::{bytes, count, percent, rate, share, time};
use super::plot;
use super::words::{self, Word};
use crate::figures::{Figures, Health, StorageFigures, Transfer, UpstreamFigures};

/// So many transfers are shown.
const MOST_TRANSFERS: usize = 12;

/// The values of the template.
pub(super) fn context(figures: &Figures, history: &History, language: Language) -> Value {
    let sum = |count: fn(&UpstreamFigures) -> u64| figures.upstreams.iter().map(count).sum::<u64>();
    let (hits, misses) = (sum(|one| one.hits), sum(|one| one.misses));
    let intervals = history.intervals();
    let shown = figures.transfers.iter().take(MOST_TRANSFERS);
    // Those that were used come first, and among them those that were used most.
    let mut upstreams: Vec<&UpstreamFigures> = figures.upstreams.iter().collect();
    upstreams.sort_by_key(|one| std::cmp::Reverse(one.hits + one.misses));
    json!({
        "t": words::all(language),
        "ratio": percent(hits, hits + misses),
        "hits": count(hits),
        "asked": count(hits + misses),
        "served": bytes(figures.bytes_served),
        "requests": count(figures.requests),
        "fetched": bytes(sum(|one| one.bytes_fetched)),
        "stale": count(sum(|one| one.stale)),
        "storage": storage(&figures.storage),
        "uptime": time(figures.uptime, language),
        "bytes_plot": bytes_plot(&intervals, language),
        "hits_plot": hits_plot(&intervals, language),
        "transfers": shown.map(transfer).collect::<Vec<_>>(),
        "more": figures.transfers.len().saturating_sub(MOST_TRANSFERS),
        "upstreams": upstreams.into_iter().map(|one| upstream(one, language)).collect::<Vec<_>>(),
    })
}

fn storage(storage: &StorageFigures) -> Value {
    json!({
        "bytes": bytes(storage.bytes),
        "objects": count(storage.objects),
        "limit": storage.limit.map(bytes),
        "percent": storage.limit.map(|limit| share(storage.bytes, limit)),
        "free": storage.free.map(bytes),
    })
}

/// Of a transfer only what says nothing of who pulls what.
fn transfer(transfer: &Transfer) -> Value {
    json!({
        "registry": transfer.registry.as_str(),
        "size": transfer.size.map_or("–".to_owned(), bytes),
        "percent": transfer.size.map(|size| share(transfer.present, size)),
        "readers": transfer.readers,
    })
}

fn upstream(upstream: &UpstreamFigures, language: Language) -> Value {
    let (class, state) = match upstream.health {
        Health::Unknown => ("unknown", words::one(Word::StateUnknown, language).to_owned()),
        Health::Good => ("good", words::one(Word::StateGood, language).to_owned()),
        Health::Failing { since } => {
            let failing = words::one(Word::StateFailing, language);
            ("failing", format!("{failing} {}", time(since, language)))
        }
    };
    let quota = upstream.quota.map(|quota| format!("{} / {}", count(quota.remaining), count(quota.limit)));
    json!({
        "registry": upstream.registry.as_str(),
        "class": class,
        "state": state,
        "ratio": percent(upstream.hits, upstream.hits + upstream.misses),
        "fetched": bytes(upstream.bytes_fetched),
        "quota": quota.unwrap_or_else(|| "–".to_owned()),
    })
}

fn bytes_plot(intervals: &[Interval], language: Language) -> Value {
    let served: Vec<Option<f64>> = intervals.iter().map(|one| Some(one.served)).collect();
    let fetched: Vec<Option<f64>> = intervals.iter().map(|one| Some(one.fetched)).collect();
    let top = plot::top(served.iter().chain(&fetched).filter_map(|one| *one));
    let line = |word, class, values: &[Option<f64>]| {
        let now = values.last().copied().flatten().unwrap_or_default();
        json!({
            "name": words::one(word, language), "class": class, "now": rate(now),
            "path": plot::line(values, top), "area": plot::area(values, top),
        })
    };
    let lines = [line(Word::ToClients, "first", &served), line(Word::FromUpstreams, "second", &fetched)];
    drawing(words::one(Word::Bytes, language), rate(top), &lines, !intervals.is_empty())
}

fn hits_plot(intervals: &[Interval], language: Language) -> Value {
    let values: Vec<Option<f64>> = intervals.iter().map(|one| one.ratio).collect();
    let now = values.iter().rev().find_map(|value| *value);
    let now = now.map_or("–".to_owned(), |now| format!("{} %", (now * 100.0) as u64));
    let line = json!({
        "name": words::one(Word::FromCache, language), "class": "first", "now": now, "path": plot::line(&values, 1.0),
    });
    drawing(words::one(Word::HitRatio, language), "100 %".to_owned(), &[line], !intervals.is_empty())
}

fn drawing(title: &str, top: String, lines: &[Value], enough: bool) -> Value {
    let said = |line: &Value| {
        format!("{} {}", line["name"].as_str().unwrap_or_default(), line["now"].as_str().unwrap_or_default())
    };
    let said = lines.iter().map(said).collect::<Vec<_>>().join(", ");
    json!({
        "title": title, "top": top, "lines": lines, "enough": enough, "said": format!("{title}: {said}"),
        "width": plot::WIDTH, "height": plot::HEIGHT,
    })
}
