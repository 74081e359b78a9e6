//! The page for people, as browsers without JavaScript and strangers with bad intentions see it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Digest, Registry};
use ferry_policy::address::{Addressing, Front as Addresses};
use ferry_policy::upstream::{Upstream, Upstreams};
use ferry_serve::{
    FigureSource, Figures, Front, Health, Limits, Mirror, Page, PageOptions, QuotaFigures, RegistryService,
    StorageFigures, Transfer, Trend, UpstreamFigures,
};
use ferry_store::MemoryStore;

use crate::client::{Reply, Server};

fn addressing() -> Addressing {
    let corp = Upstream {
        aliases: vec!["corp".parse().unwrap()],
        ..Upstream::new("registry.corp:5000".parse().unwrap())
    };
    let hub = Upstream::new(Registry::docker_hub());
    let front = Addresses {
        domain: Some("cr.example.cn".parse().unwrap()),
        default: Some(Registry::docker_hub()),
        ..Addresses::default()
    };
    Addressing::new(Upstreams::new(vec![hub, corp]).unwrap(), front).unwrap()
}

fn figures() -> Figures {
    let upstream = |registry: &str, hits, misses, health| UpstreamFigures {
        registry: registry.parse().unwrap(),
        hits,
        misses,
        stale: 2,
        bytes_fetched: 5_000_000,
        health,
        quota: Some(QuotaFigures { limit: 100, remaining: 17 }),
    };
    Figures {
        version: "1.2.3".to_owned(),
        uptime: Duration::from_secs(7260),
        requests: 12_345,
        bytes_served: 2_500_000_000,
        upstreams: vec![
            upstream("docker.io", 30, 10, Health::Good),
            upstream("registry.corp:5000", 0, 0, Health::Failing { since: Duration::from_secs(300) }),
        ],
        transfers: vec![Transfer {
            registry: Registry::docker_hub(),
            repository: "secret/project".parse().unwrap(),
            digest: Digest::sha256(b"secret"),
            size: Some(200),
            present: 150,
            readers: 3,
        }],
        storage: StorageFigures { bytes: 1_000_000, objects: 7, limit: Some(4_000_000), free: None },
    }
}

async fn server(options: PageOptions) -> Server {
    let mut service = RegistryService::new(Arc::new(MemoryStore::new()));
    if let Some(addressing) = &options.addressing {
        let open = |_: &Upstream| Ok::<_, Infallible>(Arc::new(MemoryStore::new()) as _);
        service = service.mirroring(Mirror::new(addressing.clone(), open).unwrap());
    }
    let front = Front::new(service).showing(Arc::new(Page::new(options)));
    Server::of(front, Limits::default()).await
}

async fn mirror() -> Server {
    let figures: FigureSource = Arc::new(figures);
    server(PageOptions { addressing: Some(addressing()), figures: Some(Trend::new(figures)), login: false })
        .await
}

async fn get(server: &Server, target: &str, headers: &[(&str, &str)]) -> Reply {
    server.send(&format!("GET {target}"), headers, b"").await
}

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(&reply.body).unwrap()
}

const OURS: (&str, &str) = ("host", "cr.example.cn:5000");

#[tokio::test]
async fn an_image_is_named_in_every_way_without_javascript() {
    let server = mirror().await;
    for typed in ["mysql:8", "docker+pull+mysql%3A8", "docker%3A%2F%2Fmysql%3A8", "+mysql:8+"] {
        let page = get(&server, &format!("/?image={typed}"), &[OURS]).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{typed}");
        let page = text(&page).replace("&#x2f;", "/").replace("&amp;", "&").replace("&#x27;", "'");
        for expected in [
            concat!("docker pull cr.example.cn:5000/docker.io/", "library/mysql:8 && docker tag "),
            "podman pull --tls-verify=false cr.example.cn:5000/",
            "docker pull mysql:8",
            "No host of this mirror stands for docker.io",
            "certs.d/_default/hosts.toml",
            "[host.&quot;http://cr.example.cn:5000&quot;]",
            "registry.corp-5000",
            "corp.cr.example.cn:5000",
        ] {
            assert!(page.contains(expected), "{typed}: {expected} is missing in\n{page}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_shown_is_said() {
    let server = mirror().await;
    for (typed, status, expected) in [
        ("gcr.io/a", 404, "This registry is not mirrored: gcr.io"),
        ("UPPER", 400, "This is not the name of an image:"),
        ("a%20b", 400, "This is not the name of an image:"),
    ] {
        let page = get(&server, &format!("/?image={typed}"), &[OURS]).await;
        assert_eq!(page.status, status, "{typed}");
        assert!(text(&page).contains(expected), "{}", text(&page));
        assert!(text(&page).contains("role=\"alert\""));
    }
}

#[tokio::test]
async fn nothing_that_a_stranger_sends_becomes_part_of_the_page() {
    let server = mirror().await;
    let evil = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E%27%26%60";
    let long = "a".repeat(5000);
    for target in [
        format!("/?image={evil}"),
        format!("/?image={evil}.io/x"),
        format!("/?image=docker.io/x@{evil}"),
        format!("/?image=x&lang={evil}"),
        format!("/?lang=zh&image={evil}%0d%0ax:%20y"),
        format!("/?image={long}"),
        format!("/?image=%00%1b%ff{evil}"),
        format!("/page/figures?lang={evil}"),
    ] {
        let page = get(&server, &target, &[OURS, ("accept-language", "\"><script>alert(2)</script>")]).await;
        let page = text(&page).replace("&#x2f;", "/");
        assert_eq!(page.matches("<script").count(), page.matches("<script src=\"/page/page.js?v=").count());
        assert!(!page.contains("alert(1)</") && !page.contains("alert(2)"), "{target}: {page}");
        assert!(!page.contains("a".repeat(401).as_str()));
    }
    for host in ["x\"><script>alert(3)</script>", "x'><i>", "evil.example/\"", "[::1"] {
        let page = get(&server, "/?image=x", &[("host", host)]).await;
        assert!(!text(&page).contains("alert(3)") && !text(&page).contains("<i>"), "{host}");
        assert!(text(&page).contains("cr.example.cn"), "the name that is configured is left");
    }
}

#[tokio::test]
async fn the_page_takes_nothing_from_elsewhere_and_says_so() {
    let server = mirror().await;
    let page = get(&server, "/", &[OURS]).await;
    let policy = page.header("content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(
        (page.header("x-content-type-options"), page.header("referrer-policy")),
        ("nosniff", "no-referrer")
    );
    assert_eq!(page.header("cache-control"), "no-store");
    let body = text(&page).replace("&#x2f;", "/");
    assert!(
        body.contains("<td><code>–</code></td>") && !body.contains("None"),
        "what is not there is a dash"
    );
    assert!(!body.contains(" style=") && !body.contains(" onclick") && !body.contains("<style"));
    let mut assets = 0;
    for address in body.split(['"', '\'']).filter(|part| part.starts_with("/page/") && part.contains("?v=")) {
        let asset = get(&server, address, &[OURS]).await;
        assert_eq!(
            (asset.status, asset.header("cache-control")),
            (200, "public, max-age=31536000, immutable")
        );
        assert_eq!(asset.header("x-content-type-options"), "nosniff");
        let again = get(&server, address, &[OURS, ("if-none-match", asset.header("etag"))]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{address}");
        let old = address.split_once('?').unwrap().0;
        assert_eq!(get(&server, old, &[OURS]).await.header("cache-control"), "no-cache", "{old}");
        assets += 1;
    }
    assert_eq!(assets, 4, "styles, the script, and the icon twice");
    for target in ["/page/", "/page/../Cargo.toml", "/page/page.css/x", "/page/%2e%2e/x"] {
        assert_eq!(get(&server, target, &[OURS]).await.status, 404, "{target}");
    }
    assert_eq!(server.send("HEAD /", &[OURS], b"").await.body, b"");
    assert_eq!(server.send("POST /", &[OURS], b"").await.status, 404);
    assert_eq!(get(&server, "/v2/", &[OURS]).await.status, 200, "the API is where it was");
}

#[tokio::test]
async fn figures_name_no_repositories() {
    let server = mirror().await;
    for (target, expected) in [
        (
            "/",
            [
                "Served from cache",
                "75 %",
                "2.50 GB",
                "12\u{202f}345",
                "2 h 1 min",
                "failing for 5 min",
                "17 &#x2f; 100",
            ],
        ),
        (
            "/page/figures?lang=zh",
            ["缓存命中率", "75 %", "1.00 MB", "4.00 MB", "2 小时 1 分钟", "故障已持续 5 分钟", "正常"],
        ),
    ] {
        let page = get(&server, target, &[OURS]).await;
        let page = text(&page);
        for expected in expected {
            assert!(page.contains(expected), "{target}: {expected} is missing in\n{page}");
        }
        assert!(!page.contains("secret") && !page.contains(&Digest::sha256(b"secret").to_string()));
    }
    let hidden = server_without_figures().await;
    assert_eq!(get(&hidden, "/page/figures", &[OURS]).await.status, 404);
    let page = get(&hidden, "/", &[OURS]).await;
    assert!(!text(&page).contains("Served from cache"), "{}", text(&page));
}

async fn server_without_figures() -> Server {
    server(PageOptions { addressing: Some(addressing()), figures: None, login: true }).await
}

#[tokio::test]
async fn who_has_to_log_in_is_told() {
    let server = server_without_figures().await;
    let page = get(&server, "/", &[OURS]).await;
    assert!(text(&page).contains("podman login cr.example.cn:5000"), "{}", text(&page));
}

#[tokio::test]
async fn languages() {
    let server = mirror().await;
    for (target, accept, lang, other) in [
        ("/", "zh-CN,zh;q=0.9", "zh", "/?lang=en"),
        ("/?lang=en", "zh-CN", "en", "/?lang=zh"),
        ("/?lang=zh&image=mysql", "en", "zh", "/?lang=en&amp;image=mysql"),
        ("/?lang=xx", "", "en", "/?lang=zh"),
    ] {
        let page = get(&server, target, &[OURS, ("accept-language", accept)]).await;
        let page = text(&page).replace("&#x2f;", "/");
        assert!(page.contains(&format!("<html lang=\"{lang}\">")), "{target}");
        assert!(page.contains(&format!("href=\"{other}\"")), "{target}: {page}");
    }
}

#[tokio::test]
async fn programs_get_json() {
    let server = mirror().await;
    let json = [OURS, ("accept", "application/json")];
    let ask = async |target: &str| {
        let reply = get(&server, target, &json).await;
        (reply.status, serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap())
    };
    let (status, about) = ask("/").await;
    assert_eq!((status, &about["mirror"]), (200, &"http://cr.example.cn:5000".into()));
    assert_eq!(about["registries"], serde_json::json!(["docker.io", "registry.corp:5000"]));
    let (status, image) = ask("/?image=registry.corp:5000/a:1").await;
    assert_eq!((status, &image["modes"][1]["name"]), (200, &"corp.cr.example.cn:5000/a:1".into()));
    assert_eq!(image["modes"][0]["commands"][0]["tool"], "docker");
    assert_eq!(ask("/?image=quay.io/a").await.0, 404);
    assert_eq!(ask("/?image=A").await.0, 400);
}

#[tokio::test]
async fn a_registry_that_mirrors_nothing_says_how_to_push() {
    let server = server(PageOptions::default()).await;
    let page = get(&server, "/?image=mysql", &[("host", "r.example.cn:5000")]).await;
    let page = text(&page).replace("&#x2f;", "/");
    assert!(page.contains("docker push r.example.cn:5000/team/app:1.0"), "{page}");
    assert!(!page.contains("registries.conf") && !page.contains("id=\"image\""));
}

#[tokio::test]
async fn without_a_page_there_is_none() {
    let service = RegistryService::new(Arc::new(MemoryStore::new()));
    let server = Server::of(Front::new(service), Limits::default()).await;
    assert_eq!(server.get("/").await.status, 404);
    assert_eq!(server.get("/page/page.css").await.status, 404);
}
