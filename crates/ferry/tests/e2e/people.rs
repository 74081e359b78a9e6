//! What people and programs see of a copy: JSON lines, commands, completions, manual pages, and no secrets.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_testkit::fake::{Auth, FakeRegistry, Login};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Ferry, Ran, push};

fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, 50_000)]).build()
}

/// A schema with what it refers to.
fn whole(schema: &Value, root: &Value) -> Value {
    let Some(path) = schema["$ref"].as_str() else { return schema.clone() };
    let mut whole = root.pointer(path.strip_prefix('#').unwrap()).unwrap().clone();
    for (key, value) in schema.as_object().unwrap() {
        match (&mut whole[key], value) {
            (Value::Object(fields), Value::Object(more)) => fields.extend(more.clone()),
            (Value::Array(items), Value::Array(more)) => items.extend(more.clone()),
            (own, value) => *own = value.clone(),
        }
    }
    whole
}

/// Whether a value is what a schema says, with no field that the schema does not know.
fn follows(schema: &Value, root: &Value, value: &Value) -> Result<(), String> {
    let schema = &whole(schema, root);
    for choices in ["oneOf", "anyOf"].iter().filter_map(|key| schema[*key].as_array()) {
        let wrong: Vec<String> =
            choices.iter().filter_map(|choice| follows(choice, root, value).err()).collect();
        if wrong.len() == choices.len() {
            return Err(wrong.join("; "));
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{value} is not {}", schema["const"]));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Err(format!("{value} is none of {values:?}"));
    }
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        other => panic!("the schema has a type {other:?}"),
    };
    let right = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    };
    if !right {
        return Err(format!("{value} is no {}", schema["type"]));
    }
    for item in value.as_array().into_iter().flatten() {
        follows(&schema["items"], root, item)?;
    }
    let of_choices = schema.get("properties").is_none();
    for (key, field) in value.as_object().into_iter().flatten().filter(|_| !of_choices) {
        let known = schema["properties"].get(key).ok_or_else(|| format!("{key} is not in the schema"))?;
        follows(known, root, field)?;
    }
    let required = schema["required"].as_array().into_iter().flatten();
    match required.into_iter().find(|key| value.get(key.as_str().unwrap()).is_none()) {
        Some(missing) if value.is_object() => Err(format!("{missing} is missing")),
        _ => Ok(()),
    }
}

fn lines(ran: &Ran, schema: &Value) -> Vec<Value> {
    let lines = ran.out.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        follows(schema, schema, &value).unwrap_or_else(|wrong| panic!("{wrong}: {line}"));
        value
    });
    lines.collect()
}

fn of_status<'a>(lines: &'a [Value], status: &str) -> &'a Value {
    lines.iter().find(|line| line["status"] == status).unwrap_or_else(|| panic!("{status}: {lines:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_are_as_their_schema_says() {
    let ferry = Ferry::new();
    let schema = ferry.run(&["schema", "copy"]).await.ok();
    let schema: Value = serde_json::from_str(&schema.out).unwrap();
    for wrong in ["{}", r#"{"type":"image"}"#, r#"{"type":"summary","more":1}"#] {
        assert!(follows(&schema, &schema, &serde_json::from_str(wrong).unwrap()).is_err(), "{wrong}");
    }
    let (source, target) = (ferry.serve(&ferry.path("a"), 0).await, ferry.serve(&ferry.path("b"), 0).await);
    let (repository, tag) = ("team/app".parse().unwrap(), "v1".parse().unwrap());
    let image = image();
    let (digest, size) =
        (image.root.digest().to_string(), image.blobs.values().map(|b| b.len()).sum::<usize>());
    push(&[NamedImage { repository, tag, image }], &source.host()).await;
    let from = |tag: &str| format!("{}/team/app:{tag}", source.host());
    let to = format!("{}/mine:v1", target.host());
    let list = format!("{} {to}\n{} {}/absent\n", from("v1"), from("v2"), target.host());
    std::fs::write(ferry.path("list"), list).unwrap();
    let arguments = ["copy", "--from-file", "list", "--output", "json", "--commands", "docker,crictl"];

    let first = ferry.run(&arguments).await;
    assert_eq!(first.code, Some(1), "{first:?}");
    let said = lines(&first, &schema);
    let copied = of_status(&said, "copied");
    assert_eq!((copied["source"].as_str(), copied["target"].as_str()), (Some(&*from("v1")), Some(&*to)));
    assert_eq!(copied["digest"], digest);
    assert_eq!((&copied["blobs"]["sent"], &copied["blobs"]["bytes"]), (&2.into(), &size.into()));
    assert_eq!(
        copied["commands"],
        serde_json::json!([
            format!("docker pull {to} && docker tag {to} {}", from("v1")),
            format!("crictl pull {to}")
        ])
    );
    let failed = of_status(&said, "failed");
    assert_eq!((&failed["error"]["kind"], &failed["error"]["side"]), (&"notFound".into(), &"source".into()));
    assert_eq!(failed["error"]["hint"], "check the name and the tag of the source");
    assert!(failed.get("commands").is_none(), "{failed}");
    assert_eq!(first.err, "hint: check the name and the tag of the source\n");
    let summary = said.last().unwrap();
    assert_eq!((&summary["type"], &summary["exit"]), (&"summary".into(), &1.into()));

    let second = ferry.run(&arguments).await;
    let said = lines(&second, &schema);
    assert_eq!(of_status(&said, "unchanged")["commands"], copied["commands"]);
    let images = &said.last().unwrap()["images"];
    assert_eq!(*images, serde_json::json!({"copied": 0, "unchanged": 1, "failed": 1, "left": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unchanged_is_told_to_those_who_ask_and_failures_are_repeated_after_many_lines() {
    let ferry = Ferry::new();
    let served = ferry.serve(&ferry.path("a"), 0).await;
    let (repository, tag) = ("team/app".parse().unwrap(), "v1".parse().unwrap());
    push(&[NamedImage { repository, tag, image: image() }], &served.host()).await;
    let host = served.host();
    let to = |n: u32| format!("{host}/team/app:v1 {host}/copies/{n}:v1\n");
    let mut list: String = (0..6).map(to).collect();
    std::fs::write(ferry.path("list"), &list).unwrap();
    let copied = ferry.run(&["copy", "--color", "always", "--from-file", "list"]).await.ok();
    assert_eq!(copied.out.matches("\x1b[32mcopied\x1b[0m     ").count(), 6, "{}", copied.out);

    list += &format!("{host}/absent:v1 {host}/copies/absent:v1\n");
    std::fs::write(ferry.path("list"), &list).unwrap();
    let again = ferry.run(&["copy", "--from-file", "list"]).await;
    let lines: Vec<&str> = again.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", again.out);
    assert!(lines[0].starts_with("failed ") && lines[1] == lines[0], "{}", again.out);
    assert!(lines[2].starts_with("7 images: 6 unchanged, 1 failed;"), "{}", again.out);
    let verbose = ferry.run(&["copy", "-v", "--from-file", "list", "--commands", "podman"]).await;
    assert_eq!(verbose.out.matches("unchanged  ").count(), 6, "{}", verbose.out);
    assert_eq!(verbose.out.matches("\n  podman pull ").count(), 6, "{}", verbose.out);
}

/// A registry that sends its clients elsewhere for blobs, with a signature; and the place that they are sent to.
async fn signing(image: Image) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let name = host.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && connection.read_buf(&mut request).await.unwrap() > 0 {}
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            let last = path.rsplit('/').next().unwrap();
            let (status, more, body) = match last.split_once('?') {
                Some((digest, "X-Amz-Signature=HIDDEN")) => {
                    (200, String::new(), image.blobs[&digest.parse().unwrap()].to_vec())
                }
                _ if path.contains("/blobs/") => {
                    let to = format!("location: http://{name}/elsewhere/{last}?X-Amz-Signature=HIDDEN\r\n");
                    (307, to, Vec::new())
                }
                _ => {
                    let mut all = image.manifests.iter();
                    let found = all.find(|one| one.digest().to_string() == last).unwrap_or(&image.root);
                    let kind = format!("content-type: {}\r\n", found.media_type());
                    (200, kind, found.bytes().to_vec())
                }
            };
            let head = format!(
                "HTTP/1.1 {status} x\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let body = if request.starts_with("HEAD") { Vec::new() } else { body };
            let _ = connection.write_all(&[head.into_bytes(), body].concat()).await;
        }
    });
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_of_requests_show_no_secrets() {
    let ferry = Ferry::new();
    let from = format!("{}/team/app:v1", signing(image()).await);
    for level in ["-vv", "-vvv"] {
        let target = FakeRegistry::start().await.unwrap();
        let login = Some(Login::new("me", "HIDDEN"));
        target.require(Auth::Bearer { login, lifetime: Duration::from_secs(300) });
        let to = format!("{}/mine:v1", target.address());
        let mut command = ferry.command(&["copy", level, &from, &to]);
        command.env("FERRY_TARGET_USERNAME", "me").env("FERRY_TARGET_PASSWORD", "HIDDEN");
        let output = command.output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("/elsewhere/sha256:") && said.contains("/token"), "requests are told: {said}");
        hides(&said);
    }
    let mut command = ferry.command(&["copy", "-vvv", "registry.invalid/a:1", "oci:new"]);
    command.env("HTTPS_PROXY", "http://me:HIDDEN@127.0.0.1:1").env("FERRY_SOURCE_PASSWORD", "HIDDEN");
    let output = command.env("FERRY_SOURCE_USERNAME", "me").output().await.unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("127.0.0.1:1"), "the proxy is told: {said}");
    hides(&said);
}

#[track_caller]
fn hides(said: &str) {
    let encoded = STANDARD.encode("me:HIDDEN");
    let line = |line: &&str| {
        ["HIDDEN", "Bearer ", "token-", "Signature", encoded.as_str()].iter().any(|s| line.contains(s))
    };
    let told: Vec<&str> = said.lines().filter(line).collect();
    assert!(told.is_empty(), "a secret was told: {told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_manual_pages_are_of_the_one_definition() {
    let ferry = Ferry::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = ferry.run(&["completions", shell]).await.ok().out;
        assert!(script.contains("completions") && script.contains("from-file"), "{shell}: {script}");
    }
    let script = ferry.run(&["completions", "bash"]).await.ok().out;
    std::fs::write(ferry.path("ferry.bash"), script).unwrap();
    let checked = tokio::process::Command::new("bash").arg("-n").arg(ferry.path("ferry.bash")).output().await;
    let checked = checked.unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");

    let page = ferry.run(&["man"]).await.ok().out;
    assert!(page.contains(".TH ferry 1"), "{page}");
    assert_eq!(ferry.run(&["man", "pages/man1"]).await.ok().out, "");
    let help = ferry.run(&["help"]).await.ok().out;
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<&str> = verbs
        .filter(|line| !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"copy") && verbs.contains(&"man"), "{verbs:?}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let page = std::fs::read_to_string(ferry.path(&format!("pages/man1/ferry-{verb}.1")));
        assert!(page.unwrap_or_else(|error| panic!("{verb}: {error}")).contains(".SH SYNOPSIS"), "{verb}");
    }
    assert!(ferry.path("pages/man1/ferry-storage-gc.1").exists());
    let file = ferry.path("file");
    std::fs::write(&file, "mine").unwrap();
    let wrong = ferry.run(&["man", "file/man1"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.err.starts_with("ferry: cannot write manual pages to file/man1: "), "{}", wrong.err);
}
