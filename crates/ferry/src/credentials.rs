use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;
use docker_credential::{CredentialRetrievalError as Failure, DockerCredential};
use ferry_oci::Registry;
use ferry_registry::{Asked, Credential, Credentials, Secret};
use ferry_store::{Error, Kind, Result};

/// Under which key `docker login` keeps Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What `docker login` left: Docker's configuration file and the credential helpers that it names.
pub(crate) struct DockerLogin {
    file: Option<PathBuf>,
    found: Mutex<HashMap<Registry, Option<Credential>>>,
}

impl DockerLogin {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, found: Mutex::default() }
    }
}

#[async_trait]
impl Credentials for DockerLogin {
    async fn find(&self, asked: &Asked<'_>) -> Result<Vec<Credential>> {
        let registry = asked.registry;
        let remembered = self.found.lock().ok().and_then(|found| found.get(registry).cloned());
        if let Some(remembered) = remembered {
            return Ok(remembered.into_iter().collect());
        }
        let Some(file) = self.file.clone() else { return Ok(Vec::new()) };
        let key = if registry.is_docker_hub() { DOCKER_HUB_KEY.to_owned() } else { registry.to_string() };
        // A helper is a program that may take its time.
        let asked = registry.clone();
        let looked_up = tokio::task::spawn_blocking(move || look_up(&file, &key, &asked)).await;
        let credential = looked_up.map_err(|e| failed(registry, &e.to_string()))??;
        if let Ok(mut found) = self.found.lock() {
            found.insert(registry.clone(), credential.clone());
        }
        Ok(credential.into_iter().collect())
    }
}

fn look_up(path: &PathBuf, key: &str, registry: &Registry) -> Result<Option<Credential>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(registry, &format!("{}: {e}", path.display()))),
    };
    match docker_credential::get_credential_from_reader(BufReader::new(file), key) {
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            Ok(Some(Credential::Password { username, password: Secret::new(password) }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credential::IdentityToken(Secret::new(token)))),
        Err(Failure::NoCredentialConfigured | Failure::ConfigNotFound) => Ok(None),
        Err(Failure::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => Ok(None),
        // The output of a helper may hold a secret and is not repeated.
        Err(Failure::HelperFailure { helper, .. }) => {
            Err(failed(registry, &format!("the credential helper docker-credential-{helper} failed")))
        }
        Err(e) => Err(failed(registry, &format!("{}: {e}", path.display()))),
    }
}

fn failed(registry: &Registry, detail: &str) -> Error {
    Error::new(Kind::Unauthorized, "look up the login of", registry, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_config(config: &str, registry: &str) -> Result<Vec<Credential>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let registry: Registry = registry.parse().unwrap();
        let login = DockerLogin::new(Some(path));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(login.find(&Asked { registry: &registry, repository: None, side: None }))
    }

    #[test]
    fn logins_are_found_by_registry() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="},
            "localhost:5000": {"identitytoken": "t", "auth": "dTo="}, "empty.example.com": {}}}"#;
        match &with_config(config, "docker.io").unwrap()[..] {
            [Credential::Password { username, password }] => {
                assert_eq!((username.as_str(), password.expose()), ("user", "pa:ss"));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(with_config(config, "localhost:5000").unwrap()[..], [Credential::IdentityToken(_)]));
        assert!(with_config(config, "quay.io").unwrap().is_empty());
        assert!(with_config(config, "empty.example.com").unwrap().is_empty());
        assert!(with_config("{nonsense", "quay.io").is_err());
    }

    #[test]
    fn no_file_is_no_login() {
        assert!(
            look_up(&"/nonexistent/config.json".into(), "quay.io", &"quay.io".parse().unwrap())
                .unwrap()
                .is_none()
        );
    }
}
