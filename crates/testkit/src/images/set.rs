use ferry_oci::{Name, Tag};

use super::{Image, ImageBuilder, Layer, MediaTypes};

/// Repositories over which a set is spread.
const REPOSITORIES: [&str; 3] = ["team/api", "team/worker", "tools"];

/// Platforms of every image of a set.
const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64/v8", "linux/s390x"];

/// What [`image_set`] makes.
#[derive(Debug, Clone, Copy)]
pub struct SetSpec {
    /// How many images.
    pub images: usize,
    /// The same seed gives the same digests.
    pub seed: u64,
    /// Size in bytes of each platform's base layer, which all images share.
    pub base_size: usize,
    /// Size in bytes of each platform's top layer, which no other image has.
    pub own_size: usize,
}

impl SetSpec {
    /// So many images with layers small enough for a test.
    pub fn small(images: usize, seed: u64) -> Self {
        Self { images, seed, base_size: 64 * 1024, own_size: 8 * 1024 }
    }
}

/// An image and where it belongs.
#[derive(Debug, Clone)]
pub struct NamedImage {
    /// Its repository.
    pub repository: Name,
    /// Its tag.
    pub tag: Tag,
    /// Its content.
    pub image: Image,
}

/// Multi-platform images in a few repositories. Every platform has a base layer that all images share and one that the
/// images of a repository share; every third image has Docker media types, every other OCI image attestations.
pub fn image_set(spec: &SetSpec) -> Vec<NamedImage> {
    let layer = |kind: u64, number: u64, platform: usize, size: usize| {
        Layer::random(spec.seed << 32 | kind << 28 | number << 8 | platform as u64, size)
    };
    let bases: Vec<Layer> = (0..PLATFORMS.len()).map(|p| layer(0, 0, p, spec.base_size)).collect();
    let of_image = |number: usize| {
        let repository = number % REPOSITORIES.len();
        let types = if number % 3 == 2 { MediaTypes::Docker } else { MediaTypes::Oci };
        let mut builder = ImageBuilder::new(types);
        for (at, platform) in PLATFORMS.into_iter().enumerate() {
            let middle = layer(1, repository as u64, at, spec.own_size);
            let own = layer(2, number as u64, at, spec.own_size);
            builder = builder.platform(platform, [bases[at].clone(), middle, own]);
        }
        if types == MediaTypes::Oci && number.is_multiple_of(2) {
            builder = builder.attestations();
        }
        NamedImage {
            repository: parse(REPOSITORIES[repository]),
            tag: parse(&format!("v{}", number / REPOSITORIES.len() + 1)),
            image: builder.build(),
        }
    };
    (0..spec.images).map(of_image).collect()
}

fn parse<T: std::str::FromStr<Err = ferry_oci::Malformed>>(text: &str) -> T {
    match text.parse() {
        Ok(value) => value,
        Err(e) => unreachable!("{e}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn images_differ_and_share() {
        let set = image_set(&SetSpec::small(7, 1));
        let roots: BTreeSet<_> = set.iter().map(|named| named.image.root.digest()).collect();
        assert_eq!(roots.len(), 7);
        let places: BTreeSet<_> = set.iter().map(|named| (&named.repository, &named.tag)).collect();
        assert_eq!(places.len(), 7);
        let [first, second] = [&set[0].image.blobs, &set[1].image.blobs];
        assert_eq!(first.keys().filter(|digest| second.contains_key(digest)).count(), 3, "the base layers");
        let again = image_set(&SetSpec::small(7, 1));
        assert!(set.iter().zip(&again).all(|(a, b)| a.image.root.digest() == b.image.root.digest()));
    }
}
