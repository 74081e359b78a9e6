//! `ferry storage`: looks at the directory of `ferry serve`, and puts it in order.

use std::time::{Duration, Instant};

use ferry_oci::Name;
use ferry_storage::{
    CheckEvent, CheckOptions, Checked, CollectOptions, Collected, Finding, Problem, Statistics, Storage,
};
use ferry_store::Scope;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::Output;
use crate::exit::Exit;
use crate::report::size;
use crate::settings::{Task, Upkeep};

/// How often a long check says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Runs `ferry storage`.
pub(crate) async fn upkeep(settings: Upkeep, stop: CancellationToken) -> anyhow::Result<Exit> {
    let Upkeep { storage, options, output, task } = settings;
    let storage = Storage::open_with(&storage, options).await?;
    let done = match task {
        Task::Check(options) => check(&storage, options, output, &stop).await,
        Task::Collect(options) => collect(&storage, &options, output, &stop).await,
        Task::Count => count(&storage, output).await,
    };
    storage.close().await;
    done
}

async fn check(
    storage: &Storage,
    options: CheckOptions,
    output: Output,
    stop: &CancellationToken,
) -> anyhow::Result<Exit> {
    let mut said = Instant::now();
    let mut findings = Vec::new();
    let mut observe = |event: CheckEvent<'_>| match event {
        CheckEvent::Found(finding) => match output {
            Output::Text => say!("{}", text(finding)),
            Output::Json => findings.push(as_json(finding)),
        },
        CheckEvent::Progress(checked) if said.elapsed() >= HEARTBEAT => {
            said = Instant::now();
            eprintln!("checked {} blobs and manifests, {}", checked.contents, size(checked.bytes));
        }
        CheckEvent::Progress(_) => {}
    };
    let checked = storage.check(options, stop, &mut observe).await?;
    let Checked { contents, bytes, findings: wrong, repaired, orphans, orphan_bytes, stopped, .. } = checked;
    match output {
        Output::Text => {
            say!("{contents} blobs and manifests, {}: {wrong} findings, {repaired} repaired", size(bytes));
            if orphans > 0 {
                say!(
                    "{orphans} files of {} are left over; ferry storage gc removes them",
                    size(orphan_bytes)
                );
            }
        }
        Output::Json => say!(
            "{:#}",
            json!({"contents": contents, "bytes": bytes, "findings": findings, "repaired": repaired,
                "orphans": orphans, "orphanBytes": orphan_bytes, "stopped": stopped})
        ),
    }
    if wrong > repaired && !options.repair {
        eprintln!("hint: --repair takes damaged content out, so that it can be pushed again");
    }
    Ok(match (stopped, wrong > repaired) {
        (true, _) => Exit::Stopped,
        (false, true) => Exit::SomeFailed,
        (false, false) => Exit::Done,
    })
}

fn text(finding: &Finding) -> String {
    match finding {
        Finding::Damaged { digest, problem, repositories, repaired } => {
            let names: Vec<String> = repositories.iter().map(|(scope, name)| place(scope, name)).collect();
            let done = if *repaired { ", taken out" } else { "" };
            format!("damaged     {digest}  {}{done}  in {}", describe(problem), names.join(", "))
        }
        Finding::Incomplete { scope, repository, manifest, missing } => {
            format!("incomplete  {}@{manifest}  lacks {missing}", place(scope, repository))
        }
        Finding::Dangling { scope, repository, tag } => {
            format!("dangling    {}:{tag}  points at no manifest", place(scope, repository))
        }
    }
}

fn describe(problem: &Problem) -> String {
    match problem {
        Problem::Missing => "has no file".to_owned(),
        Problem::Size(bytes) => format!("has {bytes} bytes"),
        Problem::Digest(digest) => format!("holds {digest}"),
        Problem::Unreadable(reason) => format!("cannot be read: {reason}"),
    }
}

fn place(scope: &Scope, name: &Name) -> String {
    match scope {
        Scope::Hosted => name.to_string(),
        Scope::Upstream { host, .. } => format!("{host}/{name}"),
    }
}

fn as_json(finding: &Finding) -> Value {
    match finding {
        Finding::Damaged { digest, problem, repositories, repaired } => {
            let names: Vec<String> = repositories.iter().map(|(scope, name)| place(scope, name)).collect();
            json!({"kind": "damaged", "digest": digest, "problem": describe(problem),
                "repositories": names, "repaired": repaired})
        }
        Finding::Incomplete { scope, repository, manifest, missing } => {
            json!({"kind": "incomplete", "repository": place(scope, repository), "manifest": manifest,
                "missing": missing})
        }
        Finding::Dangling { scope, repository, tag } => {
            json!({"kind": "dangling", "repository": place(scope, repository), "tag": tag.as_str()})
        }
    }
}

async fn collect(
    storage: &Storage,
    options: &CollectOptions,
    output: Output,
    stop: &CancellationToken,
) -> anyhow::Result<Exit> {
    let expired = storage.expire_uploads().await?;
    let Collected { manifests, links, blobs, bytes, orphans, stopped } =
        storage.collect(options, stop).await?;
    match output {
        Output::Text => say!(
            "removed {blobs} files of {} ({orphans} left over); {manifests} untagged manifests, {links} blobs that no \
             manifest names, {} old uploads",
            size(bytes),
            expired.uploads
        ),
        Output::Json => say!(
            "{:#}",
            json!({"manifests": manifests, "links": links, "files": blobs, "bytes": bytes, "orphans": orphans,
                "uploads": expired.uploads, "stopped": stopped})
        ),
    }
    Ok(if stopped { Exit::Stopped } else { Exit::Done })
}

async fn count(storage: &Storage, output: Output) -> anyhow::Result<Exit> {
    let counted = storage.statistics().await?;
    let Statistics { repositories, tags, manifests, links, bytes_linked, .. } = counted;
    let Statistics { blobs, bytes, bytes_unneeded, uploads, upload_bytes, oldest_use, .. } = counted;
    let Statistics { pending, pending_bytes, .. } = counted;
    let oldest = oldest_use.map(|time| humantime::format_rfc3339_seconds(time).to_string());
    match output {
        Output::Text => {
            say!("{repositories} repositories, {tags} tags, {manifests} manifests, {links} blobs in them");
            say!("{blobs} files, {}; without sharing {}", size(bytes), size(bytes_linked));
            say!(
                "{} that nothing needs; {uploads} uploads under way, {}",
                size(bytes_unneeded),
                size(upload_bytes)
            );
            if pending > 0 {
                say!("{pending} files of {} are still to be brought to the bucket", size(pending_bytes));
            }
            if let Some(oldest) = oldest {
                say!("longest unused since {oldest}");
            }
        }
        Output::Json => say!(
            "{:#}",
            json!({"repositories": repositories, "tags": tags, "manifests": manifests, "blobs": links,
                "blobBytes": bytes_linked, "files": blobs, "bytes": bytes, "unneededBytes": bytes_unneeded,
                "uploads": uploads, "uploadBytes": upload_bytes, "pending": pending,
                "pendingBytes": pending_bytes, "oldestUse": oldest})
        ),
    }
    Ok(Exit::Done)
}
