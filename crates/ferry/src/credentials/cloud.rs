//! Accounts of clouds, from the variables that the clouds' own programs read.

use std::time::SystemTime;

use ferry_oci::Registry;
use ferry_registry::{AwsKeys, Cloud, Credential, Secret};
use ferry_store::{Error, Kind, Result};

use super::{Logins, failed};
use crate::config::CloudName;

impl Logins {
    /// The account that a cloud gives for `registry`.
    pub(super) async fn cloud(&self, cloud: CloudName, registry: &Registry) -> Result<Option<Credential>> {
        let asked = match cloud {
            CloudName::Aws => Cloud::Aws(self.aws_keys(registry)?),
            CloudName::Google => match self.variable("GOOGLE_APPLICATION_CREDENTIALS") {
                Some(path) => return self.google_key(&path, registry).await.map(Some),
                None => Cloud::Google(self.url("GCE_METADATA_HOST", registry)?),
            },
            CloudName::Azure => {
                match (self.variable("AZURE_CLIENT_ID"), self.variable("AZURE_CLIENT_SECRET")) {
                    (Some(username), Some(password)) => {
                        let password = Secret::new(password);
                        return Ok(Some(Credential::Password { username, password }));
                    }
                    _ => Cloud::Azure(self.url("AZURE_POD_IDENTITY_AUTHORITY_HOST", registry)?),
                }
            }
        };
        let Some(clouds) = &self.clouds else { return Ok(None) };
        clouds.account(&asked, registry, SystemTime::now()).await.map(Some)
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.environment.variable(name)
    }

    fn aws_keys(&self, registry: &Registry) -> Result<AwsKeys> {
        let needed = |name: &str| {
            let detail = format!("the environment variable {name} is not set");
            self.variable(name).ok_or_else(|| failed(registry, detail))
        };
        Ok(AwsKeys {
            access_key: needed("AWS_ACCESS_KEY_ID")?,
            secret_key: Secret::new(needed("AWS_SECRET_ACCESS_KEY")?),
            session_token: self.variable("AWS_SESSION_TOKEN").map(Secret::new),
            endpoint: self.url("AWS_ENDPOINT_URL_ECR", registry)?,
        })
    }

    /// A key file is itself the password (cloud.google.com, "Configure authentication to Artifact Registry").
    async fn google_key(&self, path: &str, registry: &Registry) -> Result<Credential> {
        let key = tokio::fs::read_to_string(path).await;
        let wrong =
            |detail: &str| failed(registry, format!("GOOGLE_APPLICATION_CREDENTIALS: {path}: {detail}"));
        let key = key.map_err(|e| wrong(&e.to_string()))?;
        let kind = serde_json::from_str::<serde_json::Value>(&key).ok();
        if kind.is_none_or(|key| key["type"] != "service_account") {
            return Err(wrong("it is no key of a service account, and nothing else can be a password"));
        }
        Ok(Credential::Password { username: "_json_key".to_owned(), password: Secret::new(key) })
    }

    fn url(&self, name: &str, registry: &Registry) -> Result<Option<url::Url>> {
        let Some(text) = self.variable(name) else { return Ok(None) };
        let whole = if text.contains("://") { text } else { format!("http://{text}") };
        let bad =
            |_| Error::new(Kind::Invalid, "look up the login of", registry, format!("{name} is no URL"));
        whole.parse().map(Some).map_err(bad)
    }
}
