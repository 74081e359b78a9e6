//! A token server as distribution specifies it (`docs/content/spec/auth/token.md`, `oauth.md`, `jwt.md`): it signs what
//! [`crate::peers::DockerRegistry`] verifies.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize, SigningKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::form_urlencoded;

use crate::peers::{PASSWORD, USER};

/// The service that tokens are for, and who says so.
pub const SERVICE: &str = "registry.ferry.test";

/// What is taken in place of [`PASSWORD`].
pub const IDENTITY_TOKEN: &str = "an-identity-token";

/// Gives tokens: everything to [`USER`], reading `public/…` to everybody.
pub struct TokenServer {
    address: SocketAddr,
    certificate: String,
    asked: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

struct Signer {
    key: KeyPair,
    /// The certificate as JWT headers carry it.
    chain: String,
    life: Duration,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    /// Starts one whose tokens are good for `life`.
    ///
    /// # Errors
    /// If no key can be made or no loopback port be had.
    pub async fn start(life: Duration) -> io::Result<Self> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(io::Error::other)?;
        let params = CertificateParams::new(vec![SERVICE.to_owned()]).map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, asked) = (listener.local_addr()?, Arc::<Mutex<Vec<String>>>::default());
        let signer =
            Signer { key, chain: STANDARD.encode(certificate.der()), life, asked: Arc::clone(&asked) };
        let accepting = tokio::spawn(accept(listener, Arc::new(signer)));
        Ok(Self { address, certificate: certificate.pem(), asked, accepting })
    }

    /// Where tokens are asked for.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// What tokens are verified with, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The scopes of every request so far, one text each.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, signer: Arc<Signer>) {
    while let Ok((stream, _)) = listener.accept().await {
        let signer = Arc::clone(&signer);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&signer), request));
            // A client that goes away early is no concern here.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    signer: Arc<Signer>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (status, answer) = match signer.token(&parts, &body) {
        Some(answer) => (StatusCode::OK, answer),
        None => (StatusCode::UNAUTHORIZED, json!({"details": "incorrect username or password"})),
    };
    let mut response = Response::new(Full::new(answer.to_string().into()));
    *response.status_mut() = status;
    Ok(response)
}

impl Signer {
    fn token(&self, parts: &Parts, body: &[u8]) -> Option<Value> {
        let text =
            if parts.method == Method::POST { body } else { parts.uri.query().unwrap_or("").as_bytes() };
        let fields: Vec<(String, String)> = form_urlencoded::parse(text).into_owned().collect();
        let scopes: Vec<&str> =
            fields.iter().filter(|(key, _)| key == "scope").map(|(_, v)| v.as_str()).collect();
        let scopes = scopes.join(" ");
        lock(&self.asked).push(scopes.clone());
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let known = match (field("refresh_token"), parts.headers.get(AUTHORIZATION)) {
            (Some(token), _) => (token == IDENTITY_TOKEN).then_some(true)?,
            (None, Some(given)) => {
                let right = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
                (given.as_bytes() == right.as_bytes()).then_some(true)?
            }
            (None, None) if parts.method == Method::POST => return None,
            (None, None) => false,
        };
        let token = self.sign(&granted(&scopes, known))?;
        let name = if parts.method == Method::POST { "access_token" } else { "token" };
        Some(json!({name: token, "expires_in": self.life.as_secs()}))
    }

    fn sign(&self, access: &[Value]) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [self.chain]});
        let claims = json!({"iss": SERVICE, "aud": SERVICE, "sub": USER, "jti": "1", "iat": now, "nbf": now - 10,
            "exp": now + self.life.as_secs(), "access": access});
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// What of the scopes asked for is granted. As the specification says, less than was asked for is no error.
fn granted(scopes: &str, known: bool) -> Vec<Value> {
    let grant = |scope: &str| {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let open = name.starts_with("public/");
        let actions = actions.split(',').filter(|action| known || open && *action == "pull");
        Some(json!({"type": kind, "name": name, "actions": actions.collect::<Vec<_>>()}))
    };
    scopes.split(' ').filter_map(grant).collect()
}
