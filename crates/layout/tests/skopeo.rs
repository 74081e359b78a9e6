//! What ferry writes others read, and the other way round.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod peers {
    use std::path::Path;
    use std::sync::Arc;

    use ferry_layout::Layout;
    use ferry_oci::{Reference, Tag};
    use ferry_store::{PageRequest, RepositoryMut, Scope, Store};
    use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
    use ferry_testkit::peers::skopeo;

    fn writer(layout: &Layout) -> Arc<dyn RepositoryMut> {
        layout.writable(&Scope::Hosted, &"any".parse().unwrap()).unwrap()
    }

    fn image(seed: u64) -> Image {
        ImageBuilder::new(MediaTypes::Oci)
            .shared([Layer::random(seed, 30_000)])
            .platform("linux/amd64", [Layer::of_files(&[("etc/a", b"a")])])
            .platform("linux/arm64/v8", [Layer::random(seed + 1, 3000)])
            .build()
    }

    async fn run(args: &[&str]) -> Vec<u8> {
        let output = skopeo(args).await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn oci(dir: &Path, tag: &str) -> String {
        format!("oci:{}:{tag}", dir.display())
    }

    #[tokio::test]
    async fn skopeo_reads_what_ferry_wrote_and_ferry_what_skopeo_wrote() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let layout = Layout::create(ours.path()).unwrap();
        let tag: Tag = "v1".parse().unwrap();
        // In a layout skopeo finds images of OCI media types only.
        let image = image(1);
        image.push_to(&*writer(&layout), Some(&tag)).await.unwrap();
        let [source, target] = [ours.path(), theirs.path()].map(|dir| oci(dir, tag.as_str()));
        assert_eq!(run(&["inspect", "--raw", &source]).await, image.root.bytes()[..]);
        run(&["copy", "--all", "--preserve-digests", &source, &target]).await;
        let copied = writer(&Layout::open(theirs.path()).unwrap()).reader();
        let here = verify(&*writer(&layout), &Reference::Tag(tag.clone())).await.unwrap();
        let there = verify(&*copied, &Reference::Tag(tag)).await.unwrap();
        assert_eq!(here, there);
        assert!(there.manifests.contains_key(&image.root.digest()));
    }

    #[tokio::test]
    async fn both_write_into_one_layout_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let images: Vec<Image> = [1, 10, 20].map(image).into();
        let source = Layout::create(other.path()).unwrap();
        images[1].push_to(&*writer(&source), Some(&Tag::latest())).await.unwrap();

        let layout = Layout::create(dir.path()).unwrap();
        images[0].push_to(&*writer(&layout), Some(&"one".parse().unwrap())).await.unwrap();
        let args = [oci(other.path(), "latest"), oci(dir.path(), "two")];
        run(&["copy", "--all", "--preserve-digests", &args[0], &args[1]]).await;
        images[2].push_to(&*writer(&layout), Some(&"three".parse().unwrap())).await.unwrap();

        let tags = writer(&layout).tags(PageRequest::default()).await.unwrap().items;
        assert_eq!(tags.iter().map(|entry| entry.tag.as_str()).collect::<Vec<_>>(), ["one", "three", "two"]);
        for (tag, image) in [("one", &images[0]), ("two", &images[1]), ("three", &images[2])] {
            let raw = run(&["inspect", "--raw", &oci(dir.path(), tag)]).await;
            assert_eq!(raw, image.root.bytes()[..], "{tag}");
            verify(&*writer(&layout), &Reference::Tag(tag.parse().unwrap())).await.unwrap();
        }
    }
}
