//! One exchange with a peer: which connection may be used, who sees the authorization, where redirects may lead.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ferry_store::{Error, Kind, Result};
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::tls::Version;
use reqwest::{Body, Certificate, Client, ClientBuilder, Identity, NoProxy, Proxy, Response, redirect};
use tokio::time::timeout;
use tracing::{trace, warn};
use url::{Host, Url};

use crate::ClientOptions;
use crate::address::{Guard, Refused};
use crate::error::{Tried, What, broken, refused_address};
use crate::realm::{is_loopback, same_origin};
use crate::site::{Proxies, Site, Tls, TlsVersion};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// Connections to hosts that the user named, and apart from them to hosts learnt from the network, so that a learnt
/// address is never reached through a connection that was made without a check.
pub(crate) struct Transport {
    named: Connections,
    /// Made when the first of them is needed, which need not be ever.
    learnt: OnceLock<Option<Connections>>,
    options: ClientOptions,
    site: Site,
    guard: Arc<Guard>,
}

/// Connections for questions, and apart from them for content, which has HTTP/1.1 connections of its own: over HTTP/2 all
/// blobs of a host would share one TCP connection, its congestion window and the small windows of its server.
struct Connections {
    calls: Client,
    content: Client,
}

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cargo {
    /// Little: a question, a manifest, a list.
    Call,
    /// The bytes of a blob, in either direction.
    Content,
}

/// One request as it goes out, and to whom it belongs.
pub(crate) struct Hop<'a> {
    /// What it is for.
    pub(crate) what: &'a What,
    /// The registry that the user named.
    pub(crate) home: &'a Url,
    /// The only origin that sees the authorization.
    pub(crate) owner: &'a Url,
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) authorization: Option<&'a HeaderValue>,
    pub(crate) cargo: Cargo,
}

impl Transport {
    /// Connections as `site` wants them.
    pub(crate) fn new(options: &ClientOptions, site: &Site) -> Result<Self> {
        let guard = Arc::new(Guard::new(site, &options.resolve));
        let named = connections(options, site, |builder| {
            let fixed = options.resolve.iter();
            let builder = fixed.fold(builder, |builder, (host, address)| builder.resolve(host, *address));
            ours(builder, &site.tls)
        })?;
        let learnt = OnceLock::new();
        Ok(Self { named, learnt, options: options.clone(), site: site.clone(), guard })
    }

    /// How long a peer may be silent.
    pub(crate) fn idle(&self) -> Duration {
        self.options.idle_timeout
    }

    /// Sends a request whose body can be sent again, and follows redirects.
    pub(crate) async fn send(&self, hop: Hop<'_>, body: &Bytes) -> Tried<Response> {
        let mut url = hop.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let step = Hop { url: &url, ..hop };
            let sending = self.send_once(&step, Body::from(body.clone()));
            let response = timeout(self.idle(), sending)
                .await
                .map_err(|_| hop.what.failure(Kind::Stalled, format!("no answer from {}", host(&url))))??;
            match redirected(hop.method, &response) {
                // Downwards only from what was never protected.
                Some(next) if url.scheme() == "https" && next.scheme() != "https" => {
                    let to = format!("redirected from HTTPS to {}, which is not", host(&next));
                    return Err(hop.what.failure(Kind::Misdirected, to));
                }
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(hop.what.failure(Kind::Invalid, "redirected too often"))
    }

    /// Sends a request and returns the head of whatever comes back, without a limit of time: the body may be long.
    pub(crate) async fn send_once(&self, hop: &Hop<'_>, body: Body) -> Tried<Response> {
        let client = self.client_for(hop)?;
        let mut request = reqwest::Request::new(hop.method.clone(), hop.url.clone());
        *request.headers_mut() = hop.headers.clone();
        if let Some(authorization) = hop.authorization
            && same_origin(hop.url, hop.owner)
        {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        *request.body_mut() = Some(body);
        let answer = client.execute(request).await;
        let status = answer.as_ref().map(|response| response.status().as_u16()).ok();
        // The query may hold a signature.
        trace!(method = %hop.method, host = host(hop.url), path = hop.url.path(), status, "request");
        answer.map_err(|e| broken(hop.what, &self.way_to(hop.url), &e))
    }

    /// The host of a URL, and the proxy on the way there: it may be the proxy that does not answer.
    fn way_to(&self, url: &Url) -> String {
        let Proxies { http, https, .. } = &self.site.proxies;
        let proxy = if url.scheme() == "https" { https } else { http };
        match proxy.as_ref().filter(|_| !is_loopback(url)) {
            Some(proxy) => format!("{} (proxy {proxy})", host(url)),
            None => host(url),
        }
    }

    /// The connections for a URL, unless it must not be visited at all.
    fn client_for(&self, hop: &Hop<'_>) -> Tried<&Client> {
        let (home, url) = (hop.home, hop.url);
        let refuse = |reason: String| Err(hop.what.failure(Kind::Misdirected, reason));
        if !(url.scheme() == "https" || url.scheme() == "http" && home.scheme() == "http") {
            return refuse(format!("it refers to {}, which is not HTTPS", host(url)));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse(format!("it refers to {} with a user name", host(url)));
        }
        if url.host() == home.host() || is_loopback(home) && is_loopback(url) {
            return Ok(self.named.of(hop.cargo));
        }
        if url.host_str().is_some_and(|name| self.guard.is_proxy(name)) {
            return refuse(format!("it refers to {}, which is a proxy of ours", host(url)));
        }
        // A literal address is not looked up, so the resolver never sees it.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        match literal {
            Some(address) if !self.guard.permits(address) => {
                Err(refused_address(hop.what, Refused { host: host(url), address }))
            }
            None if self.guard.leaves_to_proxy(url) && is_local_name(url) => {
                let detail = "a name that a proxy must not be asked for; except it from the proxy, and allow its network";
                refuse(format!("it refers to {}, {detail}", host(url)))
            }
            _ => self.learnt().map(|learnt| learnt.of(hop.cargo)).ok_or_else(|| {
                hop.what.failure(Kind::Invalid, "connections to other hosts cannot be set up")
            }),
        }
    }

    fn learnt(&self) -> Option<&Connections> {
        let make = || {
            let resolver = || Arc::clone(&self.guard);
            let guarded =
                connections(&self.options, &self.site, |builder| Ok(builder.dns_resolver(resolver())));
            guarded.inspect_err(|error| warn!(%error, "no connections to other hosts")).ok()
        };
        self.learnt.get_or_init(make).as_ref()
    }
}

/// Where a redirect leads, if it is one that may be followed: content is only sent again where the status asks for it.
fn redirected(method: &Method, response: &Response) -> Option<Url> {
    let follows = match response.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => false,
    };
    let target = response.headers().get(LOCATION)?.to_str().ok()?;
    let target = response.url().join(target).ok()?;
    follows.then_some(target)
}

/// The host and port of a URL, which is all of it that may be shown.
pub(crate) fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

impl Connections {
    fn of(&self, cargo: Cargo) -> &Client {
        match cargo {
            Cargo::Call => &self.calls,
            Cargo::Content => &self.content,
        }
    }
}

/// What is shown to, and believed of, the registry's own host only.
fn ours(builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder> {
    let builder = builder.tls_danger_accept_invalid_certs(tls.accept_any);
    let Some(identity) = &tls.identity else { return Ok(builder) };
    // What was read may be a part of a key, so it is not repeated.
    let unreadable = |_| {
        let detail = "the client certificate and its key cannot be read as PEM";
        Error::new(Kind::Invalid, "set up", "the HTTP client", detail)
    };
    let identity = Identity::from_pem(identity.expose().as_bytes()).map_err(unreadable)?;
    Ok(builder.identity(identity))
}

fn connections(
    options: &ClientOptions,
    site: &Site,
    special: impl Fn(ClientBuilder) -> Result<ClientBuilder>,
) -> Result<Connections> {
    let content = build(site, || special(basics(options, site)?.http1_only()))?;
    Ok(Connections { calls: build(site, || special(basics(options, site)?))?, content })
}

/// Connections for questions to somebody who is no registry.
pub(crate) fn plain_client(options: &ClientOptions, site: &Site) -> Result<Client> {
    build(site, || basics(options, site))
}

fn failed(error: reqwest::Error) -> Error {
    Error::new(Kind::Invalid, "set up", "the HTTP client", error.to_string()).caused_by(error)
}

fn build(site: &Site, builder: impl Fn() -> Result<ClientBuilder>) -> Result<Client> {
    let roots = site.tls.roots.iter().map(|pem| Certificate::from_pem_bundle(pem));
    let roots = roots.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?.concat();
    builder()?.tls_certs_merge(roots.clone()).build().or_else(|error| {
        // A system without root certificates can still use loopback and the roots that it was given.
        warn!(%error, "no root certificates of the system");
        builder()?.tls_certs_only(roots).build().map_err(failed)
    })
}

/// Nothing here limits the time of a whole exchange or of reading: a long upload and a slow reader of our own are no
/// fault of the peer, so silence is measured where we wait for it.
fn basics(options: &ClientOptions, site: &Site) -> Result<ClientBuilder> {
    let oldest = match site.tls.oldest {
        None | Some(TlsVersion::Tls12) => Version::TLS_1_2,
        Some(TlsVersion::Tls13) => Version::TLS_1_3,
    };
    let builder = Client::builder()
        .user_agent(&options.user_agent)
        .connect_timeout(options.connect_timeout)
        .pool_max_idle_per_host(options.connections_per_host)
        .pool_idle_timeout(Duration::from_secs(50))
        .tcp_keepalive(Duration::from_secs(15))
        .http2_adaptive_window(true)
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .tls_version_min(oldest);
    through(builder, &site.proxies)
}

fn through(mut builder: ClientBuilder, proxies: &Proxies) -> Result<ClientBuilder> {
    let except = NoProxy::from_string(&proxies.excepted());
    if let Some(proxy) = &proxies.http {
        builder = builder.proxy(Proxy::http(proxy.url().clone()).map_err(failed)?.no_proxy(except.clone()));
    }
    if let Some(proxy) = &proxies.https {
        builder = builder.proxy(Proxy::https(proxy.url().clone()).map_err(failed)?.no_proxy(except));
    }
    Ok(builder)
}

/// Whether a name is of the kind that only means something inside a network.
fn is_local_name(url: &Url) -> bool {
    let Some(Host::Domain(name)) = url.host() else { return false };
    let name = name.trim_end_matches('.');
    let below = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    !name.contains('.') || ["localhost", "local", "internal", "lan", "home.arpa"].into_iter().any(below)
}
