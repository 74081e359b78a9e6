//! Gives tokens, and looks at those that come back.

use std::sync::Arc;

use ferry_store::{Error, Kind, Result};

use super::Policy;
use super::keys::Keys;
use super::token::{self, ACCESS_LIFE, Claims, EARLIER, Purpose, REFRESH_LIFE, Unverified};

/// What a valid access token says; `None` for any other text.
pub(super) async fn verify(keys: &Arc<Keys>, policy: &Policy, text: &str) -> Option<Claims> {
    read(keys, policy, Purpose::Access, text).await
}

/// Whose refresh token this is; `None` for any other text.
pub(super) async fn refreshes(keys: &Arc<Keys>, policy: &Policy, text: &str) -> Option<String> {
    read(keys, policy, Purpose::Refresh, text).await?.user
}

async fn read(keys: &Arc<Keys>, policy: &Policy, purpose: Purpose, text: &str) -> Option<Claims> {
    let token = Unverified::parse(purpose, text)?;
    let (id, ring) = (token.key.to_owned(), Arc::clone(keys));
    let found = tokio::task::spawn_blocking(move || ring.find(&id)).await.ok()?;
    let key = found.inspect_err(|error| tracing::debug!(%error, "a token's key")).ok()??;
    let claims = token.verify(&key)?;
    (claims.hold(&policy.service, keys.now()) && is_known(policy, &claims)).then_some(claims)
}

/// Whether the user is still there, with the same password.
fn is_known(policy: &Policy, claims: &Claims) -> bool {
    let Some(user) = &claims.user else { return claims.password.is_none() };
    let now = policy.users.as_ref().and_then(|users| users.fingerprint(user));
    now.is_some() && now == claims.password
}

/// A token for `user`, or for anybody.
///
/// # Errors
/// If there is no key and none can be made.
pub(super) async fn give(
    keys: &Arc<Keys>,
    policy: &Policy,
    purpose: Purpose,
    user: Option<&str>,
    scopes: Vec<String>,
) -> Result<String> {
    let ring = Arc::clone(keys);
    let failed = |detail: &str| Error::new(Kind::Unavailable, "sign", "a token", detail);
    let key = tokio::task::spawn_blocking(move || ring.newest()).await;
    let key = key.map_err(|e| failed(&e.to_string()))??;
    let now = keys.now();
    let life = match purpose {
        Purpose::Access => ACCESS_LIFE,
        Purpose::Refresh => REFRESH_LIFE,
    };
    let claims = Claims {
        service: policy.service.clone(),
        user: user.map(str::to_owned),
        password: user.and_then(|user| policy.users.as_ref()?.fingerprint(user)),
        scopes,
        from: now.saturating_sub(EARLIER),
        until: now + life,
    };
    token::sign(purpose, &key, &claims).ok_or_else(|| failed("it cannot be written"))
}
