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
}

struct Grant {
    until: Instant,
    scopes: Vec<String>,
}

impl Guard {
    pub(super) fn require(&mut self, auth: Auth) {
        self.auth = auth;
        self.expire();
    }

    pub(super) fn expire(&mut self) {
        self.tokens.clear();
    }

    /// The refusal of a request, if it lacks credentials.
    pub(super) fn refuse(&self, parts: &Parts, address: SocketAddr) -> Option<Response<ResponseBody>> {
        let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let challenge = match &self.auth {
            Auth::None => return None,
            Auth::Basic(login) if given == Some(login.header().as_str()) => return None,
            Auth::Basic(_) => "Basic realm=\"fake\"".to_owned(),
            Auth::Bearer { .. } => {
                let needed = needed_scopes(parts);
                if given.is_some_and(|given| self.admits(given, &needed)) {
                    return None;
                }
                let scope = needed.iter().map(Scope::to_text).collect::<Vec<_>>().join(" ");
                let scope = if scope.is_empty() { scope } else { format!(",scope=\"{scope}\"") };
                format!("Bearer realm=\"http://{address}/token\",service=\"fake\"{scope}")
            }
        };
        Some(unauthorized(Some(&challenge)))
    }

    fn admits(&self, given: &str, needed: &[Scope]) -> bool {
        let grant = given.strip_prefix("Bearer ").and_then(|token| self.tokens.get(token));
        grant.is_some_and(|grant| {
            grant.until > Instant::now()
                && needed.iter().all(|needed| grant.scopes.iter().any(|scope| needed.is_within(scope)))
        })
    }

    /// Answers `GET /token`.
    pub(super) fn token(&mut self, parts: &Parts) -> Response<ResponseBody> {
        let Auth::Bearer { login, lifetime } = &self.auth else {
            return answer(StatusCode::NOT_FOUND, "{}".to_owned());
        };
        let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if login.as_ref().is_some_and(|login| given != Some(login.header().as_str())) {
            return unauthorized(None);
        }
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let scopes = form_urlencoded::parse(query).filter(|(key, _)| key == "scope");
        let scopes = scopes.flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let grant = Grant { until: Instant::now() + *lifetime, scopes: scopes.collect() };
        let seconds = lifetime.as_millis().div_ceil(1000);
        self.given += 1;
        let token = format!("token-{}", self.given);
        self.tokens.insert(token.clone(), grant);
        answer(StatusCode::OK, json!({"token": token, "expires_in": seconds as u64}).to_string())
    }
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

fn needed_scopes(parts: &Parts) -> Vec<Scope> {
    let path = parts.uri.path();
    let Some(name) = repository(path) else { return Vec::new() };
    let actions = match parts.method {
        Method::GET | Method::HEAD if !path.contains("/blobs/uploads/") => "pull",
        Method::DELETE if !path.contains("/blobs/uploads/") => "delete",
        _ => "pull,push",
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let from = form_urlencoded::parse(query).find(|(key, _)| key == "from");
    let from = from.map(|(_, value)| Scope { repository: value.into_owned(), actions: "pull" });
    [Scope { repository: name.to_owned(), actions }].into_iter().chain(from).collect()
}

fn unauthorized(challenge: Option<&str>) -> Response<ResponseBody> {
    let error = ErrorBody { code: ErrorCode::Unauthorized, message: "authentication required".to_owned() };
    let mut response = answer(StatusCode::UNAUTHORIZED, error.to_json());
    if let Some(challenge) = challenge.and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
