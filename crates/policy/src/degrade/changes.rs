use std::collections::HashSet;

use ferry_oci::rewrite::{self, Children, Inexpressible};
use ferry_oci::{Descriptor, Digest, Manifest, media_type};

use super::{Degradation, Degradations};
use crate::platforms::{Mode, Selection, Verdict};

/// Everything that makes another image of an image on its way: what its target does not take, and what was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What the target would not take.
    pub degradations: Degradations,
    /// The platforms that were asked for; `None` for all.
    pub platforms: Option<Selection>,
}

impl Changes {
    /// The same for an image of which every platform is taken.
    #[must_use]
    pub fn of_all_platforms(&self) -> Self {
        Self { platforms: None, ..self.clone() }
    }

    /// The selection, if it changes digests: a sparse index keeps its own.
    pub fn selection(&self) -> Option<&Selection> {
        self.platforms.as_ref().filter(|selection| selection.mode() != Mode::Sparse)
    }

    /// The selection, if it is one that indexes are rewritten with.
    fn subset(&self) -> Option<&Selection> {
        self.platforms.as_ref().filter(|selection| selection.mode() == Mode::Rewrite)
    }

    /// Whether every image stays as it is.
    pub fn is_empty(&self) -> bool {
        self.degradations.is_empty() && self.selection().is_none()
    }

    /// Names this very way of rewriting in records that outlive a run.
    pub fn key(&self) -> String {
        let one = match self.selection().map(Selection::mode) {
            Some(Mode::Single) => Degradation::SinglePlatform,
            _ => Degradation::PlatformSubset,
        };
        let selected =
            self.selection().map(|selection| format!("{}.{}[{selection}]", one.as_str(), one.revision()));
        let rest = Some(self.degradations.key()).filter(|key| !key.is_empty());
        selected.into_iter().chain(rest).collect::<Vec<_>>().join("+")
    }

    /// Whether the manifest behind `entry` may have to be changed, and so must be looked at.
    pub fn concern(&self, entry: &Descriptor) -> bool {
        let inside = self.subset().is_some() && media_type::is_index(&entry.media_type);
        inside || self.degradations.concern(entry)
    }

    /// The children of `index` that must be looked at before it can be said whether they are kept.
    pub fn looks(&self, index: &Manifest) -> Vec<Descriptor> {
        let Some(selection) = self.subset() else { return Vec::new() };
        let unclear = index.children().iter().filter(|entry| selection.verdict(entry) == Verdict::Look);
        unclear.cloned().collect()
    }

    /// The children that are left of `manifest`, the ones to rewrite before it. `gone` are those that were looked at in
    /// vain.
    pub fn children(&self, manifest: &Manifest, gone: &HashSet<Digest>) -> Vec<Descriptor> {
        let Some(selection) = self.subset() else { return self.degradations.children(manifest) };
        let strip = self.degradations.contains(Degradation::StripAttestations);
        let kept = manifest.children().iter().zip(selection.kept(manifest, gone));
        let kept = kept.filter(|(entry, kept)| *kept && !(strip && rewrite::is_attestation(entry)));
        kept.map(|(entry, _)| entry.clone()).collect()
    }

    /// The manifest as the target gets it, its children having become `children` or being `gone`, and what had something to
    /// do. `None` if nothing that was asked for is left of it.
    ///
    /// # Errors
    /// [`Inexpressible`] if it holds what cannot be said in the target's words.
    pub fn apply(
        &self,
        manifest: &Manifest,
        gone: &HashSet<Digest>,
        children: &Children,
    ) -> Result<Option<(Manifest, Degradations)>, Inexpressible> {
        let Some(selection) = self.subset() else {
            return self.degradations.apply(manifest, children).map(Some);
        };
        let strip = self.degradations.contains(Degradation::StripAttestations);
        let stripped = if strip { rewrite::strip_attestations(manifest)? } else { manifest.clone() };
        let kept = selection.kept(&stripped, gone);
        if !kept.is_empty() && !kept.contains(&true) {
            return Ok(None);
        }
        let selected = rewrite::retain(&stripped, &kept)?;
        let (now, applied) = self.degradations.apply(&selected, children)?;
        let applied = applied
            .note(Degradation::StripAttestations, stripped.digest() != manifest.digest())
            .note(Degradation::PlatformSubset, selected.digest() != stripped.digest());
        Ok(Some((now, applied)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferry_oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
    use serde_json::{Value, json};

    use super::*;

    fn selection(patterns: &[&str], mode: Mode) -> Option<Selection> {
        let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap());
        Some(Selection::new(patterns, mode).unwrap())
    }

    fn changes(patterns: &[&str], mode: Mode) -> Changes {
        Changes { degradations: Degradations::NONE, platforms: selection(patterns, mode) }
    }

    fn entry(media_type: &str, text: &str, platform: Option<(&str, &str)>) -> Value {
        let mut entry =
            json!({"mediaType": media_type, "digest": Digest::sha256(text.as_bytes()), "size": 1});
        if let Some((os, architecture)) = platform {
            entry["platform"] = json!({"os": os, "architecture": architecture});
        }
        entry
    }

    fn attestation(of: &str) -> Value {
        let mut entry = entry(OCI_MANIFEST, &format!("about {of}"), Some(("unknown", "unknown")));
        entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": Digest::sha256(of.as_bytes())});
        entry
    }

    fn index(entries: &[Value]) -> Manifest {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        Manifest::parse(None, Bytes::from(index.to_string())).unwrap()
    }

    fn two() -> Manifest {
        index(&[
            entry(OCI_MANIFEST, "amd64", Some(("linux", "amd64"))),
            entry(OCI_MANIFEST, "arm64", Some(("linux", "arm64"))),
            attestation("amd64"),
            attestation("arm64"),
        ])
    }

    fn named(manifest: &Manifest) -> Vec<Digest> {
        manifest.children().iter().map(|child| child.digest).collect()
    }

    fn digests(texts: &[&str]) -> Vec<Digest> {
        texts.iter().map(|text| Digest::sha256(text.as_bytes())).collect()
    }

    fn nothing() -> (HashSet<Digest>, Children) {
        Default::default()
    }

    #[test]
    fn a_subset_takes_its_attestations_along() {
        let (gone, children) = nothing();
        let arm = changes(&["arm64"], Mode::Rewrite);
        assert_eq!(arm.children(&two(), &gone).len(), 2);
        let (subset, applied) = arm.apply(&two(), &gone, &children).unwrap().unwrap();
        assert_eq!(named(&subset), digests(&["arm64", "about arm64"]));
        assert_eq!(applied, Degradation::PlatformSubset.into());
        let all = changes(&["arm64", "amd64"], Mode::Rewrite);
        let (same, applied) = all.apply(&two(), &gone, &children).unwrap().unwrap();
        assert_eq!((same.bytes(), applied), (two().bytes(), Degradations::NONE), "not one byte");
        let odd = index(&[entry(OCI_MANIFEST, "amd64", Some(("linux", "amd64"))), attestation("nobody")]);
        assert_eq!(all.apply(&odd, &gone, &children).unwrap().unwrap().0.bytes(), odd.bytes());
        assert!(changes(&["s390x"], Mode::Rewrite).apply(&two(), &gone, &children).unwrap().is_none());
    }

    #[test]
    fn stripping_comes_first_and_types_last() {
        let (gone, _) = nothing();
        let degradations: Degradations =
            [Degradation::StripAttestations, Degradation::DockerTypes].into_iter().collect();
        let how = Changes { degradations, ..changes(&["arm64"], Mode::Rewrite) };
        assert_eq!(how.children(&two(), &gone).len(), 1);
        let new = Descriptor::new(DOCKER_MANIFEST, Digest::sha256(b"docker"), 1);
        let children = Children::from([(Digest::sha256(b"arm64"), new)]);
        let (list, applied) = how.apply(&two(), &gone, &children).unwrap().unwrap();
        assert_eq!((list.media_type(), named(&list)), (DOCKER_LIST, digests(&["docker"])));
        assert_eq!(applied.to_string(), "strip-attestations, platform-subset, docker-types");
    }

    #[test]
    fn what_says_nothing_is_looked_at() {
        let (mut gone, children) = nothing();
        let how = changes(&["amd64"], Mode::Rewrite);
        let mut artifact = entry(OCI_MANIFEST, "artifact", None);
        artifact["artifactType"] = json!("application/vnd.example");
        let whole = index(&[
            entry(OCI_MANIFEST, "amd64", Some(("linux", "amd64"))),
            entry(OCI_MANIFEST, "untold", None),
            entry(OCI_INDEX, "inner", None),
            entry(OCI_INDEX, "inner of amd64", Some(("linux", "amd64"))),
            entry(OCI_INDEX, "inner of arm64", Some(("linux", "arm64"))),
            entry(OCI_CONFIG, "a blob", None),
            artifact,
        ]);
        let looks: Vec<Digest> = how.looks(&whole).iter().map(|look| look.digest).collect();
        assert_eq!(looks, digests(&["untold", "inner", "inner of amd64"]));
        gone.extend(digests(&["untold", "inner"]));
        let (subset, _) = how.apply(&whole, &gone, &children).unwrap().unwrap();
        assert_eq!(named(&subset), digests(&["amd64", "inner of amd64", "a blob", "artifact"]));
    }

    #[test]
    fn only_a_rewriting_selection_rewrites() {
        let (gone, children) = nothing();
        for mode in [Mode::Sparse, Mode::Single] {
            let how = changes(&["arm64"], mode);
            let (same, applied) = how.apply(&two(), &gone, &children).unwrap().unwrap();
            assert_eq!((same.bytes(), applied), (two().bytes(), Degradations::NONE));
            assert!(how.looks(&two()).is_empty() && how.children(&two(), &gone).len() == 4);
        }
    }

    #[test]
    fn keys_name_what_is_done() {
        let strip = Degradations::from(Degradation::StripAttestations);
        let with = |degradations, mode| Changes { degradations, ..changes(&["arm64", "amd64"], mode) }.key();
        assert_eq!(with(Degradations::NONE, Mode::Rewrite), "platform-subset.1[linux/amd64,linux/arm64]");
        let both = "platform-subset.1[linux/amd64,linux/arm64]+strip-attestations.1";
        assert_eq!(with(strip, Mode::Rewrite), both);
        assert_eq!(with(strip, Mode::Sparse), "strip-attestations.1");
        assert_eq!(changes(&["linux/arm/v7"], Mode::Single).key(), "single-platform.1[linux/arm/v7]");
        assert_eq!(Changes::default().key(), "");
        for (how, empty) in [
            (Changes::default(), true),
            (changes(&["arm64"], Mode::Sparse), true),
            (changes(&["arm64"], Mode::Single), false),
            (changes(&["arm64"], Mode::Rewrite), false),
            (Changes { degradations: strip, platforms: None }, false),
        ] {
            assert_eq!(how.is_empty(), empty, "{}", how.key());
        }
    }
}
