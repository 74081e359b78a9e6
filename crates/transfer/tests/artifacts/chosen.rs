//! Of an image of which only some platforms were asked for, only what belongs to those comes along.

use std::sync::Arc;

use ferry_policy::platforms::{Mode, Selection};
use ferry_store::MemoryStore;
use ferry_testkit::images::Image;
use ferry_transfer::{Job, Outcome};

use crate::harness::{Pair, artifact, copied, copier, image, push, tag, unchanged};

struct Signed {
    image: Image,
    of_root: Image,
    of_amd64: Image,
    of_arm64: Image,
}

impl Signed {
    fn new() -> Self {
        let image = image().build();
        let of_root = artifact(&image.root, "of the root");
        let of_amd64 = artifact(&image.manifests[0], "of amd64");
        let of_arm64 = artifact(&image.manifests[1], "of arm64");
        Self { image, of_root, of_amd64, of_arm64 }
    }

    async fn pair(&self) -> Pair {
        let target = MemoryStore::new().taking_sparse_indexes();
        let pair = Pair::between(Arc::new(MemoryStore::new()), Arc::new(target));
        push(&*pair.source, &self.image, Some(&tag("v1"))).await;
        for referrer in [&self.of_root, &self.of_amd64, &self.of_arm64] {
            push(&*pair.source, referrer, None).await;
        }
        pair
    }

    /// Whether the signatures of the root, of amd64 and of arm64 are there.
    async fn there(&self, pair: &Pair) -> [bool; 3] {
        [
            pair.has_referrer(&self.of_root).await,
            pair.has_referrer(&self.of_amd64).await,
            pair.has_referrer(&self.of_arm64).await,
        ]
    }
}

fn job(pair: &Pair, mode: Mode) -> Job {
    let arm64 = "linux/arm64".parse().unwrap();
    Job { platforms: Some(Selection::new([arm64], mode).unwrap()), ..pair.job() }
}

#[tokio::test]
async fn signatures_follow_what_keeps_its_digest() {
    let signed = Signed::new();
    for (mode, there) in [
        (Mode::Rewrite, [false, false, true]),
        (Mode::Single, [false, false, true]),
        (Mode::Sparse, [true, false, true]),
    ] {
        let pair = signed.pair().await;
        let figures = copied(copier().copy(job(&pair, mode)).await);
        assert_eq!(signed.there(&pair).await, there, "{mode}");
        assert_eq!(figures.referrers, there.iter().filter(|there| **there).count(), "{mode}");
        unchanged(copier().copy(job(&pair, mode)).await);
        assert_eq!(signed.there(&pair).await, there, "{mode}: again");
    }
}

#[tokio::test]
async fn a_survey_tells_the_same() {
    let signed = Signed::new();
    for mode in Mode::ALL {
        let pair = signed.pair().await;
        let survey = copier().survey(job(&pair, mode)).await;
        let ferry_transfer::Survey::Wanted { blobs, bytes, manifests, referrers, .. } = survey else {
            panic!("{mode}: {survey:?}")
        };
        let outcome = copier().copy(job(&pair, mode)).await;
        let Outcome::Copied { figures, .. } = outcome else { panic!("{mode}: {outcome:?}") };
        assert_eq!(
            (blobs, bytes, manifests, referrers),
            (figures.moved, figures.bytes, figures.manifests, figures.referrers),
            "{mode}"
        );
    }
}
