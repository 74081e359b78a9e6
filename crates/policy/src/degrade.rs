//! What is changed in an image because its target would not take it otherwise, or because only a part of it was asked for.
//! Always declared, never guessed: a digest changes only by one of these.

mod changes;

use std::fmt;

use ferry_oci::rewrite::{self, Children, Inexpressible};
use ferry_oci::{Descriptor, Manifest, media_type};

pub use changes::Changes;

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Degradation {
    /// Attestations of BuildKit are left out of indexes.
    StripAttestations,
    /// Indexes name the manifests of some platforms only, because only those were asked for. No target is declared to want
    /// this: see [`Changes`].
    PlatformSubset,
    /// The manifest of one platform has taken the place of the index, in the same way.
    SinglePlatform,
    /// OCI manifests and indexes become Docker manifests of schema 2 and manifest lists.
    DockerTypes,
}

impl Degradation {
    /// All of them, in the order in which they are applied: what is left out need not be expressible.
    pub const ALL: [Self; 4] =
        [Self::StripAttestations, Self::PlatformSubset, Self::SinglePlatform, Self::DockerTypes];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StripAttestations => "strip-attestations",
            Self::PlatformSubset => "platform-subset",
            Self::SinglePlatform => "single-platform",
            Self::DockerTypes => "docker-types",
        }
    }

    /// Goes up whenever the same manifest is rewritten differently, so that what was remembered of the old way is not
    /// taken for the new one.
    fn revision(self) -> u32 {
        match self {
            Self::StripAttestations | Self::PlatformSubset | Self::SinglePlatform | Self::DockerTypes => 1,
        }
    }
}

/// A set of [`Degradation`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Degradations(u8);

impl Degradations {
    /// Images arrive as they are.
    pub const NONE: Self = Self(0);

    /// The set with `degradation` in it.
    #[must_use]
    pub const fn with(self, degradation: Degradation) -> Self {
        Self(self.0 | 1 << degradation as u8)
    }

    /// Whether `degradation` is in it.
    pub fn contains(self, degradation: Degradation) -> bool {
        self.with(degradation) == self
    }

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Those in it, in the order in which they are applied.
    pub fn iter(self) -> impl Iterator<Item = Degradation> {
        Degradation::ALL.into_iter().filter(move |degradation| self.contains(*degradation))
    }

    /// Names this very way of rewriting in records that outlive a run.
    pub fn key(self) -> String {
        let parts: Vec<String> = self.iter().map(|d| format!("{}.{}", d.as_str(), d.revision())).collect();
        parts.join("+")
    }

    /// Whether the manifest behind `entry` may have to be changed, and so must be looked at.
    pub fn concern(self, entry: &Descriptor) -> bool {
        let media_type = entry.media_type.as_str();
        let inside = !self.is_empty() && media_type::is_index(media_type);
        inside || (self.contains(Degradation::DockerTypes) && media_type == media_type::OCI_MANIFEST)
    }

    /// The children that are left of `manifest`, the ones to rewrite before it.
    pub fn children(self, manifest: &Manifest) -> Vec<Descriptor> {
        let strip = self.contains(Degradation::StripAttestations);
        let kept = manifest.children().iter().filter(|entry| !(strip && rewrite::is_attestation(entry)));
        kept.cloned().collect()
    }

    /// The manifest as the target gets it, its children having become `children`, and which of the degradations had
    /// something to do.
    ///
    /// # Errors
    /// [`Inexpressible`] if it holds what cannot be said in the target's words.
    pub fn apply(self, manifest: &Manifest, children: &Children) -> Result<(Manifest, Self), Inexpressible> {
        let mut applied = Self::NONE;
        let mut now = manifest.clone();
        if self.contains(Degradation::StripAttestations) {
            now = rewrite::strip_attestations(&now)?;
            applied = applied.note(Degradation::StripAttestations, now.digest() != manifest.digest());
        }
        now = rewrite::with_children(&now, children)?;
        if self.contains(Degradation::DockerTypes) {
            let before = now.digest();
            now = rewrite::to_docker_types(&now)?;
            applied = applied.note(Degradation::DockerTypes, now.digest() != before);
        }
        Ok((now, applied))
    }

    fn note(self, degradation: Degradation, happened: bool) -> Self {
        if happened { self.with(degradation) } else { self }
    }

    /// Those of either set.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<Degradation> for Degradations {
    fn from(one: Degradation) -> Self {
        Self::NONE.with(one)
    }
}

impl FromIterator<Degradation> for Degradations {
    fn from_iter<I: IntoIterator<Item = Degradation>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Degradations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Degradation::as_str).collect();
        f.write_str(if names.is_empty() { "none".to_owned() } else { names.join(", ") }.as_str())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferry_oci::Digest;
    use ferry_oci::media_type::{
        DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST,
    };
    use serde_json::{Value, json};

    use super::*;

    const BOTH: Degradations =
        Degradations::NONE.with(Degradation::StripAttestations).with(Degradation::DockerTypes);

    fn parse(value: &Value) -> Manifest {
        Manifest::parse(None, Bytes::from(value.to_string())).unwrap()
    }

    fn describe(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::sha256(media_type.as_bytes()), "size": 1})
    }

    fn image() -> Manifest {
        parse(&json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": describe(OCI_CONFIG),
            "layers": [describe(OCI_LAYER_GZIP)]}))
    }

    fn index(of: &Manifest) -> Manifest {
        let platform = json!({"os": "linux", "architecture": "amd64"});
        let mut attestation = describe("an attestation");
        attestation["mediaType"] = json!(OCI_MANIFEST);
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        parse(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {"mediaType": of.media_type(), "digest": of.digest(), "size": of.bytes().len(), "platform": platform},
            attestation,
        ]}))
    }

    fn became(old: &Manifest, new: &Manifest) -> Children {
        let size = new.bytes().len() as u64;
        Children::from([(old.digest(), Descriptor::new(new.media_type(), new.digest(), size))])
    }

    #[test]
    fn an_image_and_its_index() {
        let (image, whole) = (image(), index(&image()));
        assert_eq!(BOTH.children(&whole).len(), 1, "the attestation is not even fetched");
        let (docker, applied) = BOTH.apply(&image, &Children::new()).unwrap();
        assert_eq!((docker.media_type(), applied), (DOCKER_MANIFEST, Degradation::DockerTypes.into()));
        let (list, applied) = BOTH.apply(&whole, &became(&image, &docker)).unwrap();
        assert_eq!((list.media_type(), applied), (DOCKER_LIST, BOTH));
        assert_eq!(list.children().iter().map(|child| child.digest).collect::<Vec<_>>(), [docker.digest()]);
        let (again, applied) = BOTH.apply(&list, &Children::new()).unwrap();
        assert_eq!((again.bytes(), applied), (list.bytes(), Degradations::NONE));
    }

    #[test]
    fn nothing_is_done_that_was_not_declared() {
        let whole = index(&image());
        let (same, applied) = Degradations::NONE.apply(&whole, &Children::new()).unwrap();
        assert_eq!((same.bytes(), applied), (whole.bytes(), Degradations::NONE));
        let strip = Degradations::from(Degradation::StripAttestations);
        let (stripped, applied) = strip.apply(&whole, &Children::new()).unwrap();
        assert_eq!((stripped.media_type(), stripped.children().len(), applied), (OCI_INDEX, 1, strip));
        let docker = Degradations::from(Degradation::DockerTypes);
        assert!(docker.apply(&whole, &Children::new()).is_err(), "children come first");
    }

    #[test]
    fn an_index_follows_an_index_inside_it() {
        let strip = Degradations::from(Degradation::StripAttestations);
        let inner = index(&image());
        let outer = index(&inner);
        let (stripped, _) = strip.apply(&inner, &Children::new()).unwrap();
        let (followed, applied) = strip.apply(&outer, &became(&inner, &stripped)).unwrap();
        assert_eq!((followed.children().len(), applied), (1, strip));
        assert_eq!(followed.children()[0].digest, stripped.digest());
        let (again, applied) = strip.apply(&followed, &became(&image(), &image())).unwrap();
        assert_eq!((again.bytes(), applied), (followed.bytes(), Degradations::NONE));
    }

    #[test]
    fn only_what_may_change_is_looked_at() {
        let entry = |kind: &str| Descriptor::new(kind, Digest::sha256(b""), 0);
        let strip = Degradations::from(Degradation::StripAttestations);
        for (set, kind, concerned) in [
            (Degradations::NONE, OCI_INDEX, false),
            (strip, OCI_INDEX, true),
            (strip, DOCKER_LIST, true),
            (strip, OCI_MANIFEST, false),
            (BOTH, OCI_MANIFEST, true),
            (BOTH, DOCKER_MANIFEST, false),
            (BOTH, OCI_LAYER_GZIP, false),
        ] {
            assert_eq!(set.concern(&entry(kind)), concerned, "{set} {kind}");
        }
    }

    #[test]
    fn sets() {
        assert_eq!(BOTH.to_string(), "strip-attestations, docker-types");
        assert_eq!(Degradations::NONE.to_string(), "none");
        assert_eq!(BOTH.key(), "strip-attestations.1+docker-types.1");
        assert_eq!(BOTH.iter().collect::<Degradations>(), BOTH);
        assert!(!Degradations::from(Degradation::DockerTypes).contains(Degradation::StripAttestations));
    }
}
