use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ferry_layout::{ImageEntry, ImageName};
use ferry_oci::{Digest, ImageReference, Malformed, Reference, Registry, Tag};

/// One end of a copy as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// An image in a registry.
    Registry(ImageReference),
    /// An image in an OCI layout or an archive.
    Layout(LayoutImage),
}

/// An image in an OCI layout or an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayoutImage {
    pub(crate) form: Form,
    pub(crate) path: PathBuf,
    /// What it is called, where there are images of several names.
    pub(crate) name: Option<ImageName>,
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Option<Digest>,
}

/// How a layout is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A directory.
    Directory,
    /// A directory in a tar file.
    OciArchive,
    /// The same with what `docker load` reads; as a source, whatever `docker save` writes.
    DockerArchive,
}

impl Form {
    const ALL: [Self; 3] = [Self::Directory, Self::OciArchive, Self::DockerArchive];

    /// What stands before the path.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Directory => "oci:",
            Self::OciArchive => "oci-archive:",
            Self::DockerArchive => "docker-archive:",
        }
    }

    /// The form that a text begins with, and the rest of the text.
    pub(crate) fn of(text: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|form| Some((form, text.strip_prefix(form.prefix())?)))
    }
}

impl LayoutImage {
    /// A whole layout, without saying which image.
    pub(crate) fn whole(form: Form, path: impl Into<PathBuf>) -> Self {
        Self { form, path: path.into(), name: None, tag: None, digest: None }
    }

    /// The image in the same layout that an entry is about.
    pub(crate) fn at(&self, entry: ImageEntry) -> Self {
        let ImageEntry { name, tag, digest, .. } = entry;
        let digest = tag.is_none().then_some(digest);
        Self { form: self.form, path: self.path.clone(), name, tag, digest }
    }

    /// What it is called inside the layout.
    pub(crate) fn short(&self) -> String {
        let parts = [self.name.as_ref().map(ImageName::to_string), self.tag.as_ref().map(Tag::to_string)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(":")
    }

    /// Whether it says nothing of an image.
    pub(crate) fn is_whole(&self) -> bool {
        self.name.is_none() && self.tag.is_none() && self.digest.is_none()
    }

    /// The image of that name.
    pub(crate) fn named(self, image: ImageReference) -> Self {
        Self { name: Some(ImageName::from(&image)), tag: image.tag, ..self }
    }

    /// Whether it is an archive, and no name was written.
    pub(crate) fn is_nameless_archive(&self) -> bool {
        self.form != Form::Directory && self.name.is_none()
    }

    fn parse(form: Form, rest: &str) -> Result<Self, String> {
        let (rest, digest) = match rest.rsplit_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|e: Malformed| e.reason)?)),
            None => (rest, None),
        };
        let parse_tag = |tag: &str| tag.parse().map_err(|e: Malformed| e.reason).map(Some);
        let (path, name, tag) = match form {
            Form::Directory => match (full_name(rest), rest.rsplit_once(':')) {
                (Some((path, image)), _) => (path, Some(ImageName::from(&image)), image.tag),
                // A colon before a slash belongs to the path.
                (None, Some((path, tag))) if !tag.contains('/') => (path, None, parse_tag(tag)?),
                (None, _) => (rest, None, None),
            },
            Form::OciArchive | Form::DockerArchive => match rest.split_once(':') {
                None => (rest, None, None),
                Some((path, tag)) if form == Form::OciArchive && !tag.contains(['/', ':']) => {
                    (path, None, parse_tag(tag)?)
                }
                Some((path, image)) => {
                    let image: ImageReference = image.parse().map_err(|e: Malformed| e.to_string())?;
                    (path, Some(ImageName::from(&image)), Some(image.tag.unwrap_or_else(Tag::latest)))
                }
            },
        };
        if path.is_empty() {
            return Err("the path is missing".to_owned());
        }
        if path == "-" && form != Form::Directory {
            return Err("an archive is a file, standard input and output will not do".to_owned());
        }
        Ok(Self { form, path: path.into(), name, tag, digest })
    }
}

/// `DIR:NAME:TAG`, of which the name must have its registry: without one it would look like a part of the path.
fn full_name(text: &str) -> Option<(&str, ImageReference)> {
    let (path, name) = text.split_once(':')?;
    let (registry, rest) = name.split_once('/')?;
    let image: ImageReference = name.parse().ok()?;
    let is_full = rest.contains(':') && (registry.contains(['.', ':']) || registry == "localhost");
    (is_full && image.digest.is_none()).then_some((path, image))
}

impl Endpoint {
    /// Reads what stands for all images of a name; one in an archive means no tag then.
    ///
    /// # Errors
    /// Those of [`Endpoint::from_str`].
    pub(crate) fn parse_repository(text: &str) -> Result<Self, Malformed> {
        let endpoint: Self = text.parse()?;
        match &endpoint {
            Self::Layout(LayoutImage { name: Some(_), tag: Some(tag), digest: None, .. })
                if !text.ends_with(&format!(":{tag}")) =>
            {
                Ok(endpoint.with_tag(None))
            }
            _ => Ok(endpoint),
        }
    }

    /// The registry, if it is one.
    pub(crate) fn registry(&self) -> Option<&Registry> {
        match self {
            Self::Registry(image) => Some(&image.registry),
            Self::Layout(_) => None,
        }
    }

    /// Whether it is in an archive.
    pub(crate) fn is_archive(&self) -> bool {
        self.archive().is_some()
    }

    /// The file of the archive that it is in, if it is in one.
    pub(crate) fn archive(&self) -> Option<&Path> {
        match self {
            Self::Layout(image) if image.form != Form::Directory => Some(&image.path),
            Self::Layout(_) | Self::Registry(_) => None,
        }
    }

    /// The tag that was written.
    pub(crate) fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Registry(image) => image.tag.as_ref(),
            Self::Layout(image) => image.tag.as_ref(),
        }
    }

    /// The digest that was written.
    pub(crate) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Registry(image) => image.digest,
            Self::Layout(image) => image.digest,
        }
    }

    /// What the image is called, wherever it is kept.
    pub(crate) fn image_name(&self) -> Option<ImageReference> {
        match self {
            Self::Registry(image) => Some(image.clone()),
            Self::Layout(LayoutImage { name, tag, .. }) => Some(name.as_ref()?.with_tag(tag.clone())),
        }
    }

    /// The same with another tag and without digest.
    pub(crate) fn with_tag(&self, tag: Option<Tag>) -> Self {
        match self.clone() {
            Self::Registry(image) => Self::Registry(ImageReference { tag, digest: None, ..image }),
            Self::Layout(image) => Self::Layout(LayoutImage { tag, digest: None, ..image }),
        }
    }

    /// The same under the name of `source`, if it is an archive and no name was written: archives have no other.
    pub(crate) fn named_after(&self, source: &Self) -> Self {
        match (self, source.image_name()) {
            (Self::Layout(layout), Some(source)) if layout.is_nameless_archive() && layout.tag.is_none() => {
                Self::Layout(layout.clone().named(source))
            }
            _ => self.clone(),
        }
    }

    /// What the repository is to be asked for: the digest, else the tag, else in a registry `latest`. `None` for a
    /// layout that was named alone: whichever image it holds.
    pub(crate) fn reference(&self) -> Option<Reference> {
        match self {
            Self::Registry(image) => Some(image.reference()),
            Self::Layout(LayoutImage { digest: Some(digest), .. }) => Some(Reference::Digest(*digest)),
            Self::Layout(LayoutImage { tag, .. }) => tag.clone().map(Reference::Tag),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |what, reason| Malformed { what, input: text.to_owned(), reason };
        if let Some((form, rest)) = Form::of(text) {
            let (what, write) = match form {
                Form::Directory => ("OCI layout", "write oci:DIR, oci:DIR:TAG or oci:DIR:NAME:TAG"),
                Form::OciArchive => {
                    ("archive", "write oci-archive:FILE, oci-archive:FILE:TAG or oci-archive:FILE:NAME:TAG")
                }
                Form::DockerArchive => {
                    ("archive", "write docker-archive:FILE or docker-archive:FILE:NAME:TAG")
                }
            };
            let image = LayoutImage::parse(form, rest);
            return image.map(Self::Layout).map_err(|reason| bad(what, format!("{reason}; {write}")));
        }
        if text.starts_with(['/', '.']) || text.ends_with(".tar") {
            let reason = "for a file or directory write oci:DIR, oci-archive:FILE or docker-archive:FILE";
            return Err(bad("image reference", reason.to_owned()));
        }
        text.parse().map(Self::Registry)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(image) => image.fmt(f),
            Self::Layout(image) => image.fmt(f),
        }
    }
}

impl fmt::Display for LayoutImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.form.prefix(), self.path.display())?;
        if let Some(name) = &self.name {
            write!(f, ":{name}")?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed() {
        for (text, shown) in [
            ("alpine", concat!("docker.io/", "library/alpine")),
            ("oci:images", "oci:images"),
            ("oci:/srv/images:v1", "oci:/srv/images:v1"),
            ("oci:/srv/a:b/images", "oci:/srv/a:b/images"),
            ("oci:/srv/a:b/images:v1", "oci:/srv/a:b/images:v1"),
            ("oci:images:quay.io/a/b:v1", "oci:images:quay.io/a/b:v1"),
            ("oci-archive:all.tar", "oci-archive:all.tar"),
            ("oci-archive:/srv/all.tar:v1", "oci-archive:/srv/all.tar:v1"),
            ("oci-archive:all.tar:quay.io/a/b", "oci-archive:all.tar:quay.io/a/b:latest"),
            ("docker-archive:all.tar", "docker-archive:all.tar"),
            (
                "docker-archive:all.tar:app",
                concat!("docker-archive:all.tar:docker.io/", "library/app:latest"),
            ),
            ("docker-archive:all.tar:quay.io/a/b:v1", "docker-archive:all.tar:quay.io/a/b:v1"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        let both: Endpoint = format!("oci:dir:v1@{digest}").parse().unwrap();
        assert_eq!(both.reference().unwrap().to_string(), digest);
        assert_eq!(both.tag().unwrap().as_str(), "v1");
        let named: Endpoint = "docker-archive:x.tar:quay.io/a/b:v1".parse().unwrap();
        assert_eq!(named.image_name().unwrap().to_string(), "quay.io/a/b:v1");
        let in_directory: Endpoint = "oci:dir:localhost:5000/b:v1".parse().unwrap();
        assert_eq!(in_directory.image_name().unwrap().to_string(), "localhost:5000/b:v1");
        for nameless in ["oci:dir:v1", "oci:/srv/a:b/images:v1"] {
            assert_eq!(nameless.parse::<Endpoint>().unwrap().image_name(), None);
        }
    }

    #[test]
    fn a_repository_in_an_archive_means_no_tag() {
        let read = |text: &str| Endpoint::parse_repository(text).unwrap();
        assert_eq!(read("oci-archive:x.tar:quay.io/a/b").tag(), None);
        assert_eq!(read("quay.io/a/b").tag(), None);
        for text in ["oci-archive:x.tar:quay.io/a/b:latest", "docker-archive:x.tar:quay.io/a/b:v1"] {
            assert!(read(text).tag().is_some(), "{text}");
        }
        let digest = format!("oci-archive:x.tar:quay.io/a/b@sha256:{}", "0".repeat(64));
        assert!(read(&digest).digest().is_some());
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, says) in [
            ("oci:", "the path is missing; write oci:DIR"),
            ("oci::v1", "the path is missing"),
            ("oci:dir:-x", "write oci:DIR"),
            ("oci:dir@sha256:0", "write oci:DIR"),
            ("oci-archive:", "write oci-archive:FILE"),
            ("docker-archive:x.tar:UPPER", "write docker-archive:FILE"),
            ("oci-archive:-", "an archive is a file"),
            ("docker-archive:-:app:v1", "an archive is a file"),
            ("docker://alpine", "without scheme"),
            ("./images", "write oci:DIR"),
            ("images.tar", "oci-archive:FILE"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
