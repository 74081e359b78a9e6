//! Which authorization goes with a request, and what to learn from a refusal.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::{Challenge, Digest, parse_challenges};
use ferry_store::Kind;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use url::Url;

use crate::access::Access;
use crate::credential::{Credential, Identity, Secret, anonymous};
use crate::error::{Tried, What};
use crate::host::Host;
use crate::token::{Grant, TokenKey};

/// How a registry wants to be asked; remembered for all further requests to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// User name and password with every request.
    Basic,
    /// A token from the server `realm`.
    Bearer { realm: Url, service: Option<String> },
}

/// What a refusal offers.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) scheme: Scheme,
    pub(crate) scope: String,
}

/// Reads the challenges of a refusal by the registry `home`; Bearer goes before Basic, other schemes are not ours.
pub(crate) fn read_offer(headers: &HeaderMap, home: &Url) -> Option<Offer> {
    let challenges: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|header| parse_challenges(header.to_str().ok()?).ok())
        .flatten()
        .collect();
    let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
    challenges
        .iter()
        .find_map(|challenge| bearer(challenge, home))
        .or_else(|| basic.then(|| Offer { scheme: Scheme::Basic, scope: String::new() }))
}

fn bearer(challenge: &Challenge, home: &Url) -> Option<Offer> {
    if challenge.scheme != "bearer" {
        return None;
    }
    let realm = Url::parse(challenge.param("realm")?).ok()?;
    let protected = realm.scheme() == "https" || realm.scheme() == "http" && home.scheme() == "http";
    if !protected || !realm.has_host() {
        return None;
    }
    let service = challenge.param("service").filter(|service| !service.is_empty()).map(str::to_owned);
    let scope = challenge.param("scope").unwrap_or_default().to_owned();
    Some(Offer { scheme: Scheme::Bearer { realm, service }, scope })
}

/// The authorization of one request.
#[derive(Debug, Default)]
pub(crate) struct Authorization {
    pub(crate) header: Option<HeaderValue>,
    /// Under which scheme it was made, if the registry's was known.
    scheme: Option<Scheme>,
    /// Whether it rests on something remembered, so that asking anew may give another.
    remembered: bool,
    /// Who asks; nobody in particular as long as it is not known what the registry wants.
    who: Option<Digest>,
    token: Option<(TokenKey, Secret)>,
}

impl Authorization {
    /// Who asks.
    pub(crate) fn who(&self) -> Digest {
        self.who.unwrap_or_else(|| anonymous().key)
    }
}

/// A request's dealings with refusals: what it needs, and a second challenge that it has believed.
#[derive(Debug)]
pub(crate) struct Dealings {
    pub(crate) access: Access,
    on_trial: Option<Scheme>,
    /// A challenge named more than was thought of. Once, or a registry could go on for ever.
    grew: bool,
}

impl Dealings {
    pub(crate) fn new(access: Access) -> Self {
        Self { access, on_trial: None, grew: false }
    }
}

impl Host {
    /// The authorization for a request, as far as it is known what the registry wants.
    pub(crate) async fn authorize(&self, what: &What, dealings: &Dealings) -> Tried<Authorization> {
        let access = &dealings.access;
        let Some(scheme) = dealings.on_trial.clone().or_else(|| self.scheme()) else {
            return Ok(Authorization::default());
        };
        let (identity, remembered) = self.identity(access).await?;
        let known = Authorization { remembered, who: Some(identity.key), ..Authorization::default() };
        match (&scheme, &identity.credential) {
            (Scheme::Basic, Some(Credential::Password { username, password })) => {
                let header = Some(basic_header(username, password));
                Ok(Authorization { header, scheme: Some(scheme), ..known })
            }
            (Scheme::Basic, _) => Ok(Authorization { scheme: Some(scheme), ..known }),
            (Scheme::Bearer { .. }, Some(Credential::RegistryToken(token))) => {
                let header = bearer_header(what, token)?;
                Ok(Authorization { header, scheme: Some(scheme), ..known })
            }
            (Scheme::Bearer { realm, service }, _) => {
                let grant = Grant { realm, service: service.as_deref(), scopes: access.scopes() };
                self.with_token(what, access, &identity, grant).await
            }
        }
    }

    async fn with_token(
        &self,
        what: &What,
        access: &Access,
        identity: &Arc<Identity>,
        grant: Grant<'_>,
    ) -> Tried<Authorization> {
        let scheme =
            Some(Scheme::Bearer { realm: grant.realm.clone(), service: grant.service.map(str::to_owned) });
        let key = TokenKey::new(&self.base, identity, &grant);
        let found = self.shared.tokens.get(&key, || self.fetch_token(identity, &grant)).await;
        let (secret, remembered) = match found {
            Ok(found) => found,
            Err(failure) => {
                // The registry may have another realm by now, or none; the next request is told which.
                self.forget(scheme.as_ref());
                if failure.error.kind() == Kind::Unauthorized {
                    // The password may have been changed since; the next request asks for it again.
                    self.accounts.forget(&access.purpose());
                }
                return Err(failure);
            }
        };
        let header = bearer_header(what, &secret)?;
        let who = Some(identity.key);
        Ok(Authorization { header, scheme, remembered, who, token: Some((key, secret)) })
    }

    /// Decides after a refusal whether another attempt can do better. What was remembered is renewed first from the
    /// realm that worked before, because registries challenge a stale token with realms that lead nowhere; only then
    /// a new challenge is believed, once, and not remembered before it has led somewhere.
    pub(crate) async fn refused(
        &self,
        used: Authorization,
        offer: Option<Offer>,
        dealings: &mut Dealings,
    ) -> bool {
        let grew = !dealings.grew && offer.as_ref().is_some_and(|offer| dealings.access.grow(&offer.scope));
        dealings.grew |= grew;
        if used.remembered && !grew {
            self.accounts.forget(&dealings.access.purpose());
            if let Some((key, secret)) = &used.token {
                self.shared.tokens.forget(key, secret).await;
            }
            return true;
        }
        match (used.scheme, offer) {
            (_, None) => false,
            (None, Some(offer)) => {
                self.learn(offer.scheme);
                true
            }
            (Some(known), Some(offer)) if known != offer.scheme && dealings.on_trial.is_none() => {
                dealings.on_trial = Some(offer.scheme);
                true
            }
            (Some(_), Some(_)) => grew,
        }
    }

    /// The registry let a request in: the challenge that it believed holds for the next ones.
    pub(crate) fn let_in(&self, dealings: Dealings) {
        if let Some(scheme) = dealings.on_trial {
            self.learn(scheme);
        }
    }
}

pub(crate) fn basic_header(username: &str, password: &Secret) -> HeaderValue {
    let text = STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(HeaderValue::try_from(format!("Basic {text}")).unwrap_or(HeaderValue::from_static("Basic")))
}

pub(crate) fn bearer_header(what: &What, token: &Secret) -> Tried<Option<HeaderValue>> {
    let header = HeaderValue::try_from(format!("Bearer {}", token.expose()));
    header
        .map(|header| Some(sensitive(header)))
        .map_err(|_| what.failure(Kind::Unauthorized, "the token cannot be sent in a header"))
}

fn sensitive(mut header: HeaderValue) -> HeaderValue {
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(home: &str, headers: &[&str]) -> Option<Offer> {
        let headers = headers.iter().map(|text| (WWW_AUTHENTICATE, text.parse().unwrap())).collect();
        read_offer(&headers, &Url::parse(home).unwrap())
    }

    #[test]
    fn bearer_goes_before_basic() {
        let found = offer(
            "https://r.example.com/",
            &[
                "Negotiate",
                "Basic realm=\"x\"",
                "bearer realm=\"https://a.example.com/t?x=1\",service=\"s\",scope=\"a b\"",
            ],
        )
        .unwrap();
        let realm = Url::parse("https://a.example.com/t?x=1").unwrap();
        assert_eq!(found.scheme, Scheme::Bearer { realm, service: Some("s".to_owned()) });
        assert_eq!(found.scope, "a b");
    }

    #[test]
    fn what_cannot_be_used_is_passed_over() {
        let home = "https://r.example.com/";
        assert!(offer(home, &[]).is_none());
        assert!(offer(home, &["Digest realm=\"x\""]).is_none());
        assert!(offer(home, &["Bearer service=\"s\""]).is_none());
        assert!(offer(home, &["Bearer realm=\"http://a.example.com/\""]).is_none());
        assert!(offer("http://localhost/", &["Bearer realm=\"http://a.example.com/\""]).is_some());
        let basic = offer(home, &["Bearer realm=\"/relative\", Basic realm=\"https://x\""]).unwrap();
        assert_eq!(basic.scheme, Scheme::Basic);
    }

    proptest::proptest! {
        #[test]
        fn a_realm_is_a_protected_url_or_none(header in "(Bearer |Basic |, )?realm=\"?(https?:|//|[a-z]{1,3}:)?[!-~]{0,20}\"?") {
            if let Some(Offer { scheme: Scheme::Bearer { realm, .. }, .. }) = offer("https://r.example.com/", &[&header]) {
                proptest::prop_assert!(realm.scheme() == "https" && realm.has_host());
            }
        }
    }
}
