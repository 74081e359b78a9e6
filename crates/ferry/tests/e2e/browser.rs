//! A browser that is driven as <https://www.w3.org/TR/webdriver2/> says: Debian's chromium through its chromedriver.

use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
];

/// What an element is called on the wire.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with a window of its own and nothing remembered. It ends with the value.
pub struct Browser {
    http: reqwest::Client,
    session: String,
    driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts one that prefers a language.
    pub async fn start(language: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let profile = TempDir::new().unwrap();
        let (driver, port) = driver(&profile).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let data = format!("--user-data-dir={}", profile.path().join("profile").display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([&*data]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {
                "binary": "/usr/bin/chromium", "args": flags, "prefs": {"intl.accept_languages": language},
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let root = format!("http://127.0.0.1:{port}/session");
        let answer = send(http.post(&root).body(wanted.to_string())).await;
        let session = format!("{root}/{}", answer["sessionId"].as_str().unwrap());
        let browser = Self { http, session, driver, _profile: profile };
        // What a new window shows by itself is not looked at.
        browser.open("about:blank").await;
        browser.log("performance").await;
        browser
    }

    async fn post(&self, command: &str, body: Value) -> Value {
        send(self.http.post(format!("{}/{command}", self.session)).body(body.to_string())).await
    }

    async fn get(&self, command: &str) -> Value {
        send(self.http.get(format!("{}/{command}", self.session))).await
    }

    /// Opens a page, and waits until it is there.
    pub async fn open(&self, url: &str) {
        self.post("url", json!({"url": url})).await;
    }

    pub async fn url(&self) -> String {
        self.get("url").await.as_str().unwrap().to_owned()
    }

    /// The value of an expression in the page, awaited if it is a promise.
    pub async fn value(&self, expression: &str) -> Value {
        self.post("execute/sync", json!({"script": format!("return {expression}"), "args": []})).await
    }

    /// Tells the browser what pages cannot.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    async fn find(&self, selector: &str) -> String {
        let found = self.post("element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.post(&format!("element/{element}/click"), json!({})).await;
    }

    pub async fn keys(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.post(&format!("element/{element}/value"), json!({"text": text})).await;
    }

    /// The text that is seen.
    pub async fn text(&self, selector: &str) -> String {
        let element = self.find(selector).await;
        self.get(&format!("element/{element}/text")).await.as_str().unwrap().to_owned()
    }

    /// Presses Tab, and says which element has the focus then.
    pub async fn tab(&self) -> String {
        let key = |kind: &str| json!({"type": kind, "value": "\u{e004}"});
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": [key("keyDown"), key("keyUp")]});
        self.post("actions", json!({"actions": [keyboard]})).await;
        let of = "(e => e.id || e.className || e.tagName)(document.activeElement)";
        self.value(of).await.as_str().unwrap().to_owned()
    }

    /// What the console and the network have to tell since the last time.
    pub async fn log(&self, kind: &str) -> Vec<Value> {
        self.post("se/log", json!({"type": kind})).await.as_array().unwrap().clone()
    }

    /// The addresses that were asked since the last time.
    pub async fn requests(&self) -> Vec<String> {
        let events = self.log("performance").await;
        let events =
            events.iter().map(|one| serde_json::from_str::<Value>(one["message"].as_str().unwrap()).unwrap());
        let sent = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["message"]["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// A window of that size, and in it a theme that the system prefers.
    pub async fn look(&self, width: u32, theme: &str) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let feature = json!({"name": "prefers-color-scheme", "value": theme});
        self.devtools("Emulation.setEmulatedMedia", json!({"features": [feature]})).await;
    }

    /// A picture of the whole page, as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        use base64::Engine;
        let taken = self.devtools("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await;
        base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()
    }

    /// Closes the window and ends the driver.
    pub async fn stop(mut self) {
        send(self.http.delete(&self.session)).await;
        self.driver.kill().await.unwrap();
    }
}

/// A driver, and where it listens. It wants one free port of IPv4 and IPv6 alike, and may have to try again.
async fn driver(home: &TempDir) -> (Child, String) {
    for _ in 0..10 {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.env("HOME", home.path()).env("TMPDIR", home.path()).kill_on_drop(true);
        let mut driver =
            command.spawn().expect("chromedriver is missing; install the Debian package chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let port = port.trim_end_matches('.').to_owned();
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return (driver, port);
            }
        }
    }
    panic!("chromedriver does not start")
}

async fn send(request: reqwest::RequestBuilder) -> Value {
    let answer = request.header("content-type", "application/json").send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    assert!(status.is_success(), "{text}");
    answer["value"].take()
}
