//! Bearer tokens (distribution `docs/content/spec/auth/token.md` and `oauth.md`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::Kind;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::warn;
use url::{Url, form_urlencoded};

use crate::auth::basic_header;
use crate::credential::{Credential, Identity, Secret};
use crate::error::{Failure, Tried, What, answered};
use crate::host::Host;
use crate::realm::may_receive_credentials;
use crate::request::{Answer, collect, error_body};
use crate::transport::{Cargo, Hop, host};

/// The largest answer of a token server.
const MAX_ANSWER: u64 = 1024 * 1024;
/// How long a token lives that does not say so, and the least that one is believed to live.
const MIN_LIFE: u64 = 60;
/// How long before its end a token is renewed.
const EARLY: Duration = Duration::from_secs(10);
/// From how many tokens on expired ones are thrown out.
const MANY: usize = 1024;

/// What is asked of a token server.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    pub(crate) realm: &'a Url,
    pub(crate) service: Option<&'a str>,
    pub(crate) scopes: Vec<String>,
}

/// What a token was given for: registry, realm, service, who and scopes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    registry: Url,
    realm: Url,
    service: Option<String>,
    identity: Digest,
    scopes: Vec<String>,
}

impl TokenKey {
    pub(crate) fn new(registry: &Url, identity: &Identity, grant: &Grant<'_>) -> Self {
        Self {
            registry: registry.clone(),
            realm: grant.realm.clone(),
            service: grant.service.map(str::to_owned),
            identity: identity.key,
            scopes: grant.scopes.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    secret: Secret,
    renew_at: Instant,
}

impl Token {
    fn is_good(&self) -> bool {
        Instant::now() < self.renew_at
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// The tokens of all registries. Each is fetched by one request however many wait for it.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<TokenKey, Slot>>,
}

impl Tokens {
    /// The token for `key`, and whether it was there already.
    pub(crate) async fn get<F>(&self, key: &TokenKey, fetch: impl FnOnce() -> F) -> Tried<(Secret, bool)>
    where
        F: Future<Output = Tried<Token>>,
    {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.is_good()) {
            return Ok((token.secret.clone(), true));
        }
        let token = fetch().await?;
        let secret = token.secret.clone();
        *held = Some(token);
        Ok((secret, false))
    }

    /// Drops a token that was refused, unless it has been replaced meanwhile.
    pub(crate) async fn forget(&self, key: &TokenKey, refused: &Secret) {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if held.as_ref().is_some_and(|token| token.secret == *refused) {
            *held = None;
        }
    }

    fn slot(&self, key: &TokenKey) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MANY {
            slots.retain(|_, slot| {
                slot.try_lock().map_or(true, |held| held.as_ref().is_some_and(Token::is_good))
            });
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Host {
    /// Asks a token server. Credentials go only to a realm that belongs to the registry; to others the request is
    /// anonymous.
    pub(crate) async fn fetch_token(&self, identity: &Identity, grant: &Grant<'_>) -> Tried<Token> {
        let registry = &self.base;
        let what = What::new("get a token from", host(grant.realm));
        let credential = identity.credential.as_ref().filter(|_| {
            let trusted = may_receive_credentials(registry, grant.realm);
            if !trusted {
                warn!(
                    registry = host(registry),
                    realm = host(grant.realm),
                    "credentials withheld from realm"
                );
            }
            trusted
        });
        let answer = match credential {
            Some(Credential::IdentityToken(token)) => {
                match self.ask(&what, grant, exchange(grant, token)).await {
                    Err(failure) if knows_no_post(&failure) => {
                        self.ask(&what, grant, query(grant, Some(basic_header("", token)))).await?
                    }
                    answer => answer?,
                }
            }
            Some(Credential::Password { username, password }) => {
                self.ask(&what, grant, query(grant, Some(basic_header(username, password)))).await?
            }
            Some(Credential::RegistryToken(_)) | None => self.ask(&what, grant, query(grant, None)).await?,
        };
        read_token(&what, &answer.body)
    }

    async fn ask(&self, what: &What, grant: &Grant<'_>, asked: Asked) -> Tried<Answer> {
        let hop = Hop {
            what,
            home: &self.base,
            owner: grant.realm,
            method: &asked.method,
            url: &asked.url,
            headers: &asked.headers,
            authorization: asked.authorization.as_ref(),
            cargo: Cargo::Call,
        };
        let idle = self.transport.idle();
        // A form holds the secret itself, so it goes to the realm and is not redirected.
        let mut response = if asked.form.is_empty() {
            self.transport.send(hop, &asked.form).await?
        } else {
            let sending = self.transport.send_once(&hop, asked.form.clone().into());
            tokio::time::timeout(idle, sending)
                .await
                .map_err(|_| what.failure(Kind::Stalled, "no answer from the token server"))??
        };
        if !response.status().is_success() {
            let body = error_body(what, &mut response, idle).await;
            return Err(refused(what, &asked.method, &response, &body));
        }
        collect(what, response, MAX_ANSWER, idle).await
    }
}

/// Whether a token server may only know the older way, by `GET`: Google answers 404, Artifactory 401, Azure 400, and
/// 405 is what it should be (containerd, `core/remotes/docker/authorizer.go`).
fn knows_no_post(failure: &Failure) -> bool {
    failure.status.is_some_and(|status| matches!(status.as_u16(), 400 | 401 | 404 | 405))
}

/// A token server that refuses says that the credentials are no good, whatever status it chose.
fn refused(what: &What, method: &Method, response: &reqwest::Response, body: &[u8]) -> Failure {
    let failure = answered(what, method, response.status(), response.headers(), body);
    if failure.error.kind().is_transient() {
        return failure;
    }
    Failure { error: Box::new(what.error(Kind::Unauthorized, failure.error.detail())), ..failure }
}

/// A request for a token.
struct Asked {
    method: Method,
    url: Url,
    headers: HeaderMap,
    authorization: Option<HeaderValue>,
    form: Bytes,
}

fn query(grant: &Grant<'_>, authorization: Option<HeaderValue>) -> Asked {
    let mut url = grant.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = grant.service {
            query.append_pair("service", service);
        }
        for scope in &grant.scopes {
            query.append_pair("scope", scope);
        }
    }
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    Asked { method: Method::GET, url, headers, authorization, form: Bytes::new() }
}

fn exchange(grant: &Grant<'_>, token: &Secret) -> Asked {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").append_pair("client_id", "ferry");
    if let Some(service) = grant.service {
        form.append_pair("service", service);
    }
    form.append_pair("scope", &grant.scopes.join(" ")).append_pair("refresh_token", token.expose());
    let form = Bytes::from(form.finish());
    let headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (CONTENT_LENGTH, HeaderValue::from(form.len())),
    ]);
    Asked { method: Method::POST, url: grant.realm.clone(), headers, authorization: None, form }
}

/// The life of a token is counted from its arrival: `issued_at` would compare two clocks.
fn read_token(what: &What, body: &[u8]) -> Tried<Token> {
    let bad = |detail: &str| what.failure(Kind::Invalid, detail);
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_| bad("the answer of the token server cannot be read"))?;
    let token = [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty())
        .ok_or_else(|| bad("the token server gave no token"))?;
    let life = Duration::from_secs(answer.expires_in.unwrap_or_default().clamp(MIN_LIFE, 24 * 60 * 60));
    Ok(Token { secret: Secret::new(token), renew_at: Instant::now() + life - EARLY })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: &str) -> TokenKey {
        let realm = Url::parse("https://auth.example.com/token").unwrap();
        let grant = Grant { realm: &realm, service: None, scopes: vec![scope.to_owned()] };
        TokenKey::new(&realm, &Identity::new(None), &grant)
    }

    fn token(body: &str) -> Tried<Token> {
        read_token(&What::new("get token", "x"), body.as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_lives_at_least_a_minute_and_is_renewed_early() {
        for body in [
            r#"{"token":"a"}"#,
            r#"{"access_token":"a","expires_in":1}"#,
            r#"{"token":"","access_token":"a"}"#,
        ] {
            let token = token(body).unwrap();
            assert_eq!(token.renew_at - Instant::now(), Duration::from_secs(50), "{body}");
        }
        let token = token(r#"{"token":"a","expires_in":300}"#).unwrap();
        assert_eq!(token.renew_at - Instant::now(), Duration::from_secs(290));
        tokio::time::advance(Duration::from_secs(291)).await;
        assert!(!token.is_good());
    }

    #[test]
    fn an_answer_without_token_is_invalid() {
        for body in ["", "{}", r#"{"token":""}"#, "<html>"] {
            assert_eq!(token(body).unwrap_err().error.kind(), Kind::Invalid, "{body}");
        }
    }

    #[test]
    fn the_realm_keeps_its_query() {
        let realm = Url::parse("https://a.example.com/token?x=1").unwrap();
        let scopes = vec!["repository:a:pull".to_owned(), "repository:b:pull".to_owned()];
        let asked = query(&Grant { realm: &realm, service: Some("s"), scopes }, None);
        assert_eq!(
            asked.url.as_str(),
            "https://a.example.com/token?x=1&service=s&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull"
        );
    }

    #[tokio::test]
    async fn one_request_serves_all_who_wait() {
        let tokens = Tokens::default();
        let fetched = std::sync::atomic::AtomicUsize::new(0);
        let fetch = || async {
            fetched.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::task::yield_now().await;
            token(r#"{"token":"a"}"#)
        };
        let key = key("s");
        let (one, two) = tokio::join!(tokens.get(&key, fetch), tokens.get(&key, fetch));
        assert_eq!((one.unwrap().1, two.unwrap().1), (false, true));
        tokens.forget(&key, &Secret::new("other")).await;
        assert!(tokens.get(&key, fetch).await.unwrap().1);
        tokens.forget(&key, &Secret::new("a")).await;
        assert!(!tokens.get(&key, fetch).await.unwrap().1);
        assert_eq!(fetched.into_inner(), 2);
    }

    #[tokio::test]
    async fn expired_tokens_are_thrown_out() {
        let tokens = Tokens::default();
        for n in 0..MANY {
            drop(tokens.slot(&key(&n.to_string())));
        }
        drop(tokens.slot(&key("one more")));
        assert_eq!(tokens.slots.lock().unwrap().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read(body: Vec<u8>, word: String, life in proptest::option::of(proptest::num::i128::ANY)) {
            let _ = token(&String::from_utf8_lossy(&body));
            let life = life.map(|life| format!(r#","expires_in":{life}"#)).unwrap_or_default();
            if let Ok(token) = token(&format!(r#"{{"token":{}{life}}}"#, serde_json::json!(word))) {
                proptest::prop_assert!(token.secret.expose() == word && !word.is_empty());
                let left = token.renew_at.saturating_duration_since(Instant::now());
                proptest::prop_assert!(left <= Duration::from_secs(24 * 60 * 60));
            }
        }
    }
}
