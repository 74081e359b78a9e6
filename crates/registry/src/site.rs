//! How a registry is reached: in the clear or not, with which certificates, through which proxy.

use std::fmt;
use std::str::FromStr;

use ferry_oci::Registry;
use ferry_store::{Error, Kind};
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::{Habit, Network, Secret};

/// How one registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Whether the registry is spoken to in plain HTTP; `None` does so only if its name can only mean this machine.
    pub plain_http: Option<bool>,
    /// What is expected of certificates, and shown of our own.
    pub tls: Tls,
    /// The proxies on the way there, and to the hosts that it refers to.
    pub proxies: Proxies,
    /// Networks in which hosts that this registry refers to may be although they are not public.
    pub allow_networks: Vec<Network>,
    /// How the registry takes large blobs, if that is not what its name says.
    pub habit: Option<Habit>,
}

impl Site {
    /// Whether `registry`, if it is reached like this, is spoken to in plain HTTP.
    pub fn is_plain_http(&self, registry: &Registry) -> bool {
        self.plain_http.unwrap_or(registry.is_loopback())
    }
}

/// TLS towards a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Root certificates to trust beside those of the system, each a PEM bundle. They count for the hosts that the
    /// registry refers to as well: behind a private authority these are mostly its own storage.
    pub roots: Vec<Vec<u8>>,
    /// Our certificate and its private key, in PEM; shown to the registry's own host only.
    pub identity: Option<Secret>,
    /// The oldest version that is spoken; `None` is TLS 1.2.
    pub oldest: Option<TlsVersion>,
    /// Takes any certificate of the registry's own host for good. Whoever sits in between can then read and change
    /// everything, so a warning is logged.
    pub accept_any: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Which proxy is asked for which URL. A registry on loopback is never asked through one.
///
/// A proxy looks up names itself (except `socks5:`, where we do), so what a registry refers to is then checked by its
/// name and not by its address: literal addresses that are not public, and names that only mean something locally, are
/// refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:` URLs.
    pub http: Option<ProxyUrl>,
    /// For `https:` URLs.
    pub https: Option<ProxyUrl>,
    /// Hosts that are asked directly, as in the environment variable `NO_PROXY`: names with all below them, addresses,
    /// networks; `*` for all.
    pub except: String,
}

/// This machine is never looked for behind a proxy.
const ITSELF: &str = "localhost,127.0.0.0/8,::1";

impl Proxies {
    /// What is asked directly.
    pub(crate) fn excepted(&self) -> String {
        format!("{},{ITSELF}", self.except)
    }

    /// Tells which proxy a URL goes to.
    pub(crate) fn matcher(&self) -> Matcher {
        let url =
            |proxy: &Option<ProxyUrl>| proxy.as_ref().map(|proxy| proxy.0.to_string()).unwrap_or_default();
        Matcher::builder().http(url(&self.http)).https(url(&self.https)).no(self.excepted()).build()
    }
}

/// Where a proxy is: `http:`, `https:`, `socks5:` or `socks5h:`, maybe with user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for ProxyUrl {
    type Err = Error;

    /// Reads `SCHEME://[USER:PASSWORD@]HOST[:PORT]`; without a scheme it is HTTP, as in the environment of curl and Go.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            // What was written may hold a password.
            let detail =
                "it is http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT";
            Error::new(Kind::Invalid, "read", "the address of a proxy", detail)
        };
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&whole).map_err(|_| bad())?;
        let known = matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h");
        if known && url.has_host() && matches!(url.path(), "" | "/") { Ok(Self(url)) } else { Err(bad()) }
    }
}

impl fmt::Display for ProxyUrl {
    /// The URL without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), crate::transport::host(&self.0))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_shown_without_their_password() {
        for (text, shown) in [
            ("proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("socks5h://me:secret@[::1]:1080", "socks5h://[::1]:1080"),
            ("https://proxy.example.com/", "https://proxy.example.com"),
        ] {
            let proxy: ProxyUrl = text.parse().unwrap();
            assert_eq!((proxy.to_string().as_str(), format!("{proxy:?}").as_str()), (shown, shown));
        }
        for bad in ["", "ftp://x", "http://", "socks4://x", "http://secret@/", "http://x/path"] {
            let error = bad.parse::<ProxyUrl>().unwrap_err();
            assert!(!error.to_string().contains("secret"), "{bad}: {error}");
        }
    }
}
