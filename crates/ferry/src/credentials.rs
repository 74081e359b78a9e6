//! Which account is shown to a registry: what the environment says for a side of this run, else what is configured, else
//! what `ferry login`, `podman login` and `docker login` left.

mod auth_file;
mod cloud;
mod configured;
mod fresh;
mod helper;
mod login;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use ferry_oci::{Name, Registry};
use ferry_registry::{Asked, ClientOptions, Clouds, Credential, Credentials, Secret};
use ferry_store::{Error, Kind, Result, Side};

use self::auth_file::{AuthFile, Entry};
use self::fresh::Fresh;
use crate::Environment;
use crate::config::{Account, Registries, Source};

pub(crate) use configured::Configured;
pub(crate) use helper::is_helper_name;
pub(crate) use login::{LogIn, log_in, log_out, read_password};

/// Under which key logins to Docker Hub are kept.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The name of a registry in files and towards helpers.
fn key_of(registry: &Registry) -> String {
    if registry.is_docker_hub() { DOCKER_HUB_KEY.to_owned() } else { registry.to_string() }
}

/// The accounts that the environment names for a side of a copy, each for one registry.
#[derive(Debug, Clone, Default)]
pub(crate) struct OfSides {
    pub(crate) source: Option<(Registry, Credential)>,
    pub(crate) target: Option<(Registry, Credential)>,
}

impl OfSides {
    fn find(&self, asked: &Asked<'_>) -> Option<Credential> {
        let of_side = match asked.side? {
            Side::Source => self.source.as_ref()?,
            Side::Target => self.target.as_ref()?,
        };
        (of_side.0 == *asked.registry).then(|| of_side.1.clone())
    }
}

/// Finds credentials.
pub(crate) struct Logins {
    of_sides: OfSides,
    registries: Registries,
    files: Vec<PathBuf>,
    environment: Environment,
    clouds: Option<Clouds>,
    fresh: Fresh,
}

impl Logins {
    /// `options` say how clouds are reached, if an account is one's.
    ///
    /// # Errors
    /// As [`Clouds::new`].
    pub(crate) fn new(
        of_sides: OfSides,
        registries: Registries,
        environment: Environment,
        options: &ClientOptions,
    ) -> Result<Self> {
        let files = environment.auth_files();
        let of_cloud = |account: &Account| matches!(account, Account::Cloud(_));
        let clouds = registries.accounts.values().flatten().any(of_cloud).then(|| Clouds::new(options));
        let (clouds, fresh) = (clouds.transpose()?, Fresh::default());
        Ok(Self { of_sides, registries, files, environment, clouds, fresh })
    }

    async fn account(&self, registry: &Registry, account: &Account) -> Result<Option<Credential>> {
        let secret = |source| self.secret(registry, source);
        Ok(match account {
            Account::Password { username, password } => {
                Some(Credential::Password { username: username.clone(), password: secret(password).await? })
            }
            Account::IdentityToken(token) => Some(Credential::IdentityToken(secret(token).await?)),
            Account::Helper(name) => helper::get(name, registry).await?,
            Account::Cloud(cloud) => self.cloud(*cloud, registry).await?,
        })
    }

    async fn secret(&self, registry: &Registry, source: &Source) -> Result<Secret> {
        let text = match source {
            Source::Env(name) => self
                .environment
                .variable(name)
                .ok_or_else(|| failed(registry, format!("the environment variable {name} is not set")))?,
            Source::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|e| failed(registry, format!("{}: {e}", path.display())))?,
            Source::Command(words) => helper::output(registry, words).await?,
        };
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(failed(registry, "the secret that is configured for it is empty"));
        }
        Ok(Secret::new(secret))
    }

    /// What a login left; the first file that knows the registry decides.
    async fn left_by_login(&self, asked: &Asked<'_>) -> Result<Option<Credential>> {
        if let Some(text) = self.environment.variable("DOCKER_AUTH_CONFIG") {
            let file = AuthFile::parse(&text).map_err(|e| {
                failed(asked.registry, format!("the environment variable DOCKER_AUTH_CONFIG: {e}"))
            })?;
            if let Some(Entry::Here(credential)) = file.find(asked.registry, asked.repository) {
                return Ok(Some(credential));
            }
        }
        for path in &self.files {
            if let Some(found) = self.in_file(path, asked.registry, asked.repository).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn in_file(
        &self,
        path: &Path,
        registry: &Registry,
        repository: Option<&Name>,
    ) -> Result<Option<Credential>> {
        let text = match tokio::fs::read_to_string(path).await {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(registry, format!("{}: {e}", path.display()))),
        };
        let file =
            AuthFile::parse(&text).map_err(|e| failed(registry, format!("{}: {e}", path.display())))?;
        match file.find(registry, repository) {
            Some(Entry::Here(credential)) => Ok(Some(credential)),
            Some(Entry::Helper(name)) => {
                let key = format!("docker-credential-{name}");
                self.fresh.get(&key, registry, || helper::get(&name, registry)).await
            }
            None => Ok(None),
        }
    }
}

#[async_trait]
impl Credentials for Logins {
    async fn find(&self, asked: &Asked<'_>) -> Result<Vec<Credential>> {
        if let Some(credential) = self.of_sides.find(asked) {
            return Ok(vec![credential]);
        }
        let Some(accounts) = self.registries.accounts.get(asked.registry) else {
            return Ok(self.left_by_login(asked).await?.into_iter().collect());
        };
        let (mut found, mut wrong) = (Vec::new(), None);
        for (number, account) in accounts.iter().enumerate() {
            let key = format!("account {number}");
            match self.fresh.get(&key, asked.registry, || self.account(asked.registry, account)).await {
                Ok(account) => found.extend(account),
                Err(error) => {
                    tracing::warn!("{error}");
                    wrong = Some(error);
                }
            }
        }
        // One that works is enough.
        match wrong {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }
}

fn failed(registry: &Registry, detail: impl Into<String>) -> Error {
    Error::new(Kind::Unauthorized, "look up the login of", registry, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(environment: Environment) -> Logins {
        let options = ClientOptions::default();
        Logins::new(OfSides::default(), Registries::default(), environment, &options).unwrap()
    }

    async fn find(config: &str, registry: &str, repository: &str) -> Result<Vec<Credential>> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        let variable = ("DOCKER_CONFIG".to_owned(), directory.path().display().to_string());
        let environment: Environment = [variable].into_iter().collect();
        let logins = logins(environment);
        let (registry, repository) = (registry.parse().unwrap(), repository.parse().unwrap());
        logins.find(&Asked { registry: &registry, repository: Some(&repository), side: None }).await
    }

    #[tokio::test]
    async fn logins_are_found_in_files() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="}}}"#;
        match &find(config, "docker.io", "library/x").await.unwrap()[..] {
            [Credential::Password { username, password }] => {
                assert_eq!((username.as_str(), password.expose()), ("user", "pa:ss"));
            }
            other => panic!("{other:?}"),
        }
        assert!(find(config, "quay.io", "x").await.unwrap().is_empty());
        assert!(find("{nonsense", "quay.io", "x").await.is_err());
        assert!(find("", "quay.io", "x").await.unwrap().is_empty(), "an empty file says nothing");
    }

    #[tokio::test]
    async fn secrets_come_from_where_they_are_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "from file\r\n").unwrap();
        let environment = [("SECRET".to_owned(), "from env".to_owned())].into_iter().collect();
        let logins = logins(environment);
        let registry: Registry = "quay.io".parse().unwrap();
        let command = ["sh", "-c", "echo from command; echo noise >&2"].map(str::to_owned).to_vec();
        for (source, expected) in [
            (Source::Env("SECRET".to_owned()), "from env"),
            (Source::File(file), "from file"),
            (Source::Command(command), "from command"),
        ] {
            assert_eq!(logins.secret(&registry, &source).await.unwrap().expose(), expected);
        }
        let failing = ["sh", "-c", "echo hunter2; echo hunter2 >&2; exit 1"].map(str::to_owned).to_vec();
        for bad in [Source::Env("NONE".to_owned()), Source::File("/none".into()), Source::Command(failing)] {
            let error = logins.secret(&registry, &bad).await.unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
