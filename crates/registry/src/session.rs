//! What is needed to go on with an upload in a later process.

use ferry_oci::{Digest, Name, Registry};
use ferry_store::UploadToken;
use http::HeaderMap;
use url::Url;

use crate::request::text;

/// The first word of a token.
const FORMAT: &str = "ferry-upload-1";

/// An upload that a registry has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Where it goes on, as the newest answer says.
    pub(crate) location: Url,
    /// The blob and its size, if they were promised.
    pub(crate) promise: Option<(Digest, u64)>,
    /// Bytes that the registry has confirmed.
    pub(crate) confirmed: u64,
}

impl Session {
    /// The token of the upload, which is of a repository of a registry.
    pub(crate) fn token(&self, registry: &Registry, repository: &Name) -> UploadToken {
        let promise = self.promise.map_or("-".to_owned(), |(digest, size)| format!("{digest}/{size}"));
        let Self { location, confirmed, .. } = self;
        UploadToken::new(format!("{FORMAT} {registry} {repository} {promise} {confirmed} {location}"))
    }

    /// Reads a token; `None` if it is not one of this repository.
    pub(crate) fn read(token: &UploadToken, registry: &Registry, repository: &Name) -> Option<Self> {
        let words: Vec<&str> = token.expose().split(' ').collect();
        let [FORMAT, of, at, promise, confirmed, location] = words[..] else { return None };
        if of != registry.as_str() || at != repository.as_str() {
            return None;
        }
        let promise = match promise.split_once('/') {
            Some((digest, size)) => Some((digest.parse().ok()?, size.parse().ok()?)),
            None if promise == "-" => None,
            None => return None,
        };
        let location = Url::parse(location).ok()?;
        Some(Self { location, promise, confirmed: confirmed.parse().ok()? })
    }

    /// How many bytes a registry says in `Range` that it has (distribution-spec, "Pushing a blob in chunks"). Without a
    /// usable word of it, what it confirmed before.
    pub(crate) fn told(&self, headers: &HeaderMap) -> u64 {
        let Some(range) = text(headers, "range") else { return self.confirmed };
        // Quay answers a status request with a unit, and with the count where the last byte belongs.
        let (range, quay) = range.strip_prefix("bytes=").map_or((range, false), |rest| (rest, true));
        let plain = |last: &&str| last.bytes().all(|b| b.is_ascii_digit());
        let last = range.strip_prefix("0-").filter(plain).and_then(|last| last.parse::<u64>().ok());
        match last {
            // Nothing and one byte look the same in distribution.
            Some(0) if self.confirmed <= 1 => self.confirmed,
            Some(last) if quay => last,
            Some(last) => last.saturating_add(1),
            None => self.confirmed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(confirmed: u64) -> Session {
        let location = Url::parse("https://r.example/v2/a/b/blobs/uploads/1?_state=x%20y==&z").unwrap();
        Session { location, promise: Some((Digest::sha256(b"x"), 7)), confirmed }
    }

    #[test]
    fn a_token_is_read_by_its_own_repository_only() {
        let (registry, name): (Registry, Name) = ("r.example".parse().unwrap(), "a/b".parse().unwrap());
        for session in [session(5), Session { promise: None, ..session(0) }] {
            let token = session.token(&registry, &name);
            assert_eq!(Session::read(&token, &registry, &name), Some(session));
            assert_eq!(Session::read(&token, &registry, &"a/c".parse().unwrap()), None);
            assert_eq!(Session::read(&token, &"s.example".parse().unwrap(), &name), None);
        }
    }

    #[test]
    fn anything_else_is_no_token() {
        let (registry, name): (Registry, Name) = ("r.example".parse().unwrap(), "a/b".parse().unwrap());
        let good = session(5).token(&registry, &name);
        let digest = Digest::sha256(b"x").to_string();
        for bad in [
            String::new(),
            "never-given-out".to_owned(),
            good.expose().replace("-1 ", "-2 "),
            good.expose().replace("https://", "https "),
            good.expose().replace("https://", ""),
            good.expose().replace(&digest, "sha256:0"),
            good.expose().replace("/7 ", "/-7 "),
            format!("{} more", good.expose()),
        ] {
            assert_eq!(Session::read(&UploadToken::new(&*bad), &registry, &name), None, "{bad}");
        }
    }

    #[test]
    fn what_registries_say_that_they_have() {
        let told = |confirmed, range: &str| {
            let headers = HeaderMap::from_iter([(http::header::RANGE, range.parse().unwrap())]);
            session(confirmed).told(&headers)
        };
        assert_eq!(told(0, "0-99"), 100);
        assert_eq!((told(0, "0-0"), told(1, "0-0"), told(7, "0-0")), (0, 1, 1));
        assert_eq!(told(0, "bytes=0-100"), 100);
        assert_eq!((told(5, "bytes=0--1"), told(5, "10-20"), told(5, "0-+20")), (5, 5, 5));
        assert_eq!(session(5).told(&HeaderMap::new()), 5);
        assert_eq!(told(0, "0-18446744073709551615"), u64::MAX);
    }

    proptest::proptest! {
        #[test]
        fn a_token_is_read_back(
            path in "[a-z/%?=&. #\\\\é@:]{0,30}", of in "[a-z]{1,5}\\.io(:[1-9]{2})?", name in "[a-z]{1,5}(/[a-z]{1,5})?",
            confirmed: u64, size: u64, promised: bool,
        ) {
            let (registry, name): (Registry, Name) = (of.parse().unwrap(), name.parse().unwrap());
            let location = Url::parse(&format!("https://{of}/v2/{name}/")).unwrap().join(&path);
            let promise = promised.then(|| (Digest::sha256(path.as_bytes()), size));
            if let Some(location) = location.ok().filter(Url::has_host) {
                let session = Session { location, promise, confirmed };
                let token = session.token(&registry, &name);
                proptest::prop_assert_eq!(Session::read(&token, &registry, &name), Some(session));
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            let (registry, name): (Registry, Name) = ("r.example".parse().unwrap(), "a/b".parse().unwrap());
            let _ = Session::read(&UploadToken::new(text.clone()), &registry, &name);
            if let Ok(value) = http::HeaderValue::from_str(&text) {
                session(1).told(&HeaderMap::from_iter([(http::header::RANGE, value)]));
            }
        }
    }
}
