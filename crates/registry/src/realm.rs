//! What may go to a host that is not the registry itself.

use url::{Host, Url};

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

/// Domains below which each host is somebody else's registry, and gives its tokens itself (Azure/acr "AAD-OAuth";
/// Artifact Registry and ECR documentation).
const TENANTS: [&str; 5] = [".azurecr.io", ".azurecr.cn", ".azurecr.us", ".pkg.dev", ".amazonaws.com"];

/// The name that somebody registered and that `host` is below (publicsuffix.org).
fn registered(host: &str) -> Option<&str> {
    let tenant = TENANTS.iter().any(|domain| host.ends_with(domain));
    if tenant { Some(host) } else { psl::domain_str(host) }
}

/// Whether a registry's credentials may be sent to a token realm: both are the same host, or below the same name that
/// somebody registered, as `registry.gitlab.com` and `gitlab.com` are. Addresses have to be equal.
pub(crate) fn may_receive_credentials(registry: &Url, realm: &Url) -> bool {
    match (registry.host(), realm.host()) {
        (Some(Host::Domain(registry)), Some(Host::Domain(realm))) => {
            let ours = registered(registry);
            registry == realm || ours.is_some() && ours == registered(realm)
        }
        (Some(registry), Some(realm)) => registry == realm,
        _ => false,
    }
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
            ("registry.gitlab.com", "gitlab.com"),
            ("example.com", "auth.example.com"),
            ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
        ] {
            assert!(may_receive_credentials(&url(registry), &url(realm)), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("quay.io", "evil.io"),
            ("quay.io", "auth.quay.io.evil.com"),
            ("mine.github.io", "yours.github.io"),
            ("github.io", "yours.github.io"),
            ("mine.azurecr.io", "yours.azurecr.io"),
            ("europe-docker.pkg.dev", "us-docker.pkg.dev"),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "bucket.s3.amazonaws.com"),
            ("localhost", "x.localhost"),
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
