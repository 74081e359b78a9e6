use async_trait::async_trait;
use ferry_registry::{Asked, ClientOptions, Credential, Credentials};
use ferry_store::Result;

use super::{Logins, OfSides};
use crate::Environment;
use crate::config::Registries;

/// Only the accounts that are configured: what a mirror is shown it shows to others, and nobody logged in for that.
pub(crate) struct Configured(Logins);

impl Configured {
    /// `options` are those of the client.
    ///
    /// # Errors
    /// As [`Logins::new`].
    pub(crate) fn new(
        registries: Registries,
        environment: Environment,
        options: &ClientOptions,
    ) -> Result<Self> {
        Logins::new(OfSides::default(), registries, environment, options).map(Self)
    }
}

#[async_trait]
impl Credentials for Configured {
    async fn find(&self, asked: &Asked<'_>) -> Result<Vec<Credential>> {
        match self.0.registries.accounts.contains_key(asked.registry) {
            true => self.0.find(asked).await,
            false => Ok(Vec::new()),
        }
    }
}
