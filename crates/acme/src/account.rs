use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ferry_store::{Error, Kind, Result};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use crate::client::{Client, Refused};
use crate::kept::Kept;

/// The problem that the account is not known (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The problem that too much was asked for (the same).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";

/// Who gives the certificates, and to whom. Its terms of service are agreed to by asking it.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The URL of its directory.
    pub directory: String,
    /// Root certificates (PEM) that its own certificate may come from, beside the system's.
    pub roots: Vec<Vec<u8>>,
    /// Addresses to which it may write, as URLs: `mailto:me@example.cn`.
    pub contact: Vec<String>,
    /// The account elsewhere that an account here has to belong to, if it wants one (RFC 8555 section 7.3.4).
    pub external: Option<External>,
}

/// An account at the authority that was made elsewhere.
#[derive(Clone)]
pub struct External {
    /// The key identifier.
    pub id: String,
    /// The HMAC key, decoded.
    pub key: Vec<u8>,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The way to an account, which is opened when it is needed.
pub(crate) struct Opener {
    authority: Authority,
    client: Client,
    refused: Refused,
    kept: Kept,
}

impl Opener {
    /// # Errors
    /// If a root is no certificate.
    pub(crate) fn new(authority: Authority, kept: Kept) -> Result<Self> {
        let refused = Refused::default();
        let client = Client::new(&authority.roots, Arc::clone(&refused))?;
        Ok(Self { authority, client, refused, kept })
    }

    /// The URL of the authority.
    pub(crate) fn name(&self) -> &str {
        &self.authority.directory
    }

    /// The account that was kept, else a new one, which is kept.
    ///
    /// # Errors
    /// Whatever the authority says.
    pub(crate) async fn open(&self) -> Result<Account> {
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        if let Some(kept) = self.kept.account()? {
            let credentials: AccountCredentials = serde_json::from_slice(&kept).map_err(|e| {
                self.error(instant_acme::Error::Other(
                    format!("the account that was kept is broken; remove it for a new one: {e}").into(),
                ))
            })?;
            return builder().from_credentials(credentials).await.map_err(|e| self.error(e));
        }
        let contact: Vec<&str> = self.authority.contact.iter().map(String::as_str).collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = self.authority.external.as_ref();
        let external = external.map(|external| ExternalAccountKey::new(external.id.clone(), &external.key));
        let (account, credentials) = builder()
            .create(&wanted, self.authority.directory.clone(), external.as_ref())
            .await
            .map_err(|e| self.error(e))?;
        let text = serde_json::to_vec(&credentials).map_err(|e| self.error(e.into()))?;
        self.kept.keep_account(&text)?;
        tracing::info!(authority = self.authority.directory, "there is an account now");
        Ok(account)
    }

    /// What the authority said, for those who do not know its protocol. An account that it does not know is forgotten,
    /// so that the next try makes a new one.
    pub(crate) fn error(&self, error: instant_acme::Error) -> Error {
        let problem = match &error {
            instant_acme::Error::Api(problem) => problem.r#type.as_deref(),
            _ => None,
        };
        if problem == Some(NO_ACCOUNT) {
            let _ = self.kept.forget_account();
        }
        let after = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kind = match problem {
            Some(RATE_LIMITED) => Kind::RateLimited { after },
            Some(_) => Kind::Denied,
            None => Kind::Unavailable,
        };
        Error::new(kind, "ask", &self.authority.directory, text(&error, after)).caused_by(error)
    }
}

fn text(error: &instant_acme::Error, after: Option<Duration>) -> String {
    let said = match error {
        instant_acme::Error::Api(problem) => {
            let own = problem.detail.as_deref().or(problem.r#type.as_deref()).unwrap_or("it refused");
            let parts = problem.subproblems.iter().map(|part| format!("; {part}"));
            format!("{own}{}", parts.collect::<String>())
        }
        other => other.to_string(),
    };
    match after {
        Some(after) => format!("{said} (try again in {after:?})"),
        None => said,
    }
}
