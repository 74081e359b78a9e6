//! Docker's `config.json` (docker/cli `cli/config/configfile`) and podman's `auth.json` (containers-auth.json.5), which
//! is the same with keys that may have paths.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::{Name, Registry};
use ferry_registry::{Credential, Secret};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{is_helper_name, key_of};

/// What ferry reads of such a file. Others write more into it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct AuthFile {
    auths: HashMap<String, Auth>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Where a login is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// In the file itself.
    Here(Credential),
    /// Behind `docker-credential-NAME`.
    Helper(String),
}

impl AuthFile {
    /// Reads the text of such a file; an empty one says nothing.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // The message of the parser names the place and never the text.
        let file: Self = serde_json::from_str(text).map_err(|e| {
            format!(
                "line {}, column {}: it is no login file as docker and podman write it",
                e.line(),
                e.column()
            )
        })?;
        let names = file.store.iter().chain(file.helpers.values());
        match names.into_iter().find(|name| !name.is_empty() && !is_helper_name(name)) {
            Some(bad) => Err(format!("{bad:?} is no name of a credential helper")),
            None => Ok(file),
        }
    }

    /// The login for `repository` of `registry`: the entry with the longest path that it is in, else the helper of the
    /// registry, else the helper for all, else the entry of the registry.
    pub(super) fn find(&self, registry: &Registry, repository: Option<&Name>) -> Option<Entry> {
        let within = |host: &str| {
            let mut path = repository?.as_str();
            loop {
                let key = format!("{host}/{path}");
                if let Some(credential) = self.auths.get(&key).and_then(Auth::credential) {
                    return Some(Entry::Here(credential));
                }
                path = path.rsplit_once('/')?.0;
            }
        };
        let spellings = spellings(registry);
        spellings
            .iter()
            .find_map(|host| within(host))
            .or_else(|| self.helper(&spellings).map(|name| Entry::Helper(name.to_owned())))
            .or_else(|| self.whole(&spellings).map(Entry::Here))
    }

    fn helper(&self, spellings: &[String]) -> Option<&str> {
        let own = spellings.iter().find_map(|host| self.helpers.get(host));
        own.or(self.store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }

    fn whole(&self, spellings: &[String]) -> Option<Credential> {
        let exact = spellings.iter().find_map(|host| self.auths.get(host)?.credential());
        exact.or_else(|| {
            // Old logins are kept under URLs.
            let host_of = |key: &str| {
                let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"))?;
                Some(rest.split('/').next()?.to_owned())
            };
            let (_, auth) = self
                .auths
                .iter()
                .find(|(key, _)| host_of(key).is_some_and(|host| spellings.contains(&host)))?;
            auth.credential()
        })
    }
}

/// The names under which a registry may be found.
fn spellings(registry: &Registry) -> Vec<String> {
    if registry.is_docker_hub() {
        return ["docker.io", "index.docker.io", "registry-1.docker.io", super::DOCKER_HUB_KEY]
            .map(str::to_owned)
            .into();
    }
    vec![registry.to_string()]
}

impl Auth {
    fn credential(&self) -> Option<Credential> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Some(Credential::IdentityToken(Secret::new(token)));
        }
        if let Some(token) = some(&self.registrytoken) {
            return Some(Credential::RegistryToken(Secret::new(token)));
        }
        let (username, password) = match some(&self.auth) {
            Some(auth) => {
                let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
                let (username, password) = text.split_once(':')?;
                (username.to_owned(), password.trim_matches('\0').to_owned())
            }
            None => (some(&self.username)?, some(&self.password)?),
        };
        let password = Secret::new(password);
        (!username.is_empty()).then_some(Credential::Password { username, password })
    }
}

/// What storing a login came to.
pub(super) enum Kept {
    /// In the file, in the clear.
    InFile,
    /// The file says that `docker-credential-NAME` keeps logins.
    ByHelper(String),
}

/// Where logins to `registry` go according to the file.
pub(super) fn keeper(path: &Path, registry: &Registry) -> anyhow::Result<Kept> {
    let file = AuthFile::parse(&read(path)?).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    Ok(file.helper(&spellings(registry)).map_or(Kept::InFile, |name| Kept::ByHelper(name.to_owned())))
}

/// Whether the file has a login to `registry`.
pub(super) fn knows(path: &Path, registry: &Registry) -> anyhow::Result<bool> {
    let file = AuthFile::parse(&read(path)?).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    Ok(file.find(registry, None).is_some())
}

/// Writes a login into the file; everything else in it stays as it is. `None` only notes that a helper has the login, as
/// docker does.
pub(super) fn write(path: &Path, registry: &Registry, login: Option<(&str, &Secret)>) -> anyhow::Result<()> {
    let entry = match login {
        Some((username, password)) => {
            json!({"auth": STANDARD.encode(format!("{username}:{}", password.expose()))})
        }
        None => json!({}),
    };
    change(path, |auths| {
        auths.insert(key_of(registry), entry);
        true
    })
    .map(|_| ())
}

/// Removes the logins to a registry; false if there was none.
pub(super) fn remove(path: &Path, registry: &Registry) -> anyhow::Result<bool> {
    let spellings = spellings(registry);
    change(path, |auths| {
        let before = auths.len();
        auths.retain(|key, _| !spellings.contains(key));
        auths.len() < before
    })
}

fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> anyhow::Result<bool> {
    // The file itself may be somewhere else, as with files that are kept under version control.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let text = read(&path)?;
    let text = if text.trim().is_empty() { "{}" } else { &text };
    let mut file: Value = serde_json::from_str(text).map_err(|e| {
        anyhow::anyhow!("{}: line {}, column {}: it is no JSON", path.display(), e.line(), e.column())
    })?;
    let whole = file.as_object_mut().with_context(|| format!("{}: it is no login file", path.display()))?;
    let auths = whole.entry("auths").or_insert_with(|| json!({}));
    let Some(auths) = auths.as_object_mut() else { bail!("{}: \"auths\" is no object", path.display()) };
    let changed = change(auths);
    if changed {
        replace(&path, &format!("{file:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(changed)
}

/// Puts `text` in place of a file that only its owner may read.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let temporary = directory.join(format!(".ferry-login.{}", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn find(config: &str, registry: &str, repository: &str) -> Option<Entry> {
        let repository: Name = repository.parse().unwrap();
        AuthFile::parse(config).unwrap().find(&registry.parse().unwrap(), Some(&repository))
    }

    fn user(entry: Option<Entry>) -> String {
        match entry {
            Some(Entry::Here(Credential::Password { username, .. })) => username,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_longest_path_wins() {
        let entry = |name: &str| STANDARD.encode(format!("{name}:x"));
        let config = format!(
            r#"{{"auths": {{"quay.io/a/b": {{"auth": "{}"}}, "quay.io/a": {{"auth": "{}"}}, "quay.io": {{"auth": "{}"}}}},
            "credsStore": "none"}}"#,
            entry("long"),
            entry("short"),
            entry("host")
        );
        for (repository, expected) in [("a/b/c", "long"), ("a/b", "long"), ("a/c", "short"), ("a", "short")] {
            assert_eq!(user(find(&config, "quay.io", repository)), expected, "{repository}");
        }
        assert_eq!(find(&config, "quay.io", "ab"), Some(Entry::Helper("none".to_owned())));
        let config = config.replace("\"none\"", "\"\"");
        assert_eq!(user(find(&config, "quay.io", "ab")), "host");
        assert!(find(&config, "quay.io:8443", "a").is_none(), "another port is another registry");
    }

    #[test]
    fn every_form_of_login() {
        let config = r#"{"HttpHeaders": {"X": "y"}, "auths": {
            "https://old.example.com/v1/": {"username": "old", "password": "x"},
            "token.example.com": {"identitytoken": "t", "auth": "dTo="},
            "bearer.example.com": {"registrytoken": "t"},
            "marker.example.com": {}, "bad.example.com": {"auth": "!!"}, "nobody.example.com": {"auth": "Ong="}},
            "credHelpers": {"gcr.io": "gcloud"}}"#;
        assert_eq!(user(find(config, "old.example.com", "x")), "old");
        assert!(matches!(
            find(config, "token.example.com", "x"),
            Some(Entry::Here(Credential::IdentityToken(_)))
        ));
        assert!(matches!(
            find(config, "bearer.example.com", "x"),
            Some(Entry::Here(Credential::RegistryToken(_)))
        ));
        for none in ["marker.example.com", "bad.example.com", "nobody.example.com", "quay.io"] {
            assert_eq!(find(config, none, "x"), None, "{none}");
        }
        assert_eq!(find(config, "gcr.io", "x"), Some(Entry::Helper("gcloud".to_owned())));
        for bad in [r#"{"credsStore": "../../bin/sh"}"#, r#"{"credHelpers": {"a": "x y"}}"#, "{\"auths\": 1}"]
        {
            assert!(AuthFile::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_login_changes_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        let quay: Registry = "quay.io".parse().unwrap();
        write(&path, &quay, Some(("me", &Secret::new("hunter2")))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, fs::read_to_string(&path).unwrap().replacen('{', "{\"psFormat\": \"x\",", 1))
            .unwrap();
        write(&path, &"docker.io".parse().unwrap(), Some(("me", &Secret::new("x")))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("psFormat") && text.contains(super::super::DOCKER_HUB_KEY), "{text}");
        assert_eq!(user(find(&text, "quay.io", "x")), "me");
        assert!(remove(&path, &quay).unwrap() && !remove(&path, &quay).unwrap());
        assert_eq!(user(find(&fs::read_to_string(&path).unwrap(), "docker.io", "x")), "me");
        fs::write(&path, "[]").unwrap();
        assert!(write(&path, &quay, None).is_err(), "what is not understood is not overwritten");
        assert_eq!(fs::read_to_string(&path).unwrap(), "[]");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
    }
}
