//! The hooks for dns-01 under `deploy/acme`, against servers that check what they are sent as the documentation of the two
//! services says. They need curl and openssl.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

/// The parameters of a request, decoded.
type Parameters = BTreeMap<String, String>;

/// What a server was asked: method and path, and parameters.
type Asked = Arc<Mutex<Vec<(String, Parameters)>>>;

const NAME: &str = "_acme-challenge.cr.example.cn";
const VALUE: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";

/// A DNS service on loopback.
struct Service {
    url: String,
    asked: Asked,
}

impl Service {
    async fn start(answer: fn(&str, &Parameters) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (line, text) = read(&mut stream).await;
                let parameters = parse(&text);
                let body = answer(&line, &parameters);
                seen.lock().unwrap().push((line, parameters));
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        });
        Self { url, asked }
    }

    /// What was asked, each as the value of one parameter, or the path.
    fn actions(&self, of: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let action = |(line, parameters): &(String, Parameters)| {
            parameters.get(of).cloned().unwrap_or_else(|| line.rsplit('/').next().unwrap().to_owned())
        };
        asked.iter().map(action).collect()
    }

    fn parameters(&self, at: usize) -> Parameters {
        self.asked.lock().unwrap()[at].1.clone()
    }
}

/// Method and path of a request, and its query or its body.
async fn read(stream: &mut tokio::net::TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the request is cut short");
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let length: usize = header.map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            break (head.to_owned(), length);
        }
    };
    let target = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let body = String::from_utf8(bytes[bytes.len() - length..].to_vec()).unwrap();
    match target.split_once('?') {
        Some((target, query)) => (target.to_owned(), query.to_owned()),
        None => (target, body),
    }
}

fn parse(text: &str) -> Parameters {
    url::form_urlencoded::parse(text.as_bytes()).map(|(key, value)| (key.into(), value.into())).collect()
}

/// Runs a hook and tells whether it succeeded, and what it said.
async fn run(hook: &str, arguments: [&str; 3], variables: &[(&str, &str)]) -> (bool, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/acme").join(hook);
    let output = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// Percent-encoding as Alibaba Cloud wants it.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The signature of a request by GET.
fn signature(parameters: &Parameters, secret: &str) -> String {
    let signed = parameters.iter().filter(|(key, _)| *key != "Signature");
    let pairs: Vec<String> =
        signed.map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
    let text = format!("GET&%2F&{}", encoded(&pairs.join("&")));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, format!("{secret}&").as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

#[test]
fn signatures_are_those_of_the_documentation() {
    let example = "AccessKeyId=testid&Action=DescribeRegions&Format=XML&SignatureMethod=HMAC-SHA1&\
        SignatureNonce=3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf&SignatureVersion=1.0&Timestamp=2016-02-23T12%3A46%3A24Z&\
        Version=2014-05-26";
    assert_eq!(signature(&parse(example), "testsecret"), "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
}

const SECRET: &str = "not+a/secret";

fn alidns(line: &str, parameters: &Parameters) -> String {
    assert_eq!(line, "GET /");
    let error = |code: &str| format!(r#"{{"RequestId":"1","Message":"said so","Code":"{code}"}}"#);
    let get = |name: &str| parameters.get(name).map_or("", String::as_str);
    if get("Signature") != signature(parameters, SECRET) {
        return error("SignatureDoesNotMatch");
    }
    match get("Action") {
        "DescribeDomainRecords" if get("DomainName") != "example.cn" => error("InvalidDomainName.NoExist"),
        "DescribeDomainRecords" if get("ValueKeyWord").is_empty() => {
            r#"{"RequestId":"1","TotalCount":0,"DomainRecords":{"Record":[]}}"#.to_owned()
        }
        "DescribeDomainRecords" => format!(
            r#"{{"TotalCount":2,"RequestId":"1","DomainRecords":{{"Record":[{{"RR":"x","Value":"other","RecordId":"11"}},{{"RR":"{}","Status":"ENABLE","Value":"{}","RecordId":"22","Type":"TXT"}}]}}}}"#,
            get("RRKeyWord"),
            get("ValueKeyWord")
        ),
        "AddDomainRecord" if get("Value") == "twice" => error("DomainRecordDuplicate"),
        "AddDomainRecord" | "DeleteDomainRecord" => r#"{"RequestId":"1","RecordId":"22"}"#.to_owned(),
        other => error(&format!("InvalidAction {other}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alidns_is_told_in_signed_requests() {
    let service = Service::start(alidns).await;
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let api = format!("{}/", service.url);
    let variables = [
        ("ALIDNS_API", &*api),
        ("ALIDNS_ACCESS_KEY_ID", "LTAI id"),
        ("ALIDNS_ACCESS_KEY_SECRET_FILE", file.to_str().unwrap()),
    ];
    let (done, said) = run("alidns", ["present", NAME, VALUE], &variables).await;
    assert!(done, "{said}");
    let expected = ["DescribeDomainRecords", "DescribeDomainRecords", "AddDomainRecord"];
    assert_eq!(service.actions("Action"), expected);
    let added = service.parameters(2);
    let field = |name: &str| added[name].as_str();
    assert_eq!(
        (field("DomainName"), field("RR"), field("Type")),
        ("example.cn", "_acme-challenge.cr", "TXT")
    );
    assert_eq!((field("Value"), field("AccessKeyId")), (VALUE, "LTAI id"));
    assert_ne!(added["SignatureNonce"], service.parameters(1)["SignatureNonce"]);

    let known = [&variables[..], &[("ALIDNS_ZONE", "example.cn")]].concat();
    let (done, said) = run("alidns", ["cleanup", NAME, VALUE], &known).await;
    assert!(done, "{said}");
    assert_eq!(service.actions("Action")[3..], ["DescribeDomainRecords", "DeleteDomainRecord"]);
    assert_eq!(service.parameters(4)["RecordId"], "22", "and no other record");
    assert!(run("alidns", ["present", NAME, "twice"], &known).await.0, "it is there already");
}

#[tokio::test(flavor = "multi_thread")]
async fn alidns_says_why_it_failed() {
    let service = Service::start(alidns).await;
    let api = format!("{}/", service.url);
    let variables =
        [("ALIDNS_API", &*api), ("ALIDNS_ACCESS_KEY_ID", "id"), ("ALIDNS_ACCESS_KEY_SECRET", "wrong")];
    let (done, said) = run("alidns", ["present", NAME, VALUE], &variables).await;
    assert!(!done && said.contains("SignatureDoesNotMatch"), "{said}");
    let right = [&variables[..2], &[("ALIDNS_ACCESS_KEY_SECRET", SECRET)]].concat();
    let (done, said) = run("alidns", ["present", "_acme-challenge.a.example.org", VALUE], &right).await;
    assert!(!done && said.contains("none of the domains of this account is above"), "{said}");
    let (done, said) = run("alidns", ["present", NAME, VALUE], &[]).await;
    assert!(!done && said.contains("set ALIDNS_ACCESS_KEY_ID"), "{said}");
}

fn dnspod(line: &str, parameters: &Parameters) -> String {
    let status =
        |code: &str| format!(r#"{{"status":{{"code":"{code}","message":"said so","created_at":"x"}}"#);
    let get = |name: &str| parameters.get(name).map_or("", String::as_str);
    if (get("login_token"), get("format")) != ("13490,6b5976c68aba5b14a0558b77c17c3932", "json") {
        return status("-1") + "}";
    }
    if line == "POST /Record.Remove" {
        return status("1") + "}";
    }
    if get("domain") != "example.cn" {
        return status("6") + "}";
    }
    match line {
        "POST /Domain.Info" => status("1") + r#","domain":{"id":"1992403","name":"example.cn"}}"#,
        "POST /Record.Create" if get("record_line") == "默认" && get("value") == "twice" => {
            status("104") + "}"
        }
        "POST /Record.Create" if get("record_line") == "默认" => status("1") + r#","record":{"id":"22"}}"#,
        "POST /Record.List" if get("sub_domain") == "_acme-challenge.none" => status("10") + "}",
        "POST /Record.List" => {
            let record = |id: u32, value: &str| {
                format!(r#"{{"id":"{id}","ttl":"600","value":"{value}","enabled":"1"}}"#)
            };
            format!(r#"{},"records":[{},{}]}}"#, status("1"), record(11, "other"), record(22, VALUE))
        }
        other => status(other) + "}",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dnspod_is_told_with_the_token() {
    let service = Service::start(dnspod).await;
    let variables =
        [("DNSPOD_API", &*service.url), ("DNSPOD_TOKEN", "13490,6b5976c68aba5b14a0558b77c17c3932")];
    let (done, said) = run("dnspod", ["present", NAME, VALUE], &variables).await;
    assert!(done, "{said}");
    assert_eq!(service.actions("-"), ["Domain.Info", "Domain.Info", "Record.Create"]);
    let added = service.parameters(2);
    let field = |name: &str| added[name].as_str();
    assert_eq!(
        (field("sub_domain"), field("record_type"), field("value")),
        ("_acme-challenge.cr", "TXT", VALUE)
    );

    let known = [&variables[..], &[("DNSPOD_ZONE", "example.cn")]].concat();
    let (done, said) = run("dnspod", ["cleanup", NAME, VALUE], &known).await;
    assert!(done, "{said}");
    assert_eq!(service.actions("-")[3..], ["Record.List", "Record.Remove"]);
    assert_eq!(service.parameters(4)["record_id"], "22", "and no other record");
    for arguments in [["present", NAME, "twice"], ["cleanup", "_acme-challenge.none.example.cn", VALUE]] {
        let (done, said) = run("dnspod", arguments, &known).await;
        assert!(done, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dnspod_says_why_it_failed() {
    let service = Service::start(dnspod).await;
    let wrong = [("DNSPOD_API", &*service.url), ("DNSPOD_TOKEN", "1,wrong")];
    let (done, said) = run("dnspod", ["present", NAME, VALUE], &wrong).await;
    assert!(!done && said.contains("-1") && said.contains("said so"), "{said}");
    assert!(!said.contains("wrong"), "the token is not repeated: {said}");
    let (done, said) = run("dnspod", ["present", NAME, VALUE], &[]).await;
    assert!(!done && said.contains("set DNSPOD_TOKEN"), "{said}");
}
