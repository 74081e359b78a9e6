use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::{ErrorBody, ErrorCode};
use ferry_serve::{ResponseBody, full};
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;
use url::form_urlencoded;

use super::requests::repository;
use crate::quirks::{Challenge, Tokens};

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Login {
    /// A user and a password.
    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned() }
    }

    fn header(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// What a registry asks of its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing.
    #[default]
    None,
    /// Basic authentication on every request.
    Basic(Login),
    /// The same, as any of these.
    BasicOf(Vec<Login>),
    /// A token from `/token` for every request, with the scope that the request needs.
    Bearer {
        /// Who gets a token; `None` for everybody.
        login: Option<Login>,
        /// How long a token is good for; what clients are told is rounded up to seconds.
        lifetime: Duration,
    },
}

/// Keeps what is asked for and the tokens that were given out.
#[derive(Default)]
pub(super) struct Guard {
    auth: Auth,
    tokens: HashMap<String, Grant>,
    given: u64,
    /// The youngest token with which tags were listed.
    listed: u64,
}

struct Grant {
    until: Instant,
    scopes: Vec<String>,
}

/// What a token is worth for a request.
enum Worth {
    Enough,
    TooLittle,
    /// It is not known, or not any more.
    Nothing,
}

impl Guard {
    pub(super) fn require(&mut self, auth: Auth) {
        self.auth = auth;
        self.expire();
    }

    pub(super) fn expire(&mut self) {
        self.tokens.clear();
    }

    fn auth(&self, quirks: &Tokens) -> Auth {
        match &self.auth {
            Auth::None if quirks.asks => Auth::Bearer { login: None, lifetime: Duration::from_secs(300) },
            auth => auth.clone(),
        }
    }

    /// The refusal of a request, if it lacks credentials.
    pub(super) fn refuse(
        &self,
        parts: &Parts,
        address: SocketAddr,
        quirks: &Tokens,
    ) -> Option<Response<ResponseBody>> {
        let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let login = match self.auth(quirks) {
            Auth::None => return None,
            Auth::Basic(login) if given == Some(login.header().as_str()) => return None,
            Auth::BasicOf(all) if all.iter().any(|one| given == Some(one.header().as_str())) => return None,
            Auth::Basic(_) | Auth::BasicOf(_) => return Some(unauthorized(Some("Basic realm=\"fake\""))),
            Auth::Bearer { login, .. } => login,
        };
        let needed = needed_scopes(parts, quirks);
        let known = login.as_ref().is_some_and(|login| given == Some(login.header().as_str()));
        let worth = given.map(|given| self.worth(given, &needed));
        let challenge = match worth {
            Some(Worth::Enough) => return None,
            Some(Worth::TooLittle) if quirks.forbids => return Some(denied()),
            Some(_) if quirks.basic_after_token && known => return None,
            Some(_) if quirks.basic_after_token => "Basic realm=\"harbor\"".to_owned(),
            Some(Worth::Nothing) if quirks.strange_realm => {
                format!(
                    "Bearer realm=\"http://{address}/strange\",service=\"registry\",error=\"invalid_token\""
                )
            }
            _ => challenge(&needed, address, quirks),
        };
        Some(if quirks.open_ping && matches!(parts.uri.path(), "/v2" | "/v2/") {
            challenged(answer(StatusCode::OK, "{}".to_owned()), &challenge)
        } else {
            unauthorized(Some(&challenge))
        })
    }

    fn worth(&self, given: &str, needed: &[Scope]) -> Worth {
        let grant = given.strip_prefix("Bearer ").and_then(|token| self.tokens.get(token));
        match grant.filter(|grant| grant.until > Instant::now()) {
            None => Worth::Nothing,
            Some(grant) => {
                let granted = |needed: &Scope| grant.scopes.iter().any(|scope| needed.is_within(scope));
                if needed.iter().all(granted) { Worth::Enough } else { Worth::TooLittle }
            }
        }
    }

    /// Whether a request for tags has a token that no page was listed with yet.
    pub(super) fn is_fresh(&mut self, parts: &Parts) -> bool {
        let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let number = given.and_then(|given| given.strip_prefix("Bearer token-")?.parse().ok()).unwrap_or(0);
        let fresh = number > self.listed;
        self.listed = self.listed.max(number);
        fresh
    }

    /// Answers a request for a token, by `GET` or by `POST` with a form.
    pub(super) fn token(&mut self, parts: &Parts, form: &[u8], quirks: &Tokens) -> Response<ResponseBody> {
        let Auth::Bearer { login, lifetime } = self.auth(quirks) else {
            return answer(StatusCode::NOT_FOUND, "{}".to_owned());
        };
        let post = parts.method == Method::POST;
        if let Some(status) =
            quirks.post.filter(|_| post).and_then(|status| StatusCode::from_u16(status).ok())
        {
            return answer(status, "{}".to_owned());
        }
        let query = if post { form } else { parts.uri.query().unwrap_or_default().as_bytes() };
        let fields = |wanted: &'static str| {
            form_urlencoded::parse(query)
                .filter(move |(key, _)| key == wanted)
                .map(|(_, value)| value.into_owned())
        };
        let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let known = |login: &Login| {
            if post {
                fields("refresh_token").any(|token| token == login.password)
            } else {
                given == Some(login.header().as_str())
            }
        };
        if login.as_ref().is_some_and(|login| !known(login)) {
            return unauthorized(None);
        }
        let scopes =
            fields("scope").flat_map(|value| value.split(' ').map(str::to_owned).collect::<Vec<_>>());
        self.grant(granted(scopes, quirks), lifetime, quirks)
    }

    fn grant(&mut self, scopes: Vec<String>, lifetime: Duration, quirks: &Tokens) -> Response<ResponseBody> {
        let grant = Grant { until: Instant::now() + lifetime, scopes };
        let seconds = lifetime.as_millis().div_ceil(1000);
        self.given += 1;
        let token = format!("token-{}", self.given);
        self.tokens.insert(token.clone(), grant);
        let name = if quirks.access_token { "access_token" } else { "token" };
        let mut body = json!({name: token});
        if !quirks.no_expiry {
            body["expires_in"] = json!(seconds as u64);
        }
        answer(StatusCode::OK, body.to_string())
    }
}

/// What of the scopes asked for is granted; less than was asked for is no error.
fn granted(scopes: impl Iterator<Item = String>, quirks: &Tokens) -> Vec<String> {
    let withheld = |scope: String| {
        if quirks.delete_to_cancel { scope.replace(":delete,", ":").replace(":delete", ":") } else { scope }
    };
    let most = if quirks.first_scope { 1 } else { usize::MAX };
    scopes.map(withheld).take(most).collect()
}

fn challenge(needed: &[Scope], address: SocketAddr, quirks: &Tokens) -> String {
    let scope = needed.iter().map(Scope::to_text).collect::<Vec<_>>().join(" ");
    let scope = quirks.placeholder.map_or(scope, str::to_owned);
    let scope = if scope.is_empty() { scope } else { format!(",scope=\"{scope}\"") };
    let (scheme, basic) = match quirks.challenge {
        Challenge::Usual => ("Bearer", ""),
        Challenge::LowerCase => ("bearer", ""),
        Challenge::WithBasic => ("Bearer", ",Basic realm=\"fake\""),
    };
    format!("{scheme} realm=\"http://{address}/token\",service=\"fake\"{scope}{basic}")
}

/// Access to one repository (distribution, `docs/content/spec/auth/scope.md`).
struct Scope {
    repository: String,
    actions: &'static str,
}

impl Scope {
    fn to_text(&self) -> String {
        format!("repository:{}:{}", self.repository, self.actions)
    }

    fn is_within(&self, granted: &str) -> bool {
        let actions = granted.strip_prefix(&format!("repository:{}:", self.repository));
        actions.is_some_and(|actions| {
            self.actions.split(',').all(|needed| actions.split(',').any(|a| a == needed || a == "*"))
        })
    }
}

fn needed_scopes(parts: &Parts, quirks: &Tokens) -> Vec<Scope> {
    let path = parts.uri.path();
    let Some(name) = repository(path) else { return Vec::new() };
    let actions = match parts.method {
        Method::GET if quirks.metadata_read && path.ends_with("/tags/list") => "metadata_read",
        Method::GET | Method::HEAD if !path.contains("/blobs/uploads/") => "pull",
        Method::DELETE if quirks.delete_to_cancel || !path.contains("/blobs/uploads/") => "delete",
        _ => "pull,push",
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let from = form_urlencoded::parse(query).find(|(key, _)| key == "from");
    let from = from.map(|(_, value)| Scope { repository: value.into_owned(), actions: "pull" });
    [Scope { repository: name.to_owned(), actions }].into_iter().chain(from).collect()
}

fn unauthorized(challenge: Option<&str>) -> Response<ResponseBody> {
    let error = ErrorBody { code: ErrorCode::Unauthorized, message: "authentication required".to_owned() };
    let response = answer(StatusCode::UNAUTHORIZED, error.to_json());
    match challenge {
        Some(challenge) => challenged(response, challenge),
        None => response,
    }
}

fn challenged(mut response: Response<ResponseBody>, challenge: &str) -> Response<ResponseBody> {
    if let Ok(challenge) = HeaderValue::from_str(challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

fn denied() -> Response<ResponseBody> {
    let message = "the token is for something else".to_owned();
    answer(StatusCode::FORBIDDEN, ErrorBody { code: ErrorCode::Denied, message }.to_json())
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
