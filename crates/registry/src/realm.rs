//! What may go to a host that is not the registry itself.

use url::{Host, Url};

/// Labels that stand between a country and a name that anyone can register there.
const SHARED_SECOND_LEVEL: [&str; 14] =
    ["ac", "co", "com", "edu", "gob", "gov", "go", "mil", "ne", "net", "nom", "or", "org", "gouv"];

/// Whether two URLs have the same scheme, host and port.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Whether a URL can only mean this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether a registry's credentials may be sent to a token realm: both are the same host, or share the domain that
/// somebody registered. Without a list of public suffixes that is the last two labels of hosts with at least three,
/// and three of four under suffixes like `co.uk`. Docker Hub's pair passes by the same rule.
pub(crate) fn may_receive_credentials(registry: &Url, realm: &Url) -> bool {
    match (registry.host(), realm.host()) {
        (Some(Host::Domain(registry)), Some(Host::Domain(realm))) => {
            registry == realm
                || matches!((domain(registry), domain(realm)), (Some(ours), Some(theirs)) if ours == theirs)
        }
        (Some(registry), Some(realm)) => registry == realm,
        _ => false,
    }
}

/// The registrable domain of a host that has more labels than that.
fn domain(host: &str) -> Option<Vec<&str>> {
    let labels: Vec<&str> = host.split('.').collect();
    let country = labels.last()?.len() == 2;
    let keep = match labels.iter().rev().nth(1) {
        Some(second) if country && SHARED_SECOND_LEVEL.contains(second) => 3,
        _ => 2,
    };
    (labels.len() > keep).then(|| labels[labels.len() - keep..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str) -> Url {
        Url::parse(&format!("https://{host}/x")).unwrap()
    }

    #[test]
    fn credentials_stay_with_their_domain() {
        for (registry, realm) in [
            ("quay.io", "quay.io"),
            ("quay.io:8443", "quay.io"),
            ("registry-1.docker.io", "auth.docker.io"),
            ("docker.elastic.co", "docker-auth.elastic.co"),
            ("registry.shop.co.uk", "auth.shop.co.uk"),
            ("127.0.0.1:5000", "127.0.0.1:5001"),
        ] {
            assert!(may_receive_credentials(&url(registry), &url(realm)), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("quay.io", "evil.io"),
            ("quay.io", "auth.quay.io.evil.com"),
            ("registry.example.com", "example.com"),
            ("example.com", "auth.example.com"),
            ("good.co.uk", "evil.co.uk"),
            ("registry.good.com.cn", "registry.evil.com.cn"),
            ("10.0.0.1", "11.0.0.1"),
            ("127.0.0.1", "localhost"),
        ] {
            assert!(!may_receive_credentials(&url(registry), &url(realm)), "{registry} {realm}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert!(same_origin(&url("a.b"), &url("a.b:443")));
        assert!(!same_origin(&url("a.b"), &url("a.b:444")));
        assert!(!same_origin(&url("a.b"), &Url::parse("http://a.b:443/").unwrap()));
    }

    #[test]
    fn loopback_is_told_by_the_name() {
        for yes in ["localhost", "x.localhost", "127.8.8.8", "[::1]"] {
            assert!(is_loopback(&url(yes)), "{yes}");
        }
        for no in ["localhost.example.com", "128.0.0.1", "[::2]"] {
            assert!(!is_loopback(&url(no)), "{no}");
        }
    }
}
