//! What trusted proxies say of the client behind them.
//!
//! `X-Forwarded-For`, `-Proto` and `-Host`, which nearly all proxies write, or RFC 7239 `Forwarded`. If `X-Forwarded-For` is
//! there it alone counts: a proxy that writes one of the two passes on what clients write into the other, and this is the
//! one that is seldom written. Who has a proxy that writes only `Forwarded` lets it remove `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use ferry_policy::access::IpNet;
use http::uri::Authority;
use http::{HeaderMap, HeaderName};

const FORWARDED: HeaderName = http::header::FORWARDED;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What was found out about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) address: IpAddr,
    /// Whether it speaks HTTPS, if that was said.
    pub(super) secure: Option<bool>,
    /// The host that it asked, if that was said.
    pub(super) host: Option<String>,
}

/// Looks through the proxies between `peer` and the client. What is said counts only as far as those who say it are
/// trusted, and if it is malformed there, not at all.
pub(super) fn look_through(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Seen {
    let nothing = Seen { address: peer, secure: None, host: None };
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return nothing;
    }
    let hops = if headers.contains_key(X_FORWARDED_FOR) {
        by_x(headers)
    } else {
        headers.contains_key(FORWARDED).then(|| by_rfc(headers)).flatten()
    };
    let Some(hops) = hops else { return Seen { ..by_x_without_address(headers, nothing) } };
    let mut found = None;
    for hop in hops.into_iter().rev() {
        let Some(address) = hop.address else { return nothing };
        let ends = !is_trusted(&address);
        found = Some(Seen { address, secure: hop.secure, host: hop.host });
        if ends {
            break;
        }
    }
    found.unwrap_or(nothing)
}

/// What one proxy says of who asked it.
struct Hop {
    /// `None` if it is malformed.
    address: Option<IpAddr>,
    secure: Option<bool>,
    host: Option<String>,
}

/// A proxy may say the scheme and the host alone.
fn by_x_without_address(headers: &HeaderMap, seen: Seen) -> Seen {
    if headers.contains_key(FORWARDED) {
        return seen;
    }
    Seen { secure: last(headers, X_FORWARDED_PROTO).and_then(is_https), host: x_host(headers), ..seen }
}

fn by_x(headers: &HeaderMap) -> Option<Vec<Hop>> {
    let all = joined(headers, X_FORWARDED_FOR)?;
    let secure = last(headers, X_FORWARDED_PROTO).and_then(is_https);
    let host = x_host(headers);
    let hop = |text: &str| Hop { address: address(text.trim()), secure, host: host.clone() };
    Some(all.split(',').map(hop).collect())
}

fn x_host(headers: &HeaderMap) -> Option<String> {
    last(headers, X_FORWARDED_HOST).and_then(host)
}

/// RFC 7239 section 4. `None` if that is not its grammar.
fn by_rfc(headers: &HeaderMap) -> Option<Vec<Hop>> {
    let all = joined(headers, FORWARDED)?;
    split(&all, ',')?.into_iter().map(element).collect()
}

fn element(text: &str) -> Option<Hop> {
    let mut hop = Hop { address: None, secure: None, host: None };
    for pair in split(text, ';')? {
        let (name, value) = pair.trim().split_once('=')?;
        let value = value.trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.address = address(value),
            "proto" => hop.secure = is_https(value),
            "host" => hop.host = host(value),
            _ => {}
        }
    }
    Some(hop)
}

/// Splits at a character that does not stand in quotes; `None` if a quote does not end. None of the values read here has a
/// quote or a backslash of its own.
fn split(text: &str, at: char) -> Option<Vec<&str>> {
    let mut quoted = false;
    let parts = text.split(|c| {
        quoted ^= c == '"';
        c == at && !quoted
    });
    let parts = parts.collect();
    (!quoted).then_some(parts)
}

/// All lines of a header as one; `None` if it is not text.
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let lines: Option<Vec<&str>> = headers.get_all(name).iter().map(|line| line.to_str().ok()).collect();
    Some(lines?.join(","))
}

/// The last entry of a list: what the proxy next to us wrote.
fn last(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(str::trim)
}

/// An address, as it is or with a port: `192.0.2.1:4711`, `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|with: SocketAddr| with.ip()))?;
    Some(address.to_canonical())
}

fn is_https(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("https") => Some(true),
        _ if text.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

/// A host with or without port, and nothing else.
pub(super) fn host(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let authority: Authority = text.parse().ok()?;
    let host = authority.as_str();
    (!authority.host().is_empty() && host.chars().all(plain)).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen of a request from `10.0.0.9`, where `10.0.0.0/8` and `fd00::/8` are trusted.
    fn seen(lines: &[(&str, &str)]) -> String {
        seen_from("10.0.0.9", lines)
    }

    fn seen_from(peer: &str, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        let seen = look_through(&headers, peer.parse().unwrap(), &trusted);
        let scheme = seen.secure.map_or("", |secure| if secure { " https" } else { " http" });
        let host = seen.host.map(|host| format!(" {host}")).unwrap_or_default();
        format!("{}{scheme}{host}", seen.address)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let lines = [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "cr.example.cn"),
        ];
        assert_eq!(seen(&lines), "192.0.2.7 https cr.example.cn");
        assert_eq!(seen_from("192.0.2.1", &lines), "192.0.2.1");
        assert_eq!(seen_from("fd00::1", &lines), "192.0.2.7 https cr.example.cn");
        assert_eq!(seen(&[]), "10.0.0.9");
        assert_eq!(seen(&lines[1..]), "10.0.0.9 https cr.example.cn");
    }

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        let from = |text| seen(&[("x-forwarded-for", text)]);
        for (text, expected) in [
            ("198.51.100.1, 192.0.2.7, 10.0.0.1", "192.0.2.7"),
            ("1.1.1.1, garbage, 192.0.2.7", "192.0.2.7"),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::1, ::ffff:10.0.0.1", "2001:db8::1"),
            // What is malformed where it counts makes all of it worthless.
            ("", "10.0.0.9"),
            ("unknown", "10.0.0.9"),
            ("192.0.2.7, garbage", "10.0.0.9"),
            ("192.0.2.7, garbage, 10.0.0.1", "10.0.0.9"),
            ("192.0.2.7,", "10.0.0.9"),
        ] {
            assert_eq!(from(text), expected, "{text}");
        }
        let lines = [("x-forwarded-for", "192.0.2.8"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(seen(&lines), "192.0.2.7");
    }

    #[test]
    fn the_standard_form_counts_without_the_usual_one() {
        let from = |text| seen(&[("forwarded", text)]);
        for (text, expected) in [
            ("for=192.0.2.7;proto=https;host=cr.example.cn", "192.0.2.7 https cr.example.cn"),
            ("For=\"[2001:db8::1]:4711\" ; by=10.0.0.9", "2001:db8::1"),
            ("for=1.1.1.1, for=192.0.2.7;proto=http, for=10.0.0.1;proto=https", "192.0.2.7 http"),
            ("for=\"192.0.2.7\";host=\"a,b\"", "192.0.2.7"),
            ("for=_hidden", "10.0.0.9"),
            ("for=unknown;proto=https", "10.0.0.9"),
            ("proto=https", "10.0.0.9"),
            ("for=\"192.0.2.7", "10.0.0.9"),
            ("nonsense", "10.0.0.9"),
        ] {
            assert_eq!(from(text), expected, "{text}");
        }
        let both = [("forwarded", "for=1.1.1.1;proto=https"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(seen(&both), "192.0.2.7");
        let both = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "bad")];
        assert_eq!(seen(&both), "10.0.0.9");
    }

    #[test]
    fn hosts_are_hosts() {
        for (text, expected) in [
            ("cr.example.cn", "10.0.0.9 cr.example.cn"),
            ("cr.example.cn:8443", "10.0.0.9 cr.example.cn:8443"),
            ("[::1]:5000", "10.0.0.9 [::1]:5000"),
            ("evil.example, cr.example.cn", "10.0.0.9 cr.example.cn"),
            ("me@cr.example.cn", "10.0.0.9"),
            ("a\"b", "10.0.0.9"),
            ("a/b", "10.0.0.9"),
            ("", "10.0.0.9"),
        ] {
            assert_eq!(seen(&[("x-forwarded-host", text)]), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "[ -~]{0,60}") {
            for name in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
                seen(&[(name, &text)]);
            }
        }
    }
}
