//! The hosts under which a mirror is reached.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ferry_oci::{Malformed, Registry};

use crate::cut;

/// A host as requests ask for it (RFC 9110 section 7.2, `Host`): in lower case, without the dot at its end, an IPv6
/// address in its shortest form, and without the ports that clients leave out (80 and 443).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// The host without its port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a request for `asked` is for this host; without a port this means any.
    pub(crate) fn covers(&self, asked: &Self) -> bool {
        self.name == asked.name && self.port.is_none_or(|port| asked.port == Some(port))
    }

    /// This host at the port that `asked` came to, unless it has one.
    pub(crate) fn at_port_of(&self, asked: &Self) -> Self {
        Self { name: self.name.clone(), port: self.port.or(asked.port) }
    }

    /// Whether it has no name, so that nothing can be below it.
    pub fn is_address(&self) -> bool {
        self.name.starts_with('[') || self.name.parse::<Ipv4Addr>().is_ok()
    }

    /// Whether references can name it: a single word without a port is for them a repository of Docker Hub.
    pub(crate) fn is_written(&self) -> bool {
        self.port.is_some() || self.name.contains(['.', ':']) || self.name == "localhost"
    }

    /// What stands before this host in `asked`: `Some("gcr")` for `gcr.cr.example.cn` below `cr.example.cn`. The port does
    /// not count: in front of a server may be something that listens at another.
    pub(crate) fn below<'a>(&self, asked: &'a Self) -> Option<&'a str> {
        if self.is_address() {
            return None;
        }
        asked.name.strip_suffix(&self.name)?.strip_suffix('.')
    }

    /// The host of that label below this one.
    pub(crate) fn sub(&self, label: &str) -> Self {
        Self { name: format!("{label}.{}", self.name), port: self.port }
    }
}

impl FromStr for Host {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: &str| Malformed { what: "host", input: cut(text), reason: reason.to_owned() };
        if !text.is_ascii() {
            return Err(bad("write an international domain in its ASCII form, which begins with xn--"));
        }
        // The grammar is that of references, which have to name the host.
        let registry: Registry = without_dot(text).parse().map_err(|e: Malformed| bad(&e.reason))?;
        let name = registry.host().to_ascii_lowercase();
        let port = registry.as_str()[name.len()..].strip_prefix(':').and_then(|port| port.parse().ok());
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let name = match address.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
            Some(address) => format!("[{address}]"),
            None => name,
        };
        Ok(Self { name, port: port.filter(|port| ![80, 443].contains(port)) })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.port.iter().try_for_each(|port| write!(f, ":{port}"))
    }
}

/// A host of the mirror that stands for one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// Below the mirror's domain: `gcr` is `gcr.cr.example.cn` at `cr.example.cn`.
    Label(String),
    /// Wherever it is.
    Host(Host),
}

impl FromStr for Alias {
    type Err = Malformed;

    /// A word without dot and port is a label, anything else a whole host.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.contains(['.', ':']) {
            return text.parse().map(Self::Host);
        }
        let legal = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        match legal {
            true => Ok(Self::Label(text.to_ascii_lowercase())),
            false => Err(Malformed {
                what: "alias",
                input: cut(text),
                reason: "a label has 1 to 63 letters, digits and dashes, and no dash at an end".to_owned(),
            }),
        }
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => f.write_str(label),
            Self::Host(host) => host.fmt(f),
        }
    }
}

/// Drops the one dot with which a host name may end (RFC 1034 section 3.1), before a port too.
pub(crate) fn without_dot(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            format!("{}:{port}", host.strip_suffix('.').unwrap_or(host))
        }
        _ => text.strip_suffix('.').unwrap_or(text).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (text, canonical) in [
            ("cr.example.cn", "cr.example.cn"),
            ("CR.Example.CN.", "cr.example.cn"),
            ("cr.example.cn.:8443", "cr.example.cn:8443"),
            ("cr.example.cn:443", "cr.example.cn"),
            ("cr.example.cn:080", "cr.example.cn"),
            ("Mirror", "mirror"),
            ("mirror:5000", "mirror:5000"),
            ("10.0.0.5:5000", "10.0.0.5:5000"),
            ("[0:0:0:0:0:0:0:1]:5000", "[::1]:5000"),
            ("[2001:DB8::0001]", "[2001:db8::1]"),
            ("xn--fiq228c.cn", "xn--fiq228c.cn"),
            ("registry-1.docker.io", "docker.io"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), canonical, "{text}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a..",
            "a b",
            "a/b",
            "a%2fb",
            "a@b",
            "a:",
            "a:b",
            "a:1:2",
            "[::1",
            "[fe80::1%25eth0]",
            "镜像.cn",
            "a\0",
            "a_b",
            "-a.cn",
            "http://a.cn",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ports_count_where_they_are_configured() {
        for (ours, asked, expected) in [
            ("a.cn", "a.cn", true),
            ("a.cn", "A.cn:5000", true),
            ("a.cn:5000", "a.cn:5000", true),
            ("a.cn:5000", "a.cn", false),
            ("a.cn:443", "a.cn", true),
            ("a.cn", "b.a.cn", false),
        ] {
            let host = |text: &str| text.parse::<Host>().unwrap();
            assert_eq!(host(ours).covers(&host(asked)), expected, "{ours} {asked}");
        }
    }

    #[test]
    fn aliases_are_labels_or_hosts() {
        for (text, written, is_label) in [
            ("k8s-GCR", "k8s-gcr", true),
            ("Hub.corp.cn.", "hub.corp.cn", false),
            ("hub:5000", "hub:5000", false),
        ] {
            let alias: Alias = text.parse().unwrap();
            assert_eq!((alias.to_string().as_str(), matches!(alias, Alias::Label(_))), (written, is_label));
        }
        for bad in ["", "-a", "a-", "a_b", "a/b", "a b", "镜", "a..b", &"a".repeat(64)] {
            assert!(bad.parse::<Alias>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_below_a_host() {
        for (ours, asked, expected) in [
            ("cr.example.cn", "gcr.cr.example.cn", Some("gcr")),
            ("cr.example.cn:8443", "gcr.cr.example.cn", Some("gcr")),
            ("cr.example.cn", "a.b.cr.example.cn:1", Some("a.b")),
            ("cr.example.cn", "cr.example.cn", None),
            ("cr.example.cn", "evilcr.example.cn", None),
            ("10.0.0.5", "1.10.0.0.5", None),
        ] {
            let host = |text: &str| text.parse::<Host>().unwrap();
            assert_eq!(host(ours).below(&host(asked)), expected, "{ours} {asked}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "\\PC{0,60}", likely in "[a-zA-Z0-9.:%\\[\\]/-]{0,30}") {
            for text in [text, likely] {
                if let Ok(host) = text.parse::<Host>() {
                    proptest::prop_assert_eq!(host.to_string().parse::<Host>(), Ok(host));
                }
            }
        }
    }
}
