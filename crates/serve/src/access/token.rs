//! Tokens: `PURPOSE.KEY.CLAIMS.MAC`. There is one algorithm, HMAC-SHA-256, and no field that names it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::keys::Key;

/// How long an access token lives, in seconds.
pub(super) const ACCESS_LIFE: u64 = 5 * 60;
/// How long a refresh token lives, in seconds: so often `docker login` has to be repeated.
pub(super) const REFRESH_LIFE: u64 = 30 * 24 * 60 * 60;
/// Clocks of servers that share keys may differ by so much, in seconds.
pub(super) const EARLIER: u64 = 60;

/// What is longer was not made here.
const MAX_LENGTH: usize = 16 * 1024;
/// What is signed begins so, whatever else a key may ever sign.
const DOMAIN: &[u8] = b"ferry: token of a registry, version 1\n";

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To ask the registry.
    Access,
    /// To get access tokens.
    Refresh,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::Access => "ferry-access",
            Self::Refresh => "ferry-refresh",
        }
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    /// For which registry.
    pub(super) service: String,
    /// Who got it; `None` for anybody.
    pub(super) user: Option<String>,
    /// What that user's password was, as `Users::fingerprint` tells.
    pub(super) password: Option<String>,
    /// What for.
    pub(super) scopes: Vec<String>,
    /// Seconds since 1970 from which on it is valid.
    pub(super) from: u64,
    /// Seconds since 1970 until which it is valid.
    pub(super) until: u64,
}

/// A token whose signature has not been looked at.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    /// The name of its key.
    pub(super) key: &'a str,
    signed: &'a str,
    claims: &'a str,
    mac: Vec<u8>,
}

/// Signs a token.
pub(super) fn sign(purpose: Purpose, (id, key): &(String, Key), claims: &Claims) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).ok()?);
    let signed = format!("{}.{id}.{claims}", purpose.word());
    let mac = mac(key, &signed)?.finalize().into_bytes();
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac)))
}

impl<'a> Unverified<'a> {
    /// Takes a token for `purpose` apart; `None` if it is none.
    pub(super) fn parse(purpose: Purpose, text: &'a str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let (signed, mac) = text.rsplit_once('.')?;
        let (key, claims) = signed.strip_prefix(purpose.word())?.strip_prefix('.')?.split_once('.')?;
        Some(Self { key, signed, claims, mac: URL_SAFE_NO_PAD.decode(mac).ok()? })
    }

    /// What it says, if the key signed it. The comparison takes the same time whatever differs.
    pub(super) fn verify(&self, key: &Key) -> Option<Claims> {
        mac(key, self.signed)?.verify_slice(&self.mac).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(self.claims).ok()?).ok()
    }
}

impl Claims {
    /// Whether it holds at this time, for this registry.
    pub(super) fn hold(&self, service: &str, now: u64) -> bool {
        self.service == service && self.from <= now && now < self.until
    }
}

fn mac(key: &Key, signed: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(DOMAIN);
    mac.update(signed.as_bytes());
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];
    const ID: &str = "1800000000-0123456789abcdef";

    fn claims() -> Claims {
        Claims {
            service: "ferry".to_owned(),
            user: Some("me".to_owned()),
            password: None,
            scopes: vec!["repository:a:pull".to_owned()],
            from: 100,
            until: 200,
        }
    }

    fn signed() -> String {
        sign(Purpose::Access, &(ID.to_owned(), KEY), &claims()).unwrap()
    }

    fn verify(text: &str) -> Option<Claims> {
        let token = Unverified::parse(Purpose::Access, text)?;
        assert_eq!(token.key, ID);
        token.verify(&KEY)
    }

    #[test]
    fn what_was_signed_is_read_back() {
        assert_eq!(verify(&signed()), Some(claims()));
        assert!(Unverified::parse(Purpose::Refresh, &signed()).is_none(), "not for another purpose");
        let other = Unverified::parse(Purpose::Access, "ferry-access.x.e30.AAAA").unwrap();
        assert!(other.verify(&KEY).is_none());
    }

    #[test]
    fn nothing_can_be_changed() {
        let token = signed();
        for at in 0..token.len() {
            assert_eq!(Unverified::parse(Purpose::Access, &token[..at]).and_then(|t| t.verify(&KEY)), None);
            for other in ["A", "B", "."] {
                let forged = format!("{}{other}{}", &token[..at], &token[at + 1..]);
                let found = Unverified::parse(Purpose::Access, &forged).and_then(|t| t.verify(&KEY));
                assert!(found.is_none() || forged == token, "{forged}");
            }
        }
        assert!(
            Unverified::parse(Purpose::Access, &token).unwrap().verify(&[8; 32]).is_none(),
            "another key"
        );
        assert!(verify(&format!("{token}{}", "A".repeat(MAX_LENGTH))).is_none());
        // The purpose is signed, too.
        let refresh = sign(Purpose::Refresh, &(ID.to_owned(), KEY), &claims()).unwrap();
        let renamed = refresh.replacen("ferry-refresh", "ferry-access", 1);
        assert!(verify(&renamed).is_none());
    }

    #[test]
    fn an_algorithm_cannot_be_chosen() {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let payload = encode(&serde_json::to_string(&claims()).unwrap());
        for head in [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"HS256","typ":"JWT"}"#] {
            let jwt = format!("{}.{payload}.", encode(head));
            assert!(Unverified::parse(Purpose::Access, &jwt).is_none());
        }
        for none in [format!("ferry-access.{ID}.{payload}."), format!("ferry-access.{ID}.{payload}.AAAA")] {
            assert!(Unverified::parse(Purpose::Access, &none).unwrap().verify(&KEY).is_none());
        }
    }

    #[test]
    fn they_hold_for_a_time_and_a_registry() {
        for (service, now, holds) in [
            ("ferry", 99, false),
            ("ferry", 100, true),
            ("ferry", 199, true),
            ("ferry", 200, false),
            ("x", 150, false),
        ] {
            assert_eq!(claims().hold(service, now), holds, "{service} {now}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "(ferry-access\\.)?\\PC{0,80}") {
            let token = Unverified::parse(Purpose::Access, &text);
            proptest::prop_assert!(token.and_then(|token| token.verify(&KEY)).is_none());
        }
    }
}
