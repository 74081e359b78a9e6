//! Sends clients that came without encryption to where there is some.

use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};

/// Where HTTPS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The port of the listener that speaks it.
    pub port: u16,
}

impl Redirect {
    /// The way to the same over HTTPS; `None` if the request does not say which host it is for.
    pub(crate) fn answer(self, parts: &Parts) -> Option<Response<ResponseBody>> {
        let host = parts.headers.get(HOST)?.to_str().ok()?.parse::<http::uri::Authority>().ok()?;
        // Who came without a port came to the usual one, perhaps by way of something that listens there for us, and then the
        // usual port of HTTPS is the one to name.
        let port = match host.port_u16() {
            None | Some(80) => String::new(),
            Some(_) => format!(":{}", self.port),
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let location = format!("https://{}{port}{path}", host.host());
        // 308 keeps the method; a push would become a pull otherwise.
        let answer = answer(StatusCode::PERMANENT_REDIRECT, full("use https\n"));
        Some(answer.with(CONTENT_TYPE, "text/plain").with(LOCATION, location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_named_only_to_those_who_named_one() {
        for (host, target, expected) in [
            ("cr.example.cn", "/v2/a/manifests/b?ns=x", Some("https://cr.example.cn/v2/a/manifests/b?ns=x")),
            ("cr.example.cn:80", "/", Some("https://cr.example.cn/")),
            ("cr.example.cn:5000", "/v2/", Some("https://cr.example.cn:8443/v2/")),
            ("[::1]:5000", "/v2/", Some("https://[::1]:8443/v2/")),
            ("a b", "/", None),
            ("", "/", None),
        ] {
            let request = http::Request::builder().uri(target).header(HOST, host).body(()).unwrap();
            let answer = Redirect { port: 8443 }.answer(&request.into_parts().0);
            let location = answer.map(|answer| answer.headers()[LOCATION].to_str().unwrap().to_owned());
            assert_eq!(location.as_deref(), expected, "{host}");
        }
    }
}
