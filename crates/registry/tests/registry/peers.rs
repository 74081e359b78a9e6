//! Debian's `docker-registry`, in the clear and over TLS with HTTP/2.

use std::fs;

use bytes::Bytes;
use ferry_oci::{Digest, Manifest, Reference, Registry, fallback_tag, media_type};
use ferry_registry::{Anonymous, ClientOptions};
use ferry_store::{ByteRange, Kind, PageRequest, Removed, RepositoryMut, Scope};
use ferry_testkit::peers::{DockerRegistry, PASSWORD, RegistryOptions, USER};
use futures_util::future::try_join_all;
use std::sync::Arc;

use crate::support::*;

/// A `docker-registry` under a name that only its certificate and our options know.
struct Tls {
    registry: DockerRegistry,
    certificate: Vec<u8>,
    _dir: tempfile::TempDir,
}

const HOST: &str = "registry.ferry.test";

impl Tls {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let options = RegistryOptions { tls: Some((certificate, key)), ..RegistryOptions::default() };
        let registry = DockerRegistry::start_with(&options).await.unwrap();
        Self { registry, certificate: made.cert.pem().into_bytes(), _dir: dir }
    }

    fn host(&self) -> Registry {
        format!("{HOST}:{}", self.registry.addr().port()).parse().unwrap()
    }

    fn options(&self) -> ClientOptions {
        let resolve = vec![(HOST.to_owned(), "127.0.0.1:0".parse().unwrap())];
        ClientOptions { resolve, ..quick() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_travel_over_tls() {
    let tls = Tls::start().await;
    let options = ClientOptions { usual: trusting(&tls.certificate), ..tls.options() };
    let store = client(options, Anonymous).registry(&tls.host()).unwrap();
    let bytes = content(20, 5_000_000);
    let digest = push(&writer(&store), &bytes).await;
    let blob = reader(&store).blob(&digest, ByteRange::from(1_000_000)).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), bytes.slice(1_000_000..));
    let repository = writer(&store);
    for sent in [2_000_000, 3_000_000] {
        let bytes = content(21, 3_000_000);
        let mut upload = begin(&repository, &bytes).await;
        upload.write(bytes.slice(..sent)).await.unwrap();
        drop(upload);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(reader(&store).stat(&Digest::sha256(&bytes)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_final() {
    let tls = Tls::start().await;
    let store = client(tls.options(), Anonymous).registry(&tls.host()).unwrap();
    let error = reader(&store).stat(&Digest::sha256(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    assert!(error.detail().contains("certificate"), "{error}");
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_no_blob() {
    let registry = DockerRegistry::start().await.unwrap();
    let store = client(quick(), Anonymous).registry(&registry.host()).unwrap();
    let repository = writer(&store);
    for (seed, sent, abort) in [(30, 1, true), (31, 1, false), (32, 900_000, true), (33, 900_000, false)] {
        let bytes = content(seed, 900_000);
        let mut upload = begin(&repository, &bytes).await;
        upload.write(bytes.slice(..sent)).await.unwrap();
        if abort {
            upload.abort().await.unwrap();
        } else {
            drop(upload);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(repository.stat(&Digest::sha256(&bytes)).await.unwrap(), None);
        push(&repository, &bytes).await;
    }
}

async fn referrer(repository: &Arc<dyn RepositoryMut>, subject: Digest, seed: u8) -> Manifest {
    let config = push(repository, &Bytes::from_static(b"{}")).await;
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","artifactType":"application/vnd.example.{seed}","config":{{"mediaType":"{empty}","digest":"{config}","size":2}},"layers":[],"subject":{{"mediaType":"{kind}","digest":"{subject}","size":1}}}}"#,
        kind = media_type::OCI_MANIFEST,
        empty = media_type::OCI_EMPTY,
    );
    Manifest::parse(None, Bytes::from(text)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_pushed_at_once_are_all_listed() {
    let registry = DockerRegistry::start().await.unwrap();
    let store = client(quick(), Anonymous).registry(&registry.host()).unwrap();
    let repository = writer(&store);
    let subject = Digest::sha256(b"never pushed");
    let mut manifests = Vec::new();
    for seed in 0..6 {
        manifests.push(referrer(&repository, subject, seed).await);
    }
    let pushes = manifests.iter().map(|manifest| repository.put_manifest(manifest, None));
    for stored in try_join_all(pushes).await.unwrap() {
        assert!(stored.subject_indexed);
    }
    let page = reader(&store).referrers(&subject, None, PageRequest::default()).await.unwrap();
    assert_eq!(page.items.len(), manifests.len());
    let list = reader(&store).manifest(&Reference::Tag(fallback_tag(&subject))).await.unwrap();
    assert_eq!(list.children().len(), manifests.len());
}

#[tokio::test]
async fn docker_registry_lists_everything_at_once_and_is_cut() {
    let registry = DockerRegistry::start().await.unwrap();
    let store = client(quick(), Anonymous).registry(&registry.host()).unwrap();
    let repository = writer(&store);
    let config = push(&repository, &Bytes::from_static(b"{}")).await;
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":2}},"layers":[]}}"#,
        media_type::DOCKER_MANIFEST,
        media_type::DOCKER_CONFIG
    );
    let manifest = Manifest::parse(None, Bytes::from(text)).unwrap();
    for tag in ["a", "b", "c"] {
        repository.put_manifest(&manifest, Some(&tag.parse().unwrap())).await.unwrap();
    }
    let first = repository.tags(PageRequest { after: None, limit: Some(2) }).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let second = repository.tags(PageRequest { after: first.next, limit: Some(2) }).await.unwrap();
    assert_eq!((second.items.len(), second.next), (1, None));
    let resolved = repository.resolve(&tag("a")).await.unwrap();
    assert_eq!(resolved.descriptor.media_type, media_type::DOCKER_MANIFEST);
    assert_eq!(resolved.descriptor.digest, manifest.digest());
}

#[tokio::test]
async fn what_was_never_there_is_not_found() {
    let registry = DockerRegistry::start().await.unwrap();
    let store = client(quick(), Anonymous).registry(&registry.host()).unwrap();
    push(&writer(&store), &content(22, 10)).await;
    let never = Digest::sha256(b"never");
    let unknown = store.writable(&Scope::Hosted, &name("no/such")).unwrap();
    for repository in [writer(&store), unknown] {
        for reference in [tag("v1"), Reference::Digest(never)] {
            assert_eq!(kind(repository.manifest(&reference).await), Kind::NotFound);
            assert_eq!(kind(repository.resolve(&reference).await), Kind::NotFound);
        }
        assert_eq!(kind(repository.delete_manifest(&Reference::Digest(never)).await), Kind::NotFound);
        assert_eq!(kind(repository.delete_blob(&never).await), Kind::NotFound);
        assert_eq!(repository.delete_manifest(&tag("v1")).await.unwrap(), Removed::Unsupported);
    }
}

/// An image of one layer, pushed as often as the registry calls it incomplete: it reads its own link files while other
/// clients write them.
async fn push_image(repository: Arc<dyn RepositoryMut>, layer: Bytes, number: u8) -> Digest {
    let config = Bytes::from(format!(r#"{{"number":{number}}}"#));
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{}","digest":"{}","size":{}}}]}}"#,
        media_type::OCI_MANIFEST,
        media_type::OCI_CONFIG,
        Digest::sha256(&config),
        config.len(),
        media_type::OCI_LAYER_GZIP,
        Digest::sha256(&layer),
        layer.len(),
    );
    let manifest = Manifest::parse(None, Bytes::from(text)).unwrap();
    for _ in 0..10 {
        push(&repository, &layer).await;
        push(&repository, &config).await;
        match repository.put_manifest(&manifest, None).await {
            Ok(_) => return manifest.digest(),
            Err(error) => assert_eq!(error.kind(), Kind::Incomplete, "{error}"),
        }
    }
    panic!("still incomplete");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_pushed_at_once_arrive() {
    let registry = DockerRegistry::start().await.unwrap();
    let store = client(quick(), Anonymous).registry(&registry.host()).unwrap();
    let layer = content(23, 200_000);
    let pushes = (0..8).map(|number| tokio::spawn(push_image(writer(&store), layer.clone(), number)));
    for digest in try_join_all(pushes).await.unwrap() {
        reader(&store).manifest(&Reference::Digest(digest)).await.unwrap();
    }
    let blob = reader(&store).blob(&Digest::sha256(&layer), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), layer);
}

#[tokio::test]
async fn docker_registry_asks_for_a_password() {
    let options = RegistryOptions { login: true, ..RegistryOptions::default() };
    let registry = DockerRegistry::start_with(&options).await.unwrap();
    let store = client(quick(), password(USER, PASSWORD)).registry(&registry.host()).unwrap();
    let bytes = content(1, 300_000);
    let digest = push(&writer(&store), &bytes).await;
    assert_eq!(reader(&store).stat(&digest).await.unwrap(), Some(300_000));
    let wrong = client(quick(), password(USER, "wrong")).registry(&registry.host()).unwrap();
    assert_eq!(kind(reader(&wrong).stat(&digest).await), Kind::Unauthorized);
    let nobody = client(quick(), Anonymous).registry(&registry.host()).unwrap();
    assert_eq!(kind(reader(&nobody).stat(&digest).await), Kind::Unauthorized);
}

/// `docker-registry` 2.8 goes on with what was ended in order; what broke off is gone, and begins anew.
#[tokio::test]
async fn uploads_are_gone_on_with_where_docker_registry_can() {
    let registry = DockerRegistry::start().await.unwrap();
    let options = ClientOptions { resumable_from: 0, ..quick() };
    let store = client(options, Anonymous).registry(&registry.host()).unwrap();
    let repository = writer(&store);
    let bytes = content(40, 3_000_000);
    let mut upload = begin(&repository, &bytes).await;
    upload.write(bytes.slice(..1_000_000)).await.unwrap();
    let token = upload.suspend().await.unwrap().unwrap();
    let mut upload = repository.resume(&token).await.unwrap().unwrap();
    assert_eq!(upload.durable_offset().await.unwrap(), 1_000_000);
    upload.write(bytes.slice(1_000_000..)).await.unwrap();
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
    let blob = repository.blob(&Digest::sha256(&bytes), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), bytes);

    let bytes = content(41, 3_000_000);
    let mut upload = begin(&repository, &bytes).await;
    upload.write(bytes.slice(..2_000_000)).await.unwrap();
    let token = upload.token().unwrap();
    drop(upload);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    if let Some(mut kept) = repository.resume(&token).await.unwrap() {
        assert_eq!(kept.durable_offset().await.unwrap(), 0, "it kept nothing that it does not know of");
    }
    push(&repository, &bytes).await;
}
