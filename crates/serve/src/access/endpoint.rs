//! Where tokens are got: <https://distribution.github.io/distribution/spec/auth/token/> by `GET`, and
//! <https://distribution.github.io/distribution/spec/auth/oauth/> by `POST`.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::bearer::{give, refreshes};
use super::scope::Scope;
use super::token::{ACCESS_LIFE, Purpose};
use super::{Access, Refusal, basic};
use crate::answer::{Headers, answer, header};
use crate::body::{BoxError, ResponseBody, full};
use crate::caller::Caller;
use crate::error::{Failure, Thing};
use crate::query::Query;
use crate::request::RequestBody;

/// The largest form.
const MAX_FORM: usize = 64 * 1024;
/// So many scopes are given at once.
const MAX_SCOPES: usize = 32;
/// So long a form may take to arrive in part, and as a whole: nobody has to log in to send one.
const IDLE: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);

/// Who asks for a token, and which one.
struct Ask {
    user: Option<String>,
    scopes: Vec<String>,
    /// A refresh token is wanted as well.
    offline: bool,
}

/// Answers a request for a token, which has been identified.
pub(crate) async fn answer_token<B>(access: &Access, request: Request<B>) -> Response<ResponseBody>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (parts, incoming) = request.into_parts();
    let mut body = RequestBody::new(incoming, IDLE);
    let answered = answered(access, &parts, &mut body).await;
    body.discard().await;
    answered.unwrap_or_else(Failure::into_response).with(CACHE_CONTROL, "no-store")
}

async fn answered(
    access: &Access,
    parts: &Parts,
    body: &mut RequestBody,
) -> Result<Response<ResponseBody>, Failure> {
    let ask = match parts.method {
        Method::GET => by_query(access, parts).await?,
        Method::POST => by_form(access, parts, body).await?,
        _ => return Err(Failure::Method { allow: "GET, POST" }),
    };
    let mut caller = parts.clone();
    caller
        .extensions
        .insert(Caller { user: ask.user.as_deref().map(Into::into), ..Caller::of(&parts.extensions) });
    let gate = access.gate(&caller);
    if ask.user.is_none() && !gate.could_anything() {
        return Err(gate.refuse_login("log in first: docker login or podman login"));
    }
    let given = tokens(access, &ask).await.map_err(Failure::of(Thing::Repository))?;
    Ok(answer(StatusCode::OK, full(given.to_string())).with(CONTENT_TYPE, "application/json"))
}

async fn tokens(access: &Access, ask: &Ask) -> ferry_store::Result<Value> {
    let Access { keys, policy, .. } = access;
    let user = ask.user.as_deref();
    let token = give(keys, policy, Purpose::Access, user, ask.scopes.clone()).await?;
    let issued = UNIX_EPOCH + Duration::from_secs(keys.now());
    let mut given = json!({
        "token": token,
        "access_token": token,
        "scope": ask.scopes.join(" "),
        "expires_in": ACCESS_LIFE,
        "issued_at": humantime::format_rfc3339_seconds(issued).to_string(),
    });
    if ask.offline && user.is_some() {
        let refresh = give(keys, policy, Purpose::Refresh, user, Vec::new()).await?;
        given["refresh_token"] = refresh.into();
    }
    Ok(given)
}

async fn by_query(access: &Access, parts: &Parts) -> Result<Ask, Failure> {
    let query = form(parts.uri.query().unwrap_or_default());
    let user = match header(parts, AUTHORIZATION) {
        None => None,
        Some(shown) => {
            let (name, password) = basic(shown).unwrap_or_default();
            Some(login(access, parts, (&name, &password)).await?)
        }
    };
    Ok(Ask { user, scopes: scopes(&query), offline: query.get("offline_token") == Some("true") })
}

async fn by_form(access: &Access, parts: &Parts, body: &mut RequestBody) -> Result<Ask, Failure> {
    let text = timeout(WHOLE, body.whole(MAX_FORM)).await.map_err(|_| Failure::BodyIdle)??;
    let form = form(std::str::from_utf8(&text).map_err(|_| Refusal::Request("the form is not text"))?);
    let (user, offline) = match form.get("grant_type") {
        Some("password") => {
            let shown = (form.get("username").unwrap_or_default(), form.get("password").unwrap_or_default());
            (login(access, parts, shown).await?, form.get("access_type") == Some("offline"))
        }
        Some("refresh_token") => {
            let shown = form.get("refresh_token").unwrap_or_default();
            let user = refreshes(&access.keys, &access.policy, shown).await;
            let expired = || access.gate(parts).refuse_login("the login has expired: log in again");
            // It is not renewed, or whoever once got hold of one would stay for ever.
            (user.ok_or_else(expired)?, false)
        }
        _ => return Err(Refusal::Request("grant_type is password or refresh_token").into()),
    };
    Ok(Ask { user: Some(user), scopes: scopes(&form), offline })
}

/// Whose name and password these are.
async fn login(access: &Access, parts: &Parts, (name, password): (&str, &str)) -> Result<String, Failure> {
    let right = match &access.policy.users {
        Some(users) => access.checked(users, name, password).await?,
        None => false,
    };
    let wrong = || access.gate(parts).refuse_login("the user name or the password is wrong");
    right.then(|| name.to_owned()).ok_or_else(wrong)
}

/// In a form a blank may be written as `+`.
fn form(text: &str) -> Query {
    Query::parse(Some(&text.replace('+', " ")))
}

/// All scopes that can be given, of several parameters and of several in one. What they come to is decided when the token is
/// used: a rule may change, and its message is for who breaks it.
fn scopes(query: &Query) -> Vec<String> {
    let asked = query.all("scope").flat_map(str::split_whitespace);
    let read = asked.filter_map(|scope| scope.parse().ok()).map(|scope: Scope| scope.to_string());
    read.take(MAX_SCOPES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_come_in_several_ways() {
        let of = |text: &str| scopes(&form(text));
        let both = ["repository:a/b:pull", "repository:c:pull,push"];
        for text in [
            "scope=repository:a/b:pull&scope=repository:c:pull,push",
            "service=x&scope=repository%3Aa%2Fb%3Apull+repository%3Ac%3Apull%2Cpush",
            "scope=repository:a/b:pull%20repository:c:pull,push%20nonsense",
        ] {
            assert_eq!(of(text), both, "{text}");
        }
        assert!(of("").is_empty());
        let many: String = (0..100).map(|number| format!("scope=repository:a{number}:pull&")).collect();
        assert_eq!(of(&many).len(), MAX_SCOPES);
    }
}
