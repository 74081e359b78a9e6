use ferry_oci::{Digest, Manifest, media_type, next_link};
use serde_json::Value;

use crate::client::{Reply, Server};

fn strings(reply: &Reply, key: &str) -> Vec<String> {
    let value: Value = serde_json::from_slice(&reply.body).unwrap();
    value[key].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// Follows the links and collects what `items` finds on each page.
async fn walk(server: &Server, first: &str, items: impl Fn(&Reply) -> Vec<String>) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = Some(first.to_owned());
    while let Some(at) = target {
        let reply = server.get(&at).await;
        assert_eq!(reply.status, 200, "{at}");
        pages.push(items(&reply));
        target = next_link(reply.header("link")).map(str::to_owned);
    }
    pages
}

#[tokio::test]
async fn tags_come_in_pages() {
    let server = Server::start().await;
    for tag in ["b", "a", "C", "d-1", "_"] {
        server.push_image("team/app", tag, "").await;
    }
    let all = server.get("/v2/team/app/tags/list").await;
    assert_eq!(all.header("link"), "");
    assert_eq!(strings(&all, "tags"), ["C", "_", "a", "b", "d-1"]);
    let pages = walk(&server, "/v2/team/app/tags/list?n=2", |reply| strings(reply, "tags")).await;
    assert_eq!(pages, [vec!["C", "_"], vec!["a", "b"], vec!["d-1"]]);
    let after = server.get("/v2/team/app/tags/list?last=a").await;
    assert_eq!(strings(&after, "tags"), ["b", "d-1"]);
    let none = server.get("/v2/team/app/tags/list?n=0").await;
    assert_eq!((strings(&none, "tags").len(), none.header("link")), (0, ""));
}

#[tokio::test]
async fn a_repository_without_tags_has_an_empty_list() {
    let server = Server::start().await;
    server.push_blob("a", b"x").await;
    assert_eq!(server.get("/v2/a/tags/list").await.body, br#"{"name":"a","tags":[]}"#);
}

#[tokio::test]
async fn the_catalogue() {
    let server = Server::start().await;
    assert_eq!(server.get("/v2/_catalog").await.body, br#"{"repositories":[]}"#);
    for name in ["b/c", "a", "z"] {
        server.push_blob(name, b"x").await;
    }
    let pages = walk(&server, "/v2/_catalog?n=2", |reply| strings(reply, "repositories")).await;
    assert_eq!(pages, [vec!["a", "b/c"], vec!["z"]]);
}

fn digests(reply: &Reply) -> Vec<String> {
    let index = Manifest::parse(Some(reply.header("content-type")), reply.body.clone().into()).unwrap();
    assert_eq!(index.media_type(), media_type::OCI_INDEX);
    index.children().iter().map(|child| child.digest.to_string()).collect()
}

#[tokio::test]
async fn referrers() {
    let server = Server::start().await;
    let subject = Digest::sha256(b"not even here");
    let target = format!("/v2/a/referrers/{subject}");
    let nothing = server.get(&target).await;
    assert_eq!((nothing.status, nothing.header("content-type")), (200, media_type::OCI_INDEX));
    assert!(digests(&nothing).is_empty());
    let subject_field =
        format!(r#","subject":{{"mediaType":"{}","digest":"{subject}","size":5}}"#, media_type::OCI_MANIFEST);
    let mut pushed = Vec::new();
    for kind in ["application/vnd.x+json", "application/vnd.x+json", "application/y"] {
        let extra =
            format!(r#","artifactType":"{kind}","annotations":{{"n":"{}"}}{subject_field}"#, pushed.len());
        let (digest, manifest) = server.push_image("a", "", &extra).await;
        let again = server.put_manifest(&format!("/v2/a/manifests/{digest}"), &manifest).await;
        assert_eq!(again.header("oci-subject"), subject.to_string());
        pushed.push(digest.to_string());
    }
    let all = server.get(&target).await;
    assert_eq!((digests(&all).len(), all.header("oci-filters-applied")), (3, ""));
    for query in ["artifactType=application/vnd.x+json", "artifactType=application%2Fvnd.x%2Bjson"] {
        let some = server.get(&format!("{target}?{query}")).await;
        assert_eq!(some.header("oci-filters-applied"), "artifactType");
        let found = digests(&some);
        assert!(found.len() == 2 && found.iter().all(|digest| pushed[..2].contains(digest)));
    }
    let pages = walk(&server, &format!("{target}?n=1&artifactType=application/vnd.x%2Bjson"), digests).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    let invalid = server.get("/v2/a/referrers/sha256:x").await;
    assert_eq!((invalid.status, invalid.code().as_str()), (400, "DIGEST_INVALID"));
}
