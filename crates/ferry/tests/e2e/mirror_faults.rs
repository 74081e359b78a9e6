//! Upstreams that die, say nothing, limit, lie and break, and disks that are full.

use std::io::{Read as _, Seek as _};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_oci::Digest;
use ferry_testkit::fake::{FakeRegistry, Fault, FaultRule, Kind as Asked};
use ferry_testkit::images::{Image, NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions, Reset};
use futures_util::future::join_all;
use reqwest::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::harness::{Ferry, Served, check, push};
use crate::mirror_harness::*;

/// A registry that can misbehave, with an image, and a mirror of it that asks for tags each time.
struct Scene {
    _ferry: Ferry,
    registry: FakeRegistry,
    mirror: Served,
    image: Image,
}

impl Scene {
    async fn new(size: usize) -> Self {
        Self::with(size, ALWAYS_ASK).await
    }

    async fn with(size: usize, more: &str) -> Self {
        let (ferry, registry) = (Ferry::new(), FakeRegistry::start().await.unwrap());
        let host = registry.address().to_string();
        let named = one(size);
        push(std::slice::from_ref(&named), &host).await;
        let mirror = start(&ferry, "cache", &config(&host, more)).await;
        registry.reset_counts();
        Self { _ferry: ferry, registry, mirror, image: named.image }
    }

    fn layer(&self) -> Digest {
        layer(&self.image)
    }

    async fn blob(&self) -> Result<Vec<u8>, reqwest::Error> {
        let url = format!("http://{}/v2/a/b/blobs/{}", self.mirror.host(), self.layer());
        let response = http().get(url).send().await?.error_for_status()?;
        Ok(response.bytes().await?.to_vec())
    }

    async fn pull(&self) {
        for (digest, content) in &self.image.blobs {
            let seen = get(&self.mirror, &format!("/v2/a/b/blobs/{digest}")).await;
            assert!(seen.status.is_success() && seen.body == content[..], "{}", seen.status);
        }
        let seen = get(&self.mirror, "/v2/a/b/manifests/v1").await;
        assert_eq!(&seen.body[..], &self.image.root.bytes()[..], "{}", seen.status);
    }
}

fn always(fault: Fault, part: &str) -> FaultRule {
    FaultRule::new(fault).path(part).always()
}

/// Whatever the upstream answers, what was pulled is pulled again, under tags that are not fresh any more as well.
#[tokio::test(flavor = "multi_thread")]
async fn warm_pulls_do_not_fail_whatever_the_upstream_says() {
    let at = Scene::new(100_000).await;
    at.pull().await;
    get(&at.mirror, "/v2/a/b/tags/list").await;
    for status in [429, 500, 502, 503, 504] {
        at.registry.heal();
        at.registry.fail(always(Fault::status(status), ""));
        for _ in 0..3 {
            at.pull().await;
            let seen = get(&at.mirror, "/v2/a/b/manifests/v1").await;
            assert_eq!(seen.header("cache-status"), "ferry; hit; detail=stale", "{status}");
            let listed = get(&at.mirror, "/v2/a/b/tags/list").await;
            assert_eq!(
                (listed.status, listed.text().as_str()),
                (StatusCode::OK, r#"{"name":"a/b","tags":["v1"]}"#)
            );
        }
    }
}

/// Accepts every connection and never answers; counts them.
async fn black_hole(address: std::net::SocketAddr) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(address).await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    count
}

/// The upstream dies, and then something takes its place that accepts connections and says nothing. Pulls under twenty
/// tags are all answered with what is here.
#[tokio::test(flavor = "multi_thread")]
async fn warm_pulls_do_not_wait_for_an_upstream_that_says_nothing() {
    let ferry = Ferry::new();
    let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
    let (address, host) = (upstream.address, upstream.host());
    let NamedImage { repository, image, .. } = one(50_000);
    let tag = |n: usize| format!("t{n}").parse().unwrap();
    let images: Vec<NamedImage> = (0..20)
        .map(|n| NamedImage { repository: repository.clone(), tag: tag(n), image: image.clone() })
        .collect();
    push(&images, &host).await;
    let mirror = start(&ferry, "cache", &config(&host, ALWAYS_ASK)).await;
    check(&images, &mirror.host(), "").await;
    upstream.kill().await;
    check(&images, &mirror.host(), "").await;
    let connections = black_hole(address).await;
    // What was refused a moment ago is not asked again at once.
    let mut rounds = 0;
    while rounds < 5 || connections.load(Ordering::SeqCst) == 0 {
        rounds += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let pulls = images.iter().map(|named| {
            let target = format!("/v2/a/b/manifests/{}", named.tag);
            let mirror = &mirror;
            async move { get(mirror, &target).await }
        });
        for seen in join_all(pulls).await {
            assert_eq!((seen.status, &seen.body[..]), (StatusCode::OK, &image.root.bytes()[..]));
            assert_eq!(seen.header("cache-status"), "ferry; hit; detail=stale");
        }
    }
}

/// What is wrong does not become whole for the client, nor content; the next who asks gets the right bytes.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_fail_the_client_and_are_not_kept() {
    let at = Scene::new(300_000).await;
    at.registry.fail(FaultRule::new(Fault::Corrupt { at: 1000 }).path("/blobs/").times(1));
    let failed = at.blob().await;
    assert!(failed.is_err(), "{} bytes", failed.unwrap().len());
    assert_eq!(at.registry.count(Asked::BlobGet), 1);
    assert_eq!(at.blob().await.unwrap(), at.image.blobs[&at.layer()]);
    assert_eq!(at.registry.count(Asked::BlobGet), 2, "it was asked again");
    assert_eq!(at.blob().await.unwrap(), at.image.blobs[&at.layer()]);
    assert_eq!(at.registry.count(Asked::BlobGet), 2, "and then kept");
    // A manifest as well.
    at.registry.fail(FaultRule::new(Fault::Corrupt { at: 20 }).path("/manifests/").times(1));
    let wrong = get(&at.mirror, "/v2/a/b/manifests/v1").await;
    assert_eq!(wrong.status, StatusCode::BAD_GATEWAY, "{}", wrong.text());
    at.pull().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_twenty_times_is_no_error() {
    let at = Mirror::new(vec![one(6_000_000)], LinkOptions::default()).await;
    let image = &at.images[0].image;
    let digest = layer(image);
    let size = image.blobs[&digest].len() as u64;
    get(&at.mirror, "/v2/a/b/manifests/v1").await;
    at.link.set(LinkOptions { reset: Reset::Every(size / 22), ..LinkOptions::default() });
    at.link.kill_connections();
    at.link.reset_stats();
    let path = format!("/v2/a/b/blobs/{digest}");
    for seen in join_all((0..10).map(|_| get(&at.mirror, &path))).await {
        assert_eq!(Digest::sha256(&seen.body), digest);
    }
    let stats = at.link.stats();
    assert!(stats.resets >= 20, "{}", stats.resets);
    let again = stats.bytes_down.saturating_sub(size);
    assert!(again <= stats.resets << 20, "{again} bytes again after {} breaks", stats.resets);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_remembered_and_failures_are_not() {
    let at = Scene::new(1000).await;
    for path in ["/v2/a/b/manifests/absent", "/v2/a/c/tags/list"] {
        for _ in 0..5 {
            assert_eq!(get(&at.mirror, path).await.status, StatusCode::NOT_FOUND);
        }
    }
    assert_eq!((at.registry.count(Asked::ManifestGet), at.registry.count(Asked::Listing)), (1, 1));
    at.registry.fail(always(Fault::status(501), "/manifests/"));
    assert!(get(&at.mirror, "/v2/a/b/manifests/v1").await.status.is_server_error());
    at.registry.heal();
    at.pull().await;
}

/// The head of the answer to a cold blob does not wait for its first byte.
#[tokio::test(flavor = "multi_thread")]
async fn headers_come_before_the_first_byte() {
    let at = Scene::new(2_000_000).await;
    at.registry.fail(FaultRule::new(Fault::Stall { after: 0 }).path("/blobs/").times(1));
    let url = format!("http://{}/v2/a/b/blobs/{}", at.mirror.host(), at.layer());
    let size = at.image.blobs[&at.layer()].len() as u64;
    let (get, head) = tokio::join!(http().get(&url).send(), http().head(&url).send());
    assert_eq!(get.as_ref().unwrap().content_length(), Some(size));
    assert_eq!(head.unwrap().headers()["content-length"], size.to_string().as_str());
    // Another one asks for a part while nothing has come.
    let part = http().get(&url).header("range", "bytes=1000-").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    let gone = at.registry.count(Asked::BlobGet);
    assert!(gone <= 2, "{gone}");
}

/// Two upstreams have different things under the same name, and neither is shown what the other has.
#[tokio::test(flavor = "multi_thread")]
async fn two_upstreams_with_the_same_repository_never_mix() {
    let ferry = Ferry::new();
    let [one, two] = [FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap()];
    let [first, second] = [1, 2].map(|seed| {
        let set = image_set(&SetSpec { images: 1, seed, base_size: 50_000, own_size: 5_000 });
        NamedImage { repository: "a/b".parse().unwrap(), tag: "v1".parse().unwrap(), ..set[0].clone() }
    });
    let hosts = [one.address().to_string(), two.address().to_string()];
    push(std::slice::from_ref(&first), &hosts[0]).await;
    push(std::slice::from_ref(&second), &hosts[1]).await;
    let config = format!("serve:\n  mirror:\n    upstreams: [\"{}\", \"{}\"]\n", hosts[0], hosts[1]);
    let mirror = start(&ferry, "cache", &config).await;
    let prefixes = hosts.each_ref().map(|host| prefix(host));
    for (named, prefix) in [(&first, &prefixes[0]), (&second, &prefixes[1])] {
        check(std::slice::from_ref(named), &mirror.host(), &format!("{prefix}/")).await;
    }
    for (named, other) in [(&first, &prefixes[1]), (&second, &prefixes[0])] {
        let root = named.image.root.digest();
        assert_eq!(
            get(&mirror, &format!("/v2/{other}/a/b/manifests/{root}")).await.status,
            StatusCode::NOT_FOUND
        );
        for digest in named.image.blobs.keys() {
            let there = [&first, &second].iter().all(|named| named.image.blobs.contains_key(digest));
            let seen = get(&mirror, &format!("/v2/{other}/a/b/blobs/{digest}")).await;
            assert_eq!(seen.status == StatusCode::OK, there, "{digest}");
        }
    }
}

/// A mirror whose access log is on a full disk, and what it says elsewhere; told to end when it was asked often, and nothing
/// that it was asked for by then failed.
async fn with_a_log_that_is_full(errors: Stdio) -> Option<i32> {
    let (ferry, named) = (Ferry::new(), one(50_000));
    let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
    push(std::slice::from_ref(&named), &upstream.host()).await;
    let full = format!("{ALWAYS_ASK}  access_log: {{file: /dev/full}}\n");
    std::fs::write(ferry.path("ferry.yaml"), config(&upstream.host(), &full)).unwrap();
    let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "cache"];
    let mirror = ferry.serve_saying(&arguments, errors).await;
    check(std::slice::from_ref(&named), &mirror.host(), "").await;
    upstream.kill().await;
    // Why it is not to be had is said, too.
    let absent = async |number| get(&mirror, &format!("/v2/a/b/manifests/{number}")).await.status;
    assert_eq!(join_all((0..60).map(absent)).await, [StatusCode::BAD_GATEWAY; 60]);
    check(std::slice::from_ref(&named), &mirror.host(), "").await;
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_said_stops_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(with_a_log_that_is_full(full.into()).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn that_the_access_log_cannot_be_written_is_not_said_for_every_request() {
    let mut errors = tempfile::tempfile().unwrap();
    assert_eq!(with_a_log_that_is_full(errors.try_clone().unwrap().into()).await, Some(0));
    let mut said = String::new();
    errors.rewind().unwrap();
    errors.read_to_string(&mut said).unwrap();
    let count = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    let counted = (count("the access log cannot be written"), count("lines of the access log are lost"));
    assert_eq!(counted, (1, 1), "{said}");
}

/// Full disks.
mod small_disks {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    use super::*;

    /// Runs a mirror on a file system that nobody else sees, fills this up when it is told, and makes room again.
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=32m ferry "$1"
        "$2" --config "$3" serve --listen 127.0.0.1:0 --storage "$1/cache" &
        read line; head -c 40000000 /dev/zero > "$1/filler" 2>/dev/null || echo "full"
        read line; rm "$1/filler"; echo "more room"
        read line; kill $!; wait
    "#;

    /// The mirror and who gives orders.
    struct Small {
        script: tokio::process::Child,
        said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
        mirror: String,
    }

    impl Small {
        async fn start(ferry: &Ferry, config: &str) -> Self {
            std::fs::create_dir(ferry.path("disk")).unwrap();
            std::fs::write(ferry.path("mirror.yaml"), config).unwrap();
            let mut command = tokio::process::Command::new("unshare");
            command.args(["--mount", "--map-root-user", "sh", "-ec", SCRIPT, "sh"]);
            command.arg(ferry.path("disk")).arg(env!("CARGO_BIN_EXE_ferry")).arg(ferry.path("mirror.yaml"));
            command.env("HOME", ferry.home.path()).kill_on_drop(true);
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut script = command.spawn().unwrap();
            let mut said = BufReader::new(script.stdout.take().unwrap()).lines();
            let line = said.next_line().await.unwrap().unwrap();
            said.next_line().await.unwrap().unwrap();
            Self { script, said, mirror: line.rsplit_once("http://").unwrap().1.to_owned() }
        }

        async fn order(&mut self) -> Option<String> {
            self.script.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
            loop {
                match self.said.next_line().await.unwrap() {
                    // What the mirror says of itself.
                    Some(line) if line.starts_with("ferry: ") => {}
                    line => return line,
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_gets_full_fails_nobody_and_is_used_again_when_it_has_room() {
        let (ferry, named) = (Ferry::new(), one(6 << 20));
        let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
        push(std::slice::from_ref(&named), &upstream.host()).await;
        let slow = LinkOptions { total_rate: Some(500_000), ..LinkOptions::default() };
        let link = Link::start(upstream.address, slow).await.unwrap();
        let mut small = Small::start(&ferry, &config(link.host().as_str(), ALWAYS_ASK)).await;
        let digest = layer(&named.image);
        let url = format!("http://{}/v2/a/b/blobs/{digest}", small.mirror);
        let open = async || http().get(&url).send().await.unwrap();
        let whole = async |response: reqwest::Response| {
            let kept = response.headers()["cache-status"] == "ferry; hit";
            let body = response.bytes().await.unwrap();
            assert_eq!(Digest::sha256(&body), digest);
            kept
        };
        let (one, two) = tokio::join!(open(), open());
        assert_eq!(small.order().await.as_deref(), Some("full"));
        link.set(LinkOptions::default());
        let (one, two, three) = tokio::join!(whole(one), whole(two), async { whole(open().await).await });
        assert!(!one && !two && !three);
        assert!(!whole(open().await).await, "it does not fit");
        check(std::slice::from_ref(&named), &small.mirror, "").await;
        assert_eq!(small.order().await.as_deref(), Some("more room"));
        while !whole(open().await).await {}
        link.reset_stats();
        check(std::slice::from_ref(&named), &small.mirror, "").await;
        assert_eq!(link.stats().count("GET", &digest.to_string()), 0, "it is kept");
        assert_eq!(small.order().await, None);
        assert!(small.script.wait().await.unwrap().success());
    }
}
