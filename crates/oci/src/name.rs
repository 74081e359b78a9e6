use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::Malformed;

/// The longest repository name accepted (distribution/reference: path up to 255 characters).
const MAX_NAME: usize = 255;

macro_rules! text_type {
    ($type:ident) => {
        impl $type {
            /// The text as it goes over the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

/// A repository name without its registry: `library/alpine` (distribution-spec, "Pulling manifests", `<name>`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);
text_type!(Name);

impl FromStr for Name {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: &str| Malformed::new("repository name", text, reason);
        if text.len() > MAX_NAME {
            return Err(bad("longer than 255 characters"));
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("a repository name must be lower case"));
        }
        if !text.split('/').all(is_path_component) {
            return Err(bad(
                "its parts are a-z and 0-9, separated by one '.', one or two '_', or any number of '-'",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// `[a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let mut rest = part.as_bytes();
    loop {
        let alnum = rest.iter().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if alnum == 0 {
            return false;
        }
        rest = &rest[alnum..];
        let separator = rest.iter().take_while(|b| matches!(b, b'.' | b'_' | b'-')).count();
        match &rest[..separator] {
            [] => return rest.is_empty(),
            b"." | b"_" | b"__" => {}
            run if run.iter().all(|b| *b == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}` (distribution-spec, "Pulling manifests", `<tag>`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);
text_type!(Tag);

impl Tag {
    /// The tag that a reference without tag and digest means.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }
}

impl FromStr for Tag {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "tag",
                text,
                "a tag is 1 to 128 letters, digits, '_', '.' and '-', and does not begin with '.' or '-'",
            ))
        }
    }
}

/// The address of a registry as references write it: `HOST` or `HOST:PORT`, lower case unless it is a bare word.
///
/// All spellings of Docker Hub become `docker.io`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(String);
text_type!(Registry);

impl Registry {
    /// Docker Hub, the registry of references that name none.
    pub fn docker_hub() -> Self {
        Self("docker.io".to_owned())
    }

    /// Whether this is Docker Hub.
    pub fn is_docker_hub(&self) -> bool {
        self.0 == "docker.io"
    }

    /// The host without port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        split_port(&self.0).0
    }

    /// Whether the host can only be this machine: `localhost`, `*.localhost`, 127.0.0.0/8 or `[::1]`.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.ends_with(".localhost")
            || ip_literal(host).is_some_and(|ip| ip.is_loopback())
    }
}

fn ip_literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

impl FromStr for Registry {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: &str| Malformed::new("registry", text, reason);
        if text.contains("://") {
            return Err(bad("write it without scheme, as in registry.example.com:5000"));
        }
        let (host, port) = split_port(text);
        if let Some(port) = port
            && (port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
        {
            return Err(bad("the port must be a number up to 65535"));
        }
        if host.starts_with('[') {
            if ip_literal(host).is_none() {
                return Err(bad("not an IPv6 address in brackets"));
            }
        } else if !host.split('.').all(is_domain_component) || host.len() > 253 {
            return Err(bad("not a host name or address, as in registry.example.com:5000"));
        }
        let lower = text.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => Self::docker_hub(),
            // Upper case is all that tells `Foo/bar` from a repository of Docker Hub.
            bare if bare != "localhost" && !bare.contains(['.', ':']) => Self(text.to_owned()),
            _ => Self(lower),
        })
    }
}

fn is_domain_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes.first().is_some_and(|b| *b != b'-')
        && bytes.last().is_some_and(|b| *b != b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "library/alpine", "a-b/c_d/e__f/g.h", "a---b", "k8s.gcr.io/pause", "0"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "a:b", "a/../b", "é",
            "a b",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(255).parse::<Name>().is_ok());
        assert!("a".repeat(256).parse::<Name>().is_err());
    }

    #[test]
    fn tags() {
        for good in ["latest", "v1.2.3", "_x", "1", "A-b.C_d", &"t".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good:?}");
        }
        for bad in ["", ".x", "-x", "a:b", "a/b", "a b", &"t".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn registries() {
        for (text, canonical, loopback) in [
            ("docker.io", "docker.io", false),
            ("index.docker.io", "docker.io", false),
            ("Quay.IO", "quay.io", false),
            ("localhost:5000", "localhost:5000", true),
            ("a.localhost", "a.localhost", true),
            ("127.1.2.3:80", "127.1.2.3:80", true),
            ("[::1]:5000", "[::1]:5000", true),
            ("[2001:db8::1]", "[2001:db8::1]", false),
            ("localhost.example.com", "localhost.example.com", false),
            ("128.0.0.1", "128.0.0.1", false),
        ] {
            let registry: Registry = text.parse().unwrap();
            assert_eq!(registry.as_str(), canonical);
            assert_eq!(registry.is_loopback(), loopback, "{text}");
        }
        for bad in ["", "a:", "a:x", "a:99999", "-a", "a..b", "[::1", "[zz]", "a/b", "user@host"] {
            assert!(bad.parse::<Registry>().is_err(), "{bad:?}");
        }
    }
}
