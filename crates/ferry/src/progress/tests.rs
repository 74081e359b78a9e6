use std::sync::{Arc, Mutex};

use ferry_oci::Digest;
use ferry_transfer::Moving;

use super::view::{Blob, View, time};
use super::*;

fn moving(text: &str, size: u64, fetched: u64, sent: u64) -> Moving {
    Moving { digest: Digest::sha256(text.as_bytes()), size, fetched, sent }
}

fn run() -> Progress {
    Progress {
        begun: 10,
        done_images: 3,
        known: 2_000_000_000,
        done: 400_000_000,
        fetched: 0,
        sent: 0,
        blobs: vec![
            moving("small", 10_000_000, 0, 0),
            moving("large", 500_000_000, 300_000_000, 100_000_000),
        ],
    }
}

/// Two looks at a run, ten seconds apart, during which it sent 50 MB.
fn view() -> View {
    let mut watcher = Watcher::new(20, Duration::from_secs(30));
    let start = Instant::now();
    let _ = watcher.look(start, run());
    let mut later = run();
    later.sent = 50_000_000;
    later.fetched = 20_000_000;
    later.blobs[1].fetched += 50_000_000;
    later.blobs[1].sent += 50_000_000;
    watcher.look(start + Duration::from_secs(10), later)
}

#[test]
fn a_look_tells_what_is_done_how_fast_and_how_long_it_will_take() {
    let view = view();
    assert_eq!((view.done, view.known, view.rate), (650_000_000, 2_000_000_000, 5e6));
    // Ten images of twenty have 2 GB, so all have 4: 3.35 GB are left.
    assert_eq!(view.left, Some(Duration::from_secs(670)));
    let sizes: Vec<u64> = view.blobs.iter().map(|blob| blob.size).collect();
    assert_eq!(sizes, [500_000_000, 10_000_000]);
    assert_eq!((view.blobs[0].done, view.blobs[0].rate), (250_000_000, 5e6));
}

#[test]
fn lines_fit_into_the_terminal() {
    let large = Digest::sha256(b"large").to_string();
    let name = large.strip_prefix("sha256:").unwrap();
    let figures = " 50% of 500.0 MB   5.0 MB/s";
    let bar = |filled: usize, length: usize| format!("[{:length$}]", "=".repeat(filled));
    let total = "3 of 20 images, 650.0 MB of 2.0 GB, 5.0 MB/s, about 11 min left";
    for (columns, first, last) in [
        (40, format!("{}  50% of 500.0 MB 5.0 MB/s", &name[..8]), "3/20 650.0 MB/2.0 GB 5.0 MB/s 11 min"),
        (80, format!("{} {} {figures}", &name[..12], bar(18, 36)), total),
        (200, format!("{} {} {figures}", &name[..12], bar(25, 50)), total),
    ] {
        let lines = view().lines(columns);
        assert_eq!((lines.len(), &lines[0], lines[2].as_str()), (3, &first, last));
    }
    for columns in 0..220 {
        assert!(view().lines(columns).iter().all(|line| line.chars().count() < columns.max(1)), "{columns}");
    }
}

#[test]
fn only_the_largest_blobs_have_a_line() {
    let mut many = run();
    many.blobs = (0..9).map(|n| moving(&n.to_string(), 1000 * n, 0, 0)).collect();
    let view = Watcher::new(1, OF_LATE).look(Instant::now(), many);
    let sizes: Vec<u64> = view.blobs.iter().map(|blob: &Blob| blob.size).collect();
    assert_eq!(sizes, [8000, 7000, 6000, 5000, 4000]);
}

#[test]
fn times_have_two_figures_at_most() {
    for (seconds, text) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7830, "2 h 10 min")] {
        assert_eq!(time(Duration::from_secs(seconds)), text);
    }
}

#[test]
fn bars_are_for_terminals_that_nothing_else_is_written_to() {
    assert_eq!(how(Typed::Auto, true, false), How::Bars);
    assert_eq!(how(Typed::Auto, true, true), How::Lines);
    assert_eq!(how(Typed::Auto, false, false), How::Lines);
    assert_eq!(how(Typed::Plain, true, false), How::Lines);
    assert_eq!(how(Typed::None, true, false), How::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_line_every_thirty_seconds_proves_that_it_lives() {
    let (now, lines) = (Arc::new(Mutex::new(run())), Arc::new(Mutex::new(Vec::new())));
    let (looked, said) = (Arc::clone(&now), Arc::clone(&lines));
    let progress = move || looked.lock().unwrap().clone();
    let task = tokio::spawn(heartbeat(progress, 20, HEARTBEAT, move |line| said.lock().unwrap().push(line)));
    let pass = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    pass(1).await;
    {
        let mut now = now.lock().unwrap();
        (now.sent, now.done) = (150_000_000, 550_000_000);
    }
    pass(28).await;
    assert!(lines.lock().unwrap().is_empty(), "too early");
    pass(62).await;
    task.abort();
    let figures = "3 of 20 images done, 750.0 MB of 2.0 GB";
    assert_eq!(
        *lines.lock().unwrap(),
        [
            format!("{figures}, 5.0 MB/s, about 10 min left"),
            format!("{figures}, nothing has moved for 30 s"),
            format!("{figures}, nothing has moved for 1 min"),
        ]
    );
}
