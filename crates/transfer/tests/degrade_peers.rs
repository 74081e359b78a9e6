//! What ferry makes of an image for a target without OCI types, before those who know Docker's types better.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod peers {
    use std::path::Path;

    use ferry_oci::{Manifest, Reference, media_type};
    use ferry_policy::profile::Profile;
    use ferry_store::{Scope, Store};
    use ferry_testkit::fake::FakeRegistry;
    use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes};
    use ferry_testkit::peers::{DockerRegistry, skopeo};
    use ferry_testkit::quirks::Quirks;
    use ferry_transfer::{Copier, Job, Options, Outcome, Place};
    use tokio_util::sync::CancellationToken;

    /// Copies everything with skopeo, by these options; what it said if it could not.
    async fn copy(options: &[&str], from: &str, to: &str) -> Result<(), String> {
        let common = ["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"];
        let output = skopeo([&common[..], options, &[from, to]].concat()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    fn place(id: &str, registry: &FakeRegistry) -> Place {
        Place { id: id.into(), store: registry.store(), repository: "a".parse().unwrap() }
    }

    /// A list and its images from a directory as skopeo writes it.
    fn read(dir: &Path) -> (Manifest, Vec<Manifest>) {
        let parse =
            |name: &str| Manifest::parse(None, std::fs::read(dir.join(name)).unwrap().into()).unwrap();
        let list = parse("manifest.json");
        let child = |digest: &ferry_oci::Digest| parse(&format!("{}.manifest.json", digest.hex()));
        let children = list.children().iter().map(|entry| child(&entry.digest)).collect();
        (list, children)
    }

    /// A registry with an image of OCI types, and one with what ferry made of it.
    async fn before_and_after() -> [FakeRegistry; 2] {
        let [source, target] = [FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap()];
        let image = ImageBuilder::new(MediaTypes::Oci)
            .shared([Layer::random(1, 1000)])
            .platform("linux/amd64", [Layer::of_files(&[("etc/a", b"a")])])
            .platform("linux/arm64/v8", [Layer::of_files(&[("etc/a", b"b")])])
            .build();
        let repository = source.store().writable(&Scope::Hosted, &"a".parse().unwrap()).unwrap();
        image.push_to(&*repository, Some(&"v1".parse().unwrap())).await.unwrap();
        let how = Profile::named("huawei-swr").unwrap().degradations();
        let options = Options { degradations: [("target".into(), how)].into(), ..Options::default() };
        let job = Job {
            source: place("source", &source),
            reference: Reference::Tag("v1".parse().unwrap()),
            target: place("target", &target),
            tag: Some("v1".parse().unwrap()),
            platforms: None,
        };
        let outcome = Copier::new(options, CancellationToken::new()).copy(job).await;
        assert!(matches!(outcome, Outcome::Copied { .. }), "{outcome:?}");
        [source, target]
    }

    fn at(registry: &impl std::fmt::Display) -> String {
        format!("docker://{registry}/a:v1")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn skopeo_makes_the_same_of_it() {
        let [source, target] = before_and_after().await;
        let [ours, theirs] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let dir = |dir: &tempfile::TempDir| format!("dir:{}", dir.path().display());
        copy(&["--preserve-digests"], &at(&target.address()), &dir(&ours)).await.unwrap();
        copy(&["--format", "v2s2"], &at(&source.address()), &dir(&theirs)).await.unwrap();
        let (list, children) = read(ours.path());
        let (their_list, their_children) = read(theirs.path());
        assert_eq!((list.media_type(), children.len()), (media_type::DOCKER_LIST, 2));
        assert_eq!(their_list.media_type(), list.media_type());
        for (one, other) in list.children().iter().zip(their_list.children()) {
            assert_eq!((&one.media_type, &one.platform), (&other.media_type, &other.platform));
        }
        for (one, other) in children.iter().zip(&their_children) {
            assert_eq!((one.media_type(), one.content()), (other.media_type(), other.content()));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn registries_take_it_that_refuse_the_original() {
        let [source, target] = before_and_after().await;
        let particular = FakeRegistry::start().await.unwrap();
        particular.quirks(Quirks { refuses_oci: true, ..Quirks::default() });
        let refused = copy(&["--preserve-digests"], &at(&source.address()), &at(&particular.address())).await;
        assert!(refused.unwrap_err().contains("fail to parse 'manifest.json'"));
        copy(&["--preserve-digests"], &at(&target.address()), &at(&particular.address())).await.unwrap();
        let distribution = DockerRegistry::start().await.unwrap();
        copy(&["--preserve-digests"], &at(&target.address()), &at(&distribution.addr())).await.unwrap();
    }
}
