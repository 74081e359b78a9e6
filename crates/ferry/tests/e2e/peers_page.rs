//! The page in Debian's chromium.
//!
//! With `FERRY_SCREENSHOTS=DIR` pictures of what is looked at are left there.

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::{Link, LinkOptions};
use serde_json::json;

use crate::browser::Browser;
use crate::harness::{Ferry, Served, push};

/// A mirror with something to show: an image was pulled, and another is being pulled slowly.
struct Scene {
    ferry: Ferry,
    mirror: Served,
    link: Link,
    image: String,
    _upstream: Served,
}

impl Scene {
    async fn new() -> Self {
        let ferry = Ferry::new();
        let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
        let image = ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [Layer::random(1, 3_000_000)])
            .build_single();
        let named =
            NamedImage { repository: "private/app".parse().unwrap(), tag: "v1".parse().unwrap(), image };
        push(&[named], &upstream.host()).await;
        let link = Link::start(upstream.address, LinkOptions::default()).await.unwrap();
        let host = link.host();
        let config =
            format!("serve:\n  mirror:\n    upstreams: [built_in, \"{host}\"]\n    domain: mirror.test\n");
        std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
        let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "cache"];
        let mirror = ferry.serve_with(&arguments).await;
        let image = format!("{}/private/app:v1", host.as_str().replace(':', "-"));
        Self { ferry, mirror, link, image, _upstream: upstream }
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.mirror.host())
    }

    async fn pull(&self) {
        let source = format!("{}/{}", self.mirror.host(), self.image);
        self.ferry.run(&["copy", &source, "oci:pulled"]).await.ok();
    }

    /// A client that takes what comes, slowly.
    async fn pull_slowly(&self) -> tokio::process::Child {
        self.link.set(LinkOptions { total_rate: Some(100_000), ..LinkOptions::default() });
        let source = format!("{}/{}", self.mirror.host(), self.image);
        let child = self.ferry.command(&["copy", &source, "oci:slow"]).spawn().unwrap();
        while self.link.stats().bytes_down < 400_000 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        child
    }
}

async fn keep(browser: &Browser, name: &str) {
    let picture = browser.picture().await;
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "{name}: {} bytes", picture.len());
    if let Some(directory) = std::env::var_os("FERRY_SCREENSHOTS") {
        std::fs::write(std::path::Path::new(&directory).join(name), picture).unwrap();
    }
}

/// Nothing was asked elsewhere, and nothing went wrong.
async fn clean(browser: &Browser, scene: &Scene) {
    let requests = browser.requests().await;
    let ours = |url: &String| url.starts_with(&scene.url("/"));
    // A new window may still be busy with what is part of the browser.
    let elsewhere: Vec<&String> =
        requests.iter().filter(|url| !ours(url) && !url.starts_with("chrome://")).collect();
    assert!(requests.iter().any(ours) && elsewhere.is_empty(), "{elsewhere:?}");
    let console = browser.log("browser").await;
    let errors: Vec<_> = console.iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_typed_and_its_commands_are_copied() {
    let scene = Scene::new().await;
    let browser = Browser::start("en-US,en").await;
    browser.look(1280, "light").await;
    browser.open(&scene.url("/")).await;
    keep(&browser, "light.png").await;
    browser.keys("#image", "nginx:1.27\u{e007}").await;
    assert!(browser.url().await.contains("image=nginx%3A1.27"), "{}", browser.url().await);
    let host = scene.mirror.host();
    let name = format!("{host}/docker.io/{}/nginx:1.27", "library");
    assert_eq!(browser.text("#name-prefix").await, name);
    assert!(browser.text("#name-alias-host").await.starts_with("docker.mirror.test"));
    keep(&browser, "image.png").await;
    let origin =
        json!({"origin": scene.url(""), "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.devtools("Browser.grantPermissions", origin).await;
    browser.click("[data-copy=command-prefix-docker]").await;
    assert_eq!(browser.text("[data-copy=command-prefix-docker]").await, "Copied");
    let copied = browser.value("navigator.clipboard.readText()").await;
    assert_eq!(copied, json!(format!("docker pull {name} && docker tag {name} nginx:1.27")));
    // As in a page of plain HTTP, which has no clipboard.
    browser
        .value("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true}) && 1")
        .await;
    browser.click("[data-copy=name-prefix]").await;
    assert_eq!(browser.text("[data-copy=name-prefix]").await, "Copied");
    browser.value("delete navigator.clipboard").await;
    assert_eq!(browser.value("navigator.clipboard.readText()").await, json!(name));
    clean(&browser, &scene).await;
    browser.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn languages_themes_and_small_windows() {
    let scene = Scene::new().await;
    let browser = Browser::start("zh-CN,zh").await;
    browser.look(1280, "dark").await;
    browser.open(&scene.url("/?image=quay.io/prometheus/prometheus")).await;
    assert_eq!(browser.text("h1").await, "容器镜像站");
    let paper = "getComputedStyle(document.body).backgroundColor";
    let dark = browser.value(paper).await;
    keep(&browser, "dark-zh.png").await;
    browser.click("#theme").await;
    let light = browser.value(paper).await;
    assert_ne!(dark, light);
    browser.click("#language").await;
    assert_eq!(browser.text("h1").await, "A mirror for container images");
    assert_eq!(
        browser.value("document.querySelector('#image').value").await,
        "quay.io/prometheus/prometheus"
    );
    assert_eq!(browser.value(paper).await, light, "the theme is remembered");
    browser.look(375, "light").await;
    let narrow = "document.documentElement.scrollWidth <= innerWidth";
    for path in ["/?lang=en&image=quay.io/prometheus/prometheus", "/?lang=zh&image=registry.example.com/a/b"]
    {
        browser.open(&scene.url(path)).await;
        browser.value("document.querySelectorAll('details').forEach(one => one.open = true)").await;
        assert_eq!(browser.value(narrow).await, true, "{path} can be read without scrolling sideways");
    }
    browser.open(&scene.url("/?lang=en&image=nginx")).await;
    keep(&browser, "narrow.png").await;
    browser.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_everything_in_its_order() {
    let scene = Scene::new().await;
    let browser = Browser::start("en").await;
    browser.look(1280, "light").await;
    browser.open(&scene.url("/?image=nginx")).await;
    let mut order = Vec::new();
    for _ in 0..8 {
        order.push(browser.tab().await);
    }
    assert_eq!(order, ["skip", "brand", "theme", "language", "image", "BUTTON", "name-prefix", "copy"]);
    let named = "[...document.querySelectorAll('input:not([type=hidden]), button, a, progress, meter, svg[role=img]')]\
                 .every(e => e.labels?.length || e.textContent.trim() || e.ariaLabel || e.getAttribute('aria-label'))";
    assert_eq!(browser.value(named).await, true);
    browser.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_javascript() {
    let scene = Scene::new().await;
    let browser = Browser::start("en").await;
    browser.look(1280, "light").await;
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    browser.open(&scene.url("/")).await;
    browser.keys("#image", "nginx:1.27\u{e007}").await;
    assert!(browser.text("#command-prefix-docker").await.starts_with("docker pull "));
    assert_eq!(browser.text("#theme").await, "", "what does nothing without it is not there");
    browser.click("#client-podman summary").await;
    assert!(browser.text("#client-podman pre").await.contains("[[registry.mirror]]"));
    browser.click("#language").await;
    assert_eq!(browser.text("h1").await, "容器镜像站");
    clean(&browser, &scene).await;
    browser.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_live() {
    let scene = Scene::new().await;
    let browser = Browser::start("en").await;
    browser.look(1280, "light").await;
    browser.open(&scene.url("/")).await;
    let before = browser.text("#figures").await;
    let mut pulling = scene.pull_slowly().await;
    // What the page does every few seconds.
    let refreshed = "(async () => { const f = document.getElementById('figures'); \
                     f.innerHTML = await (await fetch(f.dataset.from)).text(); return f.innerText; })()";
    let during = browser.value(refreshed).await;
    let during = during.as_str().unwrap();
    assert_ne!(during, before);
    assert!(during.contains(scene.link.host().as_str()) && during.contains("Clients 1"), "{during}");
    assert!(!during.contains("private"), "{during}");
    pulling.kill().await.unwrap();
    scene.link.set(LinkOptions::default());
    scene.pull().await;
    // After the next sample there is something to draw.
    let drawn = "[...document.querySelectorAll('#plot-bytes path.line')].map(one => one.getTotalLength())";
    loop {
        browser.value(refreshed).await;
        let lengths = browser.value(drawn).await;
        if lengths.as_array().is_some_and(|all| all.iter().any(|one| one.as_f64().unwrap() > 20.0)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    keep(&browser, "figures.png").await;
    clean(&browser, &scene).await;
    browser.stop().await;
}
