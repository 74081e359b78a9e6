use std::fmt;

use ferry_oci::{ImageReference, Name, Registry, Tag};

/// The name of an image without tag and digest, such as `docker.io/library/alpine`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    /// The registry.
    pub registry: Registry,
    /// The repository in it.
    pub repository: Name,
}

impl ImageName {
    /// The image of this name under `tag`.
    pub fn with_tag(&self, tag: Option<Tag>) -> ImageReference {
        let Self { registry, repository } = self.clone();
        ImageReference { registry, repository, tag, digest: None }
    }

    /// The name as Docker shows it: without `docker.io/`, and without `library/` there (distribution/reference,
    /// `FamiliarName`).
    pub fn familiar(&self) -> String {
        if !self.registry.is_docker_hub() {
            return self.to_string();
        }
        let path = self.repository.as_str();
        match path.strip_prefix("library/") {
            // `library/a.b/c` without its first part would be another registry.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => path.to_owned(),
        }
    }
}

impl From<&ImageReference> for ImageName {
    fn from(image: &ImageReference) -> Self {
        Self { registry: image.registry.clone(), repository: image.repository.clone() }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// What an entry of `index.json` is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) name: Option<ImageName>,
    pub(crate) tag: Option<Tag>,
}

impl Label {
    /// Reads the two annotations that tools write: `image` as containerd, buildx and `docker save` do it, `ref_name` as
    /// those do it for the tag alone, and podman and skopeo for the whole name.
    pub(crate) fn read(image: Option<&str>, ref_name: Option<&str>) -> Self {
        let short = ref_name.and_then(|text| text.parse::<Tag>().ok());
        match image.or(ref_name.filter(|_| short.is_none())).and_then(Self::full) {
            // Tools that do not know the other annotation change only this one.
            Some(full) => Self { tag: short.or(full.tag), ..full },
            None => Self { name: None, tag: short },
        }
    }

    /// Reads a whole reference, as it also stands in `RepoTags` of `manifest.json`. One that says neither tag nor
    /// digest means `latest`.
    pub(crate) fn full(text: &str) -> Option<Self> {
        let image: ImageReference = text.parse().ok()?;
        let name = Some(ImageName::from(&image));
        let implied = image.digest.is_none().then(Tag::latest);
        Some(Self { name, tag: image.tag.or(implied) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(image: Option<&str>, ref_name: Option<&str>) -> (String, String) {
        let label = Label::read(image, ref_name);
        let name = label.name.map(|name| name.to_string()).unwrap_or_default();
        (name, label.tag.map(|tag| tag.to_string()).unwrap_or_default())
    }

    #[test]
    fn labels_of_many_tools() {
        let alpine = concat!("docker.io/", "library/alpine");
        for (image, ref_name, name, tag) in [
            (None, None, "", ""),
            (None, Some("v1"), "", "v1"),
            (None, Some("alpine"), "", "alpine"),
            (None, Some("alpine:3.20"), alpine, "3.20"),
            (None, Some("quay.io/team/app"), "quay.io/team/app", "latest"),
            (Some("alpine:3.20"), Some("3.20"), alpine, "3.20"),
            (Some("alpine:3.20"), None, alpine, "3.20"),
            (Some("alpine:3.20"), Some("changed"), alpine, "changed"),
            (Some("not a name"), Some("v1"), "", "v1"),
            (None, Some("not a name"), "", ""),
        ] {
            assert_eq!(read(image, ref_name), (name.to_owned(), tag.to_owned()), "{image:?} {ref_name:?}");
        }
    }

    #[test]
    fn familiar_names() {
        for (text, familiar) in [
            ("alpine", "alpine"),
            ("team/app", "team/app"),
            ("quay.io/library/alpine", "quay.io/library/alpine"),
            (concat!("docker.io/", "library/a/b"), "library/a/b"),
        ] {
            let image: ImageReference = text.parse().unwrap();
            let name = ImageName::from(&image);
            assert_eq!(name.familiar(), familiar);
            assert_eq!(name.familiar().parse::<ImageReference>().unwrap(), name.with_tag(None));
        }
    }
}
