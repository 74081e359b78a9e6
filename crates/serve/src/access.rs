//! Who may have what: who somebody is, and what the rules say to them.
//!
//! [`Access`] looks through trusted proxies, checks passwords and tokens, and asks [`Rules`] about every call. A token says
//! who somebody is and what it was asked for; it never gives more than the rules do at the moment of the request. While requests
//! are running another [`Access`] takes its place together with all else that is configured, so that each of them sees one
//! [`Policy`], which fits what is mirrored, from its beginning to its end.

mod bearer;
mod endpoint;
mod gate;
mod keys;
mod platforms;
mod proxies;
mod refusal;
mod scope;
mod token;
mod users;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::{Manifest, Name, Registry};
use ferry_policy::access::{IpNet, Rules};
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderValue, Request, Uri};

pub(crate) use endpoint::answer_token;
pub(crate) use gate::{Gate, Wish};
pub use keys::{Clock, Keys};
pub(crate) use refusal::Refusal;
pub use users::{Users, check_name, hash_password};

use crate::answer::header;
use crate::caller::Caller;
use crate::error::Failure;
use platforms::Platforms;
use scope::Scope;
use verifier::{Checked, Verifier};

/// How clients say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody is asked, except where a rule is for users. Who shows a password has it checked all the same.
    Open,
    /// By name and password with every request.
    Basic,
    /// By tokens, which are got with name and password, or without where strangers may do something; passwords are taken too.
    /// <https://distribution.github.io/distribution/spec/auth/token/>
    Token,
}

/// What somebody who operates a registry decides about who may use it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How clients say who they are.
    pub mode: Mode,
    /// Who can log in. Without users what clients show is not looked at.
    pub users: Option<Users>,
    /// Who may have what.
    pub rules: Rules,
    /// Those whose word about the clients behind them counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Where tokens are got, as a whole URL; by default `/token` at the host that the client asked.
    pub realm: Option<String>,
    /// What the registry is called in tokens. Those of another are not taken.
    pub service: String,
}

/// The control of access to a registry.
pub struct Access {
    policy: Policy,
    keys: Arc<Keys>,
    verifier: Arc<Verifier>,
    platforms: Arc<Platforms>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("policy", &self.policy)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// How somebody showed who they are. Stands in the extensions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Pass {
    /// They did not.
    #[default]
    None,
    Password,
    /// By a token for this.
    Token(Vec<Scope>),
}

impl Access {
    /// Access as `policy` says, with tokens that are signed with `keys`.
    pub fn new(policy: Policy, keys: Keys) -> Self {
        Self { policy, keys: Arc::new(keys), verifier: Arc::new(Verifier::new()), platforms: Arc::default() }
    }

    /// The same by another policy: it knows who has logged in, and what indexes said. The directory of the keys is read anew.
    #[must_use]
    pub fn with(&self, policy: Policy) -> Self {
        self.keys.forget();
        let Self { keys, verifier, platforms, .. } = self;
        Self {
            policy,
            keys: Arc::clone(keys),
            verifier: Arc::clone(verifier),
            platforms: Arc::clone(platforms),
        }
    }

    /// Whether the keys of its tokens are in this directory.
    pub fn has_keys_in(&self, directory: &Path) -> bool {
        self.keys.are_in(directory)
    }

    /// Finds out where a request comes from, and puts the [`Caller`] into it. The host that a trusted proxy was asked for
    /// takes the place of the one that it asks for.
    pub(crate) fn identify<B>(&self, request: &mut Request<B>) {
        let mut caller = Caller::at(request.extensions());
        let seen = proxies::look_through(request.headers(), caller.address, &self.policy.trusted_proxies);
        caller.address = seen.address;
        caller.secure = seen.secure.unwrap_or(caller.secure);
        request.extensions_mut().insert(caller);
        if let Some(host) = seen.host.and_then(|host| HeaderValue::try_from(host).ok()) {
            request.headers_mut().insert(HOST, host);
            // What stands in the target would go before the header.
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        }
    }

    /// Finds out who sends a request that has been identified, and completes its [`Caller`].
    pub(crate) async fn admit(&self, parts: &mut Parts) -> Result<(), Failure> {
        let policy = &self.policy;
        let (Some(users), Some(shown)) = (&policy.users, header(parts, AUTHORIZATION)) else {
            return Ok(());
        };
        let (user, pass) = match shown.split_once(' ') {
            Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") && policy.mode == Mode::Token => {
                let claims = bearer::verify(&self.keys, policy, text.trim()).await;
                let Some(claims) = claims else {
                    return Err(self
                        .gate(parts)
                        .refuse(Some("invalid_token"), "the token is not valid any more"));
                };
                let scopes = claims.scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
                (claims.user, Pass::Token(scopes))
            }
            _ => match self.by_password(users, shown).await? {
                Some(user) => (Some(user), Pass::Password),
                None => return Err(self.gate(parts).refuse(None, "the user name or the password is wrong")),
            },
        };
        let mut caller = Caller::of(&parts.extensions);
        caller.user = user.map(Arc::from);
        parts.extensions.insert(caller);
        parts.extensions.insert(pass);
        Ok(())
    }

    /// Who shows these basic credentials; `None` if they are wrong.
    async fn by_password(&self, users: &Users, shown: &str) -> Result<Option<String>, Failure> {
        let Some((name, password)) = basic(shown) else { return Ok(None) };
        Ok(self.checked(users, &name, &password).await?.then_some(name))
    }

    async fn checked(&self, users: &Users, name: &str, password: &str) -> Result<bool, Failure> {
        match self.verifier.check(users, name, password).await {
            Checked::Right => Ok(true),
            Checked::Wrong => {
                tracing::info!("somebody showed a wrong user name or password");
                Ok(false)
            }
            Checked::Busy => Err(Refusal::Busy.into()),
        }
    }

    /// What stands between a request and the registry.
    pub(crate) fn gate(&self, parts: &Parts) -> Gate<'_> {
        Gate::new(self, parts)
    }

    /// Remembers what an index says of its manifests, if a rule may ask for it.
    pub(crate) fn learn(&self, upstream: Option<&Registry>, name: &Name, manifest: &Manifest) {
        if self.policy.rules.ask_for_platforms() {
            self.platforms.learn(upstream, name, manifest);
        }
    }

    /// Whether tokens are given here.
    pub(crate) fn gives_tokens(&self) -> bool {
        self.policy.mode == Mode::Token
    }
}

/// Name and password of an `Authorization` header (RFC 7617).
fn basic(shown: &str) -> Option<(String, String)> {
    let (scheme, text) = shown.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
