//! `ferry.yaml`: one configuration for all verbs, read whole and checked whole before anything is opened or bound.

mod access;
mod content;
mod limits;
mod mirror;
mod operation;
mod page;
mod registries;
mod schema;
mod text;
mod tls;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

pub(crate) use access::{AccessConfig, AccessRule, Grants, Login, Otherwise};
pub(crate) use content::{S3Config, StyleConfig};
pub(crate) use limits::{LimitsConfig, QuotaConfig, Rate};
pub(crate) use mirror::{Blobs, DefaultUpstream, FreshnessConfig, Listed, MirrorConfig, Switch};
pub(crate) use operation::{AdminConfig, LogFormat};
pub(crate) use page::ShownTo;
pub(crate) use registries::{Registries, fetch_now};
pub(crate) use schema::{Account, CloudName, Config, MirrorPlace, Which};
pub(crate) use text::{OneOrMore, Parsed, Size, Source};
pub(crate) use tls::{AcmeConfig, CertificateConfig, ChallengeName, HttpsConfig};

use crate::Environment;

/// The most that a configuration file may hold, in bytes.
const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// A configuration as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    /// Where it was read; `None` if there is none.
    pub(crate) path: Option<PathBuf>,
    pub(crate) config: Config,
}

impl Loaded {
    /// Reads the file that was `given`, else the first of the usual ones that exists. The directory that ferry happens to
    /// run in is not among them: a configuration can name commands to be run, and whoever unpacks an archive does not
    /// mean to.
    ///
    /// # Errors
    /// If a file that was named is missing, or a file cannot be read or is not understood, with line and column.
    pub(crate) fn find(given: Option<&Path>, environment: &Environment) -> anyhow::Result<Self> {
        let named =
            given.map(Path::to_owned).or_else(|| environment.variable("FERRY_CONFIG").map(PathBuf::from));
        if let Some(path) = named {
            let text = read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            return Self::parse(path, &text);
        }
        for path in environment.config_files() {
            match read(&path) {
                Ok(text) => return Self::parse(path, &text),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
            }
        }
        Ok(Self::default())
    }

    fn parse(path: PathBuf, text: &str) -> anyhow::Result<Self> {
        match parse::<Config>(text) {
            Ok(config) => Ok(Self { path: Some(path), config }),
            Err(mistake) => bail!("{}", mistake.within(&path)),
        }
    }

    /// The same with other rules of access, which somebody has sent as `text`. What it does not say stays, apart from the rules
    /// and what counts where none fits.
    ///
    /// # Errors
    /// If the text is not understood, with line and column.
    pub(crate) fn with_access(&self, text: &str) -> anyhow::Result<Self> {
        let sent: Option<AccessConfig> =
            parse(text).map_err(|mistake: Mistake| anyhow!(mistake.within(Path::new("access"))))?;
        let sent = sent.context("write what serve: access: holds, as in rules: [{allow: read}]")?;
        let mut loaded = self.clone();
        let access = &mut loaded.config.serve.get_or_insert_default().access;
        *access = Some(sent.or(access.take().unwrap_or_default()));
        Ok(loaded)
    }

    /// Who may use the registry, if that is said.
    pub(crate) fn access(&self) -> Option<&AccessConfig> {
        self.config.serve.as_ref()?.access.as_ref()
    }

    /// The name of the file in messages.
    pub(crate) fn name(&self) -> String {
        self.path.as_deref().unwrap_or(Path::new("ferry.yaml")).display().to_string()
    }

    /// Relative paths are relative to the file that they are written in.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        let directory = self.path.as_deref().and_then(Path::parent);
        directory.map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is no configuration: larger than 4 MiB"));
    }
    fs::read_to_string(path)
}

/// What is wrong, and where.
#[derive(Debug)]
struct Mistake {
    line: u64,
    column: u64,
    what: String,
}

impl Mistake {
    fn within(&self, path: &Path) -> String {
        let Self { line, column, what } = self;
        format!("{}:{line}:{column}: {what}", path.display())
    }
}

/// Parses a configuration. The text itself is never repeated in an error: it may hold what should not be shown.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let text = error.to_string();
        let what =
            text.rsplit_once(&format!("line {line} column {column}: ")).map_or(&*text, |(_, what)| what);
        // The parser's own advice is about its options, and the place is said already.
        let what = what.trim().trim_end_matches(", set DuplicateKeyPolicy in Options if acceptable");
        let what = what.trim_end_matches(&format!(" at line {line}, column {column}"));
        Mistake { line, column, what: plainly(what) }
    })
}

/// What the parser says about shapes, for people.
fn plainly(what: &str) -> String {
    match what {
        "expected sequence start" => "a list is needed here: [ONE, ANOTHER]".to_owned(),
        "expected mapping start" => "names with values are needed here: NAME: VALUE".to_owned(),
        other => other.to_owned(),
    }
}

/// The JSON schema of the configuration, for editors.
pub(crate) fn json_schema() -> String {
    let schema = schemars::schema_for!(Config);
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

impl fmt::Display for Config {
    /// As it would be written. Secrets are shown as where they come from, which is how they are written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(serde_saphyr::to_string(self).unwrap_or_default().trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_their_place_and_without_secrets() {
        for (text, expected) in [
            ("registries:\n  quay.io:\n    acounts: []\n", "f:3:5: unknown field `acounts`, expected one of"),
            ("registries:\n  quay.io: {}\n  quay.io: {}\n", "f:3:3: duplicate mapping key: quay.io"),
            ("registries:\n  not a host: {}\n", "f:2:3: \"not a host\" is not a valid registry: "),
            (
                "registries:\n  quay.io:\n    accounts:\n      - username: me\n        password: hunter2\n",
                "f:5:19: a secret is not written here; say where it is: {env: NAME}, {file: PATH} or {command: [PROGRAM, ...]}",
            ),
            ("registries:\n  quay.io:\n    proxy: ftp://me:hunter2@x\n", "f:3:12: the address of a proxy"),
            ("registries:\n  quay.io:\n    allow_networks: [10.0.0.0/33]\n", "f:3:22: "),
            (
                "registries:\n  quay.io:\n    accounts:\n      - {password: {env: A}}\n",
                "f:4:9: an account is",
            ),
            ("registries:\n  quay.io:\n    tls: {min_version: 1.1}\n", "f:3:24: \"1.2\" or \"1.3\""),
            ("registries: [\n", "f:1:13: names with values are needed here"),
            ("registries:\n  quay.io: {mirrors: a}\n", "f:2:22: a list is needed here"),
            (
                "registries:\n  https://quay.io: {}\n",
                "f:2:3: \"https://quay.io\" is not a valid registry: write it without scheme",
            ),
            (
                "serve:\n  mirror:\n    upstreams: [https://quay.io]\n",
                "f:3:17: \"https://quay.io\" is not a valid registry",
            ),
            ("serve: {mirror: {hosted: ['a b']}}\n", "f:1:27: \"a b\" is not a valid pattern"),
            (
                "serve: {mirror: {freshness: {moving: soon}}}\n",
                "f:1:38: a time is needed, as in 0s, 90s or 7d",
            ),
            ("serve: {mirror: {freshness: {rules: [{tags: a}]}}}\n", "f:1:39: missing field `for`"),
            ("serve: {mirror: {ttl: 1m}}\n", "f:1:18: unknown field `ttl`"),
            ("serve: {page: {figures: me}}\n", "f:1:25: unknown variant `me`"),
            (
                "serve: {mirror: {upstreams: [builtin]}}\n",
                "f:1:30: \"builtin\" is not a valid registry: write built_in",
            ),
            ("serve:\n  mirror:\n", "f:2:9: nothing is written here; write {} if all shall be usual"),
            ("serve: {access: , size_limit: 1GB}\n", "f:1:15: nothing is written here"),
            ("serve: {size_limit: 200}\n", "f:1:21: write a number and a unit, as in 500kB"),
            (
                "registries: {quay.io: {mirrors: ['https://a.b/c']}}\n",
                "f:1:34: \"https://a.b/c\" is not a valid registry: write it without scheme",
            ),
            ("sync: {}\n", "f:1:1: unknown field `sync`"),
        ] {
            let mistake = parse::<Config>(text).unwrap_err().within(Path::new("f"));
            assert!(mistake.starts_with(expected), "{mistake}\nexpected {expected}");
            assert!(!mistake.contains("hunter2"), "{mistake}");
        }
    }

    #[test]
    fn everything_that_can_be_written_is_read_and_shown() {
        let text = r#"
registries:
  docker.io:
    accounts:
      - {username: one, password: {env: ONE}}
      - {username: two, password: {file: secrets/two}}
      - {identity_token: {command: [pass, show, hub]}}
      - {helper: desktop}
      - {cloud: aws}
    mirrors: [mirror.example.com:5000/hub]
  registry.example.com:5000:
    plain_http: false
    tls: {ca: [ca.pem], certificate: me.pem, key: me.key, min_version: "1.3", insecure: false}
    proxy: socks5://proxy.example.com:1080
    allow_networks: [10.0.0.0/8]
    upload: {chunks: 10MB}
    profile: harbor
  "*":
    proxy: {env: PROXY}
serve:
  storage: images
  listen: ["127.0.0.1:5000", "[::1]:5000"]
  open: false
  tls:
    listen: "127.0.0.1:5443"
    certificates: [{certificate: tls.crt, key: tls.key}]
    acme:
      agree: true
      directory: https://acme.example.com/directory
      ca: ca.pem
      contact: [me@example.com]
      external_account: {id: me, key: {file: hmac}}
      challenge: dns-01
      hook: [/etc/ferry/alidns]
      settle: 20s
      names: [example.com, "*.example.com"]
    redirect: true
  mirror:
    domain: cr.example.cn
    upstreams: [built_in, registry.example.com:5000]
    aliases: {registry.example.com:5000: [example, hub.example.cn]}
    default: none
    default_at: {quay.example.cn: quay.io}
    hosted: team/**
    freshness: {moving: 30s, version_like: 7d, rules: [{tags: "nightly-*", for: 0s}]}
    keep_withdrawn: 0s
  page: {enabled: true, figures: hidden}
"#;
        let config: Config = parse(text).unwrap();
        let shown = config.to_string();
        assert_eq!(parse::<Config>(&shown).unwrap().to_string(), shown, "what is shown can be read again");
        assert!(json_schema().contains("allow_networks"));
        assert!(parse::<Config>("").is_ok(), "an empty file says nothing");
    }
}
