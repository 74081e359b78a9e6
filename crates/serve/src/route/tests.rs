use http::StatusCode;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What a request comes to; `None` if it is for no repository.
fn read(method: &Method, target: &str) -> Result<Option<Call>, Failure> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let query = Query::parse(query);
    match Path::parse(path)?.to {
        To::Ping => read_only(method).map(|()| None),
        To::Catalog => catalog(method, &query).map(|_| None),
        To::Repository(spot) => Call::parse(method, &spot, spot.own_name()?, &query).map(Some),
    }
}

fn parse(method: Method, target: &str) -> Result<Call, Failure> {
    read(&method, target).map(|call| call.expect("a repository"))
}

fn status(method: Method, target: &str) -> StatusCode {
    read(&method, target).unwrap_err().into_response().status()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[test]
fn the_last_word_splits_the_path() {
    let reference = Reference::Tag("x".parse().unwrap());
    for repository in ["a", "a/b/c", "manifests", "a/blobs/uploads", "tags/list", "a/referrers/b"] {
        let target = format!("/v2/{repository}/manifests/x");
        let expected = Call::ReadManifest { name: name(repository), reference: reference.clone() };
        assert_eq!(parse(Method::GET, &target).unwrap(), expected);
        let Call::Tags { name: listed, .. } =
            parse(Method::GET, &format!("/v2/{repository}/tags/list")).unwrap()
        else {
            panic!("not a listing")
        };
        assert_eq!(listed, name(repository));
    }
}

#[test]
fn uploads_begin_in_four_ways() {
    let begin = |query: &str| match parse(Method::POST, &format!("/v2/a/b/blobs/uploads/{query}")).unwrap() {
        Call::Begin { begin, .. } => begin,
        other => panic!("{other:?}"),
    };
    let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
    assert_eq!(begin(""), Begin::Session);
    assert_eq!(begin("?digest-algorithm=sha512"), Begin::Session);
    assert_eq!(begin(&format!("?digest=sha256:{HEX}")), Begin::Whole(digest));
    assert_eq!(begin(&format!("?mount=sha256%3A{HEX}")), Begin::Mount { digest, from: None });
    let from = Some(name("c/d"));
    assert_eq!(begin(&format!("?from=c%2Fd&mount=sha256:{HEX}")), Begin::Mount { digest, from });
    assert!(parse(Method::POST, "/v2/a/blobs/uploads").is_ok(), "the last slash is often forgotten");
}

#[test]
fn upload_tokens_are_opaque() {
    let Call::Append { token, .. } = parse(Method::PATCH, "/v2/a/blobs/uploads/x%2Fy?z=1").unwrap() else {
        panic!("not an upload")
    };
    assert_eq!(token.expose(), "x/y");
    assert_eq!(status(Method::PUT, "/v2/a/blobs/uploads/x"), StatusCode::BAD_REQUEST);
}

#[test]
fn bad_grammar_is_400() {
    for target in [
        "/v2/UPPER/manifests/x",
        "/v2/a/../b/manifests/x",
        "/v2//manifests/x",
        "/v2/manifests/x",
        "/v2/a%2fb/manifests/x",
        "/v2/a/manifests/-x",
        "/v2/a/manifests/x:y",
        "/v2/a/manifests/",
        "/v2/a/blobs/sha256:abc",
        "/v2/a/blobs/md5:00",
        "/v2/a/referrers/latest",
        "/v2/a/tags/list?n=many",
        "/v2/_catalog?n=-1",
    ] {
        assert_eq!(status(Method::GET, target), StatusCode::BAD_REQUEST, "{target}");
    }
    let mount = format!("/v2/a/blobs/uploads/?mount=sha256:{HEX}&from=A");
    assert_eq!(status(Method::POST, &mount), StatusCode::BAD_REQUEST);
}

#[test]
fn what_stands_before_the_root_is_kept() {
    for (path, base, name) in [
        ("/v2/a/manifests/x", "", "a"),
        ("/docker.io/v2/a/b/manifests/x", "/docker.io", "a/b"),
        ("/a/b/v2/c/v2/d/manifests/x", "/a/b", "c/v2/d"),
        ("//v2/a/manifests/x", "/", "a"),
        ("/v2x/v2/r:1/a/manifests/x", "/v2x", "r:1/a"),
    ] {
        let parsed = Path::parse(path).unwrap();
        let To::Repository(spot) = parsed.to else { panic!("{path}") };
        assert_eq!((parsed.base, spot.name), (base, name), "{path}");
    }
    for path in ["/docker.io/v2", "/docker.io/v2/", "/v2"] {
        assert!(matches!(Path::parse(path).unwrap().to, To::Ping), "{path}");
    }
}

#[test]
fn unknown_paths_and_methods() {
    for target in ["/", "*", "", "/v1/", "/v2/a", "/v2/a/tags", "/v2x/a/manifests/b", "/metrics"] {
        assert_eq!(status(Method::GET, target), StatusCode::NOT_FOUND, "{target}");
    }
    let blob = format!("/v2/a/blobs/sha256:{HEX}");
    for target in ["/v2/", "/v2/_catalog", "/v2/a/tags/list", "/v2/a/manifests/b", &blob] {
        assert_eq!(status(Method::PATCH, target), StatusCode::METHOD_NOT_ALLOWED, "{target}");
    }
    assert_eq!(status(Method::GET, "/v2/a/blobs/uploads/"), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn pages_are_bounded() {
    let Call::Tags { page, .. } = parse(Method::GET, "/v2/a/tags/list?n=99999999&last=b").unwrap() else {
        panic!("not a listing")
    };
    assert_eq!(page, PageRequest { after: Some(Cursor::after("b")), limit: Some(MAX_NAMES) });
    let tags = "&tag=x".repeat(MAX_TAGS + 1);
    assert_eq!(status(Method::PUT, &format!("/v2/a/manifests/b?{tags}")), StatusCode::URI_TOO_LONG);
}

proptest::proptest! {
    #[test]
    fn no_target_panics(
        method in proptest::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"]),
        target in "/v2/([a-z%/._:]{0,12}|/blobs/|/uploads/|/manifests/|/tags/list|/referrers/|sha256:|\\PC|\\?|&|=){0,8}",
    ) {
        let _ = read(&Method::from_bytes(method.as_bytes()).unwrap(), &target);
    }
}
