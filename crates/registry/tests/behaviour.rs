//! What the client makes of answers that are late, wrong, cut short or refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Digest, Name, Reference, Registry};
use ferry_registry::{Anonymous, Client, ClientOptions, Credential, Credentials, Secret};
use ferry_store::{ByteRange, Kind, Removed, RepositoryMut, Result, Scope};
use ferry_testkit::fake::{Auth, FakeRegistry, Fault, FaultRule, Kind as Asked, Login};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};

/// The login that [`Credentials`] gives for every registry.
struct Known(&'static str);

#[async_trait]
impl Credentials for Known {
    async fn find(&self, _: &Registry, _: Option<&Name>) -> Result<Option<Credential>> {
        let password = Secret::new(self.0.to_owned());
        Ok(Some(Credential::Password { username: "user".to_owned(), password }))
    }
}

fn quick() -> ClientOptions {
    ClientOptions {
        attempts: 3,
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        max_retry_after: Duration::from_secs(2),
        idle_timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    }
}

fn repository(
    host: &Registry,
    options: ClientOptions,
    credentials: impl Credentials + 'static,
) -> Arc<dyn RepositoryMut> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::new(options, Arc::new(credentials)).unwrap();
    client.registry(host).unwrap().writable(&Scope::Hosted, &"team/app".parse().unwrap()).unwrap()
}

fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, 100_000)]).build_single()
}

fn tag() -> Reference {
    Reference::Tag("v1".parse().unwrap())
}

/// A registry that holds an image, the largest blob of it, and a client.
async fn holding() -> (FakeRegistry, Arc<dyn RepositoryMut>, Digest, Bytes) {
    let registry = FakeRegistry::start().await.unwrap();
    let repository = repository(&registry.host().unwrap(), quick(), Anonymous);
    let image = image();
    image.push_to(&*repository, Some(&"v1".parse().unwrap())).await.unwrap();
    registry.reset_counts();
    let (digest, bytes) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    (registry, repository, *digest, bytes.clone())
}

async fn read(repository: &dyn RepositoryMut, digest: &Digest, range: ByteRange) -> Result<Bytes> {
    repository.blob(digest, range).await?.into_bytes().await
}

#[tokio::test]
async fn answers_that_may_pass_are_tried_again() {
    let (registry, repository, ..) = holding().await;
    registry.fail(FaultRule::new(Fault::status(503)).method("GET").times(2));
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(registry.count(Asked::ManifestGet), 3);
    registry.fail(FaultRule::new(Fault::Reset { after: 0 }).method("HEAD").times(2));
    repository.resolve(&tag()).await.unwrap();
    registry.fail(FaultRule::new(Fault::status(503)).always());
    assert_eq!(repository.manifest(&tag()).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_registry_that_asks_to_wait_is_given_time_or_up() {
    let (registry, repository, ..) = holding().await;
    let limited = |after| Fault::Status { status: 429, retry_after: Some(after), body: String::new() };
    registry.fail(FaultRule::new(limited("1".into())).method("GET").times(1));
    repository.manifest(&tag()).await.unwrap();
    registry.fail(FaultRule::new(limited("3600".into())).always());
    let error = repository.manifest(&tag()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited { after: Some(Duration::from_secs(3600)) });
}

#[tokio::test]
async fn broken_bodies_are_errors_of_the_stream() {
    let (registry, repository, digest, bytes) = holding().await;
    for (fault, kind) in [
        (Fault::Truncate { after: 5000 }, Kind::Unavailable),
        (Fault::Reset { after: 5000 }, Kind::Unavailable),
        (Fault::Stall { after: 5000 }, Kind::Stalled),
    ] {
        registry.fail(FaultRule::new(fault).path("/blobs/").times(1));
        assert_eq!(read(&*repository, &digest, ByteRange::ALL).await.unwrap_err().kind(), kind);
    }
    assert_eq!(read(&*repository, &digest, ByteRange::from(7)).await.unwrap(), bytes[7..]);
}

#[tokio::test]
async fn a_range_that_is_ignored_is_cut_out_here() {
    let (registry, repository, digest, bytes) = holding().await;
    registry.fail(FaultRule::new(Fault::IgnoreRange).path("/blobs/").always());
    let range = ByteRange { start: 100, end: Some(5000) };
    let blob = repository.blob(&digest, range).await.unwrap();
    assert_eq!((blob.size, blob.range.clone()), (bytes.len() as u64, 100..5000));
    assert_eq!(blob.into_bytes().await.unwrap(), bytes[100..5000]);
}

#[tokio::test]
async fn a_manifest_that_is_not_its_digest_is_refused() {
    let (registry, repository, ..) = holding().await;
    registry.fail(FaultRule::new(Fault::Corrupt { at: 3 }).path("/manifests/").method("GET").always());
    let digest = Reference::Digest(image().root.digest());
    let error = repository.manifest(&digest).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::DigestMismatch | Kind::Invalid), "{error}");
    registry.heal();
    registry.fail(FaultRule::new(Fault::WrongDigest).path("/manifests/").method("GET").always());
    assert_eq!(repository.manifest(&tag()).await.unwrap_err().kind(), Kind::DigestMismatch);
}

#[tokio::test]
async fn tokens_are_fetched_once_per_repository_and_renewed() {
    let registry = FakeRegistry::start().await.unwrap();
    let login = Login::new("user", "password");
    registry.require(Auth::Bearer { login: Some(login), lifetime: Duration::from_secs(300) });
    let repository = repository(&registry.host().unwrap(), quick(), Known("password"));
    let image = image();
    image.push_to(&*repository, Some(&"v1".parse().unwrap())).await.unwrap();
    verify(&*repository, &tag()).await.unwrap();
    let before = registry.count(Asked::Token);
    assert!((1..=2).contains(&before), "one for pushing, one for pulling: {before}");
    registry.expire_tokens();
    verify(&*repository, &tag()).await.unwrap();
    assert!(registry.count(Asked::Token) > before);
}

#[tokio::test]
async fn wrong_credentials_are_told_from_missing_images() {
    for auth in [
        Auth::Basic(Login::new("user", "password")),
        Auth::Bearer { login: Some(Login::new("user", "password")), lifetime: Duration::from_secs(300) },
    ] {
        let registry = FakeRegistry::start().await.unwrap();
        registry.require(auth);
        let host = registry.host().unwrap();
        let good = repository(&host, quick(), Known("password"));
        assert_eq!(good.manifest(&tag()).await.unwrap_err().kind(), Kind::NotFound);
        let bad = repository(&host, quick(), Known("guess"));
        let error = bad.manifest(&tag()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unauthorized);
        assert!(!format!("{error} {error:?}").contains("guess"));
        let none = repository(&host, quick(), Anonymous);
        assert_eq!(none.manifest(&tag()).await.unwrap_err().kind(), Kind::Unauthorized);
    }
}

mod peers {
    use ferry_testkit::peers::{DockerRegistry, PASSWORD, RegistryOptions, USER};

    use super::*;

    struct DebianLogin;

    #[async_trait]
    impl Credentials for DebianLogin {
        async fn find(&self, _: &Registry, _: Option<&Name>) -> Result<Option<Credential>> {
            let password = Secret::new(PASSWORD.to_owned());
            Ok(Some(Credential::Password { username: USER.to_owned(), password }))
        }
    }

    async fn round_trip(repository: &dyn RepositoryMut) {
        image().push_to(repository, Some(&"v1".parse().unwrap())).await.unwrap();
        let found = verify(repository, &tag()).await.unwrap();
        assert_eq!(found.blobs.len(), image().blobs.len());
    }

    #[tokio::test]
    async fn basic_login() {
        let options = RegistryOptions { login: true, ..RegistryOptions::default() };
        let registry = DockerRegistry::start_with(&options).await.unwrap();
        round_trip(&*repository(&registry.host(), quick(), DebianLogin)).await;
        let stranger = repository(&registry.host(), quick(), Anonymous);
        assert_eq!(stranger.manifest(&tag()).await.unwrap_err().kind(), Kind::Unauthorized);
    }

    /// A host that is not loopback by its name is spoken to in TLS only, and its certificate counts.
    #[tokio::test]
    async fn tls() {
        let host = "registry.example.com";
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let options = RegistryOptions { tls: Some((certificate, key)), ..RegistryOptions::default() };
        let registry = DockerRegistry::start_with(&options).await.unwrap();
        let named: Registry = format!("{host}:{}", registry.addr().port()).parse().unwrap();
        let resolve = vec![(host.to_owned(), registry.addr())];
        let trusting = ClientOptions {
            extra_roots: vec![made.cert.pem().into_bytes()],
            resolve: resolve.clone(),
            ..quick()
        };
        round_trip(&*repository(&named, trusting, Anonymous)).await;
        let wary = repository(&named, ClientOptions { resolve, ..quick() }, Anonymous);
        let error = wary.manifest(&tag()).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Unavailable | Kind::Invalid | Kind::Denied), "{error}");
    }

    #[tokio::test]
    async fn a_tag_that_cannot_be_removed_is_no_error() {
        let registry = DockerRegistry::start().await.unwrap();
        let repository = repository(&registry.host(), quick(), Anonymous);
        round_trip(&*repository).await;
        assert_eq!(repository.delete_manifest(&tag()).await.unwrap(), Removed::Unsupported);
        let digest = Reference::Digest(image().root.digest());
        assert_eq!(repository.delete_manifest(&digest).await.unwrap(), Removed::Yes);
        assert_eq!(repository.manifest(&tag()).await.unwrap_err().kind(), Kind::NotFound);
    }

    /// No referrers API there: the fallback tag has to be kept.
    #[tokio::test]
    async fn referrers_by_fallback_tag() {
        let registry = DockerRegistry::start().await.unwrap();
        let repository = repository(&registry.host(), quick(), Anonymous);
        let image = image();
        image.push_to(&*repository, None).await.unwrap();
        let referrers =
            ["one", "two"].map(|text| Image::artifact(&image.root, "application/vnd.example", text));
        for referrer in &referrers {
            referrer.push_to(&*repository, None).await.unwrap();
        }
        let page = repository.referrers(&image.root.digest(), None, Default::default()).await.unwrap();
        let mut listed: Vec<Digest> = page.items.iter().map(|descriptor| descriptor.digest).collect();
        let mut expected: Vec<Digest> = referrers.iter().map(|referrer| referrer.root.digest()).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    }
}
