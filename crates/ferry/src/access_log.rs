//! The access log: a line for each request that was answered. Written by a thread of its own, so that no request waits for a disk.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use ferry_oci::Registry;
use ferry_serve::{CacheState, Record};
use serde_json::json;

use crate::config::LogFormat;
use crate::say;
use crate::settings::AccessLogAt;

/// Lines that may wait to be written; more are dropped, and it is said how many.
const WAITING: usize = 16 * 1024;

/// A log that is written to.
pub(crate) struct AccessLog {
    at: AccessLogAt,
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

enum Line {
    Record(Box<Record>),
    Reopen,
    End,
}

impl AccessLog {
    /// Opens the log.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn open(at: AccessLogAt) -> anyhow::Result<Self> {
        let sink = Sink::open(at.file.as_deref())?;
        let (lines, waiting) = sync_channel(WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let writer = Writer { at: at.clone(), sink, waiting, dropped: Arc::clone(&dropped), failing: false };
        let writer = std::thread::Builder::new().name("access log".to_owned()).spawn(|| writer.run())?;
        Ok(Self { at, lines, dropped, writer: Mutex::new(Some(writer)) })
    }

    /// What it was opened as.
    pub(crate) fn at(&self) -> &AccessLogAt {
        &self.at
    }

    /// Has a line written. It does not wait: what the disk is too slow for is dropped.
    pub(crate) fn write(&self, record: Record) {
        if self.lines.try_send(Line::Record(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew, which may have been moved away.
    pub(crate) fn reopen(&self) {
        // An error means that the writer has ended, which it says itself.
        let _ = self.lines.send(Line::Reopen);
    }
}

impl Drop for AccessLog {
    /// Waits for what was to be written.
    fn drop(&mut self) {
        let _ = self.lines.send(Line::End);
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

enum Sink {
    File(BufWriter<File>),
    Errors,
}

impl Sink {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Errors) };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("serve: access_log: cannot open {}", path.display()))?;
        Ok(Self::File(BufWriter::new(file)))
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::Errors => say::Errors.write_all(line.as_bytes()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Errors => Ok(()),
        }
    }
}

/// What runs in the thread.
struct Writer {
    at: AccessLogAt,
    sink: Sink,
    waiting: Receiver<Line>,
    dropped: Arc<AtomicU64>,
    /// It could not be written, which has been said.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            // What was written is flushed as soon as nothing more waits.
            let next = match self.waiting.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.flush();
                    self.waiting.recv().ok()
                }
                next => next.ok(),
            };
            match next {
                Some(Line::Record(record)) => self.write(&line(&record, self.at.format)),
                Some(Line::Reopen) => self.reopen(),
                Some(Line::End) | None => break,
            }
        }
        self.flush();
        self.count_lost();
    }

    fn write(&mut self, line: &str) {
        if let Err(error) = self.sink.write(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.failed(&error);
        }
        if !self.failing {
            self.count_lost();
        }
    }

    fn flush(&mut self) {
        match self.sink.flush() {
            Ok(()) => {
                self.failing = false;
                self.count_lost();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Says so once, and not for every request: a full disk may well be the one that holds what is said, too.
    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }

    fn count_lost(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "lines of the access log are lost");
        }
    }

    fn reopen(&mut self) {
        self.flush();
        let path: Option<PathBuf> = self.at.file.clone();
        match Sink::open(path.as_deref()) {
            Ok(sink) => self.sink = sink,
            Err(error) => tracing::warn!("{error:#}; the old file is written to"),
        }
    }
}

/// A record as a line.
fn line(record: &Record, format: LogFormat) -> String {
    match format {
        LogFormat::Json => format!("{}\n", as_json(record)),
        LogFormat::Text => as_text(record),
    }
}

fn time(record: &Record) -> String {
    humantime::format_rfc3339_millis(record.began).to_string()
}

fn as_json(record: &Record) -> serde_json::Value {
    let served = record.served.as_ref();
    json!({
        "time": time(record),
        "address": record.caller.address.to_string(),
        "user": record.caller.user.as_deref(),
        "method": record.method.as_str(),
        "path": record.path,
        "status": record.status.as_u16(),
        "bytes": record.bytes,
        "whole": record.whole,
        "waitedMs": millis(record.waited),
        "tookMs": millis(record.took),
        "upstream": served.and_then(|served| served.upstream.as_ref()).map(Registry::as_str),
        "repository": served.map(|served| served.repository.as_str()),
        "reference": served.and_then(|served| served.reference.as_ref()).map(ToString::to_string),
        "cache": record.cache.map(CacheState::as_str),
        "agent": record.agent.as_deref().map(printable),
    })
}

/// Milliseconds, to the tenth.
fn millis(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Words with a blank between; what a client sent is quoted.
fn as_text(record: &Record) -> String {
    let served = record.served.as_ref();
    let upstream = served.and_then(|served| served.upstream.as_ref()).map_or("-", Registry::as_str);
    let repository = served.map_or("-", |served| served.repository.as_str());
    let reference = served.and_then(|served| served.reference.as_ref()).map(ToString::to_string);
    let user = record.caller.user.as_deref().map(quoted);
    let mut line = format!(
        "{} {} {} {} {} {} {} ",
        time(record),
        record.caller.address,
        user.as_deref().unwrap_or("-"),
        record.method,
        quoted(&record.path),
        record.status.as_u16(),
        record.bytes,
    );
    let cut = if record.whole { "whole" } else { "cut" };
    let cache = record.cache.map_or("-", CacheState::as_str);
    let agent = record.agent.as_deref().map_or_else(|| "-".to_owned(), quoted);
    let reference = reference.as_deref().unwrap_or("-");
    // Writing to a string cannot fail.
    let _ =
        writeln!(line, "{cut} {}ms {upstream} {repository} {reference} {cache} {agent}", millis(record.took));
    line
}

/// In quotes, without anything that could end the line or the quotes, or move a terminal's cursor.
fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// Without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, UNIX_EPOCH};

    use ferry_serve::{Caller, Served};
    use serde_json::Value;

    use super::*;

    fn record() -> Record {
        let served = Served {
            upstream: Some("quay.io".parse().unwrap()),
            repository: "a/b".parse().unwrap(),
            reference: Some("v1".parse().unwrap()),
            action: ferry_policy::access::Action::Pull,
            blob: false,
            privileged: false,
        };
        Record {
            began: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            caller: Caller {
                address: IpAddr::from([10, 0, 0, 1]),
                secure: false,
                user: Some("a \"b\"".into()),
            },
            method: "GET".parse().unwrap(),
            path: "/v2/quay.io/a/b/manifests/v1".to_owned(),
            status: "200".parse().unwrap(),
            waited: Duration::from_micros(1250),
            took: Duration::from_millis(7),
            bytes: 512,
            whole: true,
            served: Some(served),
            cache: Some(CacheState::Hit),
            agent: Some("docker\u{1b}[2J\n\"x\"".to_owned()),
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_clients_call_themselves() {
        let text = line(&record(), LogFormat::Text);
        assert_eq!(
            text,
            "2023-11-14T22:13:20.123Z 10.0.0.1 \"a \\\"b\\\"\" GET \"/v2/quay.io/a/b/manifests/v1\" 200 512 whole 7ms \
             quay.io a/b v1 hit \"docker\u{fffd}[2J\u{fffd}\\\"x\\\"\"\n"
        );
        let json = line(&record(), LogFormat::Json);
        assert_eq!(json.lines().count(), 1);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["cache"].as_str(), json["waitedMs"].as_f64()), (Some("hit"), Some(1.3)));
        let nothing = Record { served: None, cache: None, agent: None, whole: false, ..record() };
        assert!(line(&nothing, LogFormat::Text).ends_with("cut 7ms - - - - -\n"));
    }

    #[test]
    fn everything_is_written_and_a_moved_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let log = AccessLog::open(AccessLogAt { format: LogFormat::Json, file: Some(path.clone()) }).unwrap();
        for _ in 0..100 {
            log.write(record());
        }
        log.reopen();
        // It is known to have been opened again when what follows is written, which the end waits for.
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.write(record());
        drop(log);
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!(lines(&moved) + lines(&path), 101);
        assert!(lines(&path) >= 1);
        let absent = AccessLogAt { format: LogFormat::Text, file: Some(directory.path().join("no/log")) };
        assert!(AccessLog::open(absent).is_err());
    }
}
