use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use ferry_oci::{Digest, Name, Registry};
use ferry_store::{Result, Side};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be sent to the host that it belongs to and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What proves to a registry who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name with a password or an access token used as one.
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, to be exchanged at the registry's token server (Docker's `identitytoken`).
    IdentityToken(Secret),
    /// A bearer token that the registry itself takes (Docker's `registrytoken`).
    RegistryToken(Secret),
}

/// What credentials are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Who demands them.
    pub registry: &'a Registry,
    /// The repository that is read or written; `None` for what concerns the whole registry.
    pub repository: Option<&'a Name>,
    /// On which side of a copy the registry stands, if that is known.
    pub side: Option<Side>,
}

/// Where credentials come from.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The accounts to use, the preferred one first: the next one is used when the quota of those before it is used up.
    /// None to go on anonymously.
    ///
    /// Asked only after the registry has demanded authorization, and again after it refused the answer; in between
    /// the answer is remembered.
    async fn find(&self, asked: &Asked<'_>) -> Result<Vec<Credential>>;
}

/// No credentials for anyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn find(&self, _: &Asked<'_>) -> Result<Vec<Credential>> {
        Ok(Vec::new())
    }
}

/// A credential, or none, with a name that tells it from others without giving it away.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) credential: Option<Credential>,
    pub(crate) key: Digest,
}

impl Identity {
    pub(crate) fn new(credential: Option<Credential>) -> Self {
        let text = match &credential {
            None => "anonymous".to_owned(),
            Some(Credential::Password { username, password }) => {
                format!("password\n{username}\n{}", password.expose())
            }
            Some(Credential::IdentityToken(token)) => format!("identity\n{}", token.expose()),
            Some(Credential::RegistryToken(token)) => format!("registry\n{}", token.expose()),
        };
        Self { credential, key: Digest::sha256(text.as_bytes()) }
    }
}

/// Nobody in particular.
pub(crate) fn anonymous() -> Arc<Identity> {
    static ANONYMOUS: OnceLock<Arc<Identity>> = OnceLock::new();
    Arc::clone(ANONYMOUS.get_or_init(|| Arc::new(Identity::new(None))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let credential = Credential::Password { username: "me".to_owned(), password: Secret::new("hunter2") };
        let identity = Identity::new(Some(credential));
        assert!(!format!("{identity:?}").contains("hunter2"));
        assert_eq!(Secret::new("hunter2").to_string(), "[secret]");
    }
}
