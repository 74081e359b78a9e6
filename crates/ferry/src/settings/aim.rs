use std::str::FromStr;

use anyhow::{Context, bail};
use ferry_oci::{ImageReference, Malformed, Reference, Registry, Tag};
use ferry_policy::naming::{self, Named, Naming, Prefix};

use crate::endpoint::{Endpoint, Form, LayoutImage};

/// Where images go that are not told where, and how they are called there: `--to` and `--naming`.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    to: To,
    naming: Option<Naming>,
}

#[derive(Debug, Clone)]
enum To {
    Registry(Prefix),
    Layout(LayoutImage),
}

/// A name that was chosen for one image: what follows the `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen(ImageReference);

impl Chosen {
    /// Whether a tag was chosen, too.
    pub(super) fn has_tag(&self) -> bool {
        self.0.tag.is_some()
    }
}

impl FromStr for Chosen {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: String| Malformed { what: "name", input: text.to_owned(), reason };
        // Below a prefix the first part is no registry, so it is parsed as the rest of one.
        let image: ImageReference =
            format!("localhost/{text}").parse().map_err(|e: Malformed| bad(e.reason))?;
        match image.digest {
            None => Ok(Self(image)),
            Some(_) => Err(bad("write NAME or NAME:TAG after the $".to_owned())),
        }
    }
}

impl Aim {
    /// What `--to` and `--naming` say.
    ///
    /// # Errors
    /// What is wrong with either.
    pub(crate) fn new(to: Option<&str>, naming: Option<&str>) -> anyhow::Result<Option<Self>> {
        let naming: Option<Naming> = naming.map(str::parse).transpose().context("--naming")?;
        let Some(to) = to else {
            if naming.is_some() {
                bail!("--naming is for images that go to --to PREFIX");
            }
            return Ok(None);
        };
        Ok(Some(Self { to: To::parse(to).context("--to")?, naming }))
    }

    /// The registry that images go to, if it is one.
    pub(crate) fn registry(&self) -> Option<&Registry> {
        match &self.to {
            To::Registry(prefix) => Some(&prefix.registry),
            To::Layout(_) => None,
        }
    }

    /// Whether images go to an archive.
    pub(super) fn is_archive(&self) -> bool {
        matches!(&self.to, To::Layout(layout) if layout.form != Form::Directory)
    }

    /// Whether names tell platforms apart.
    pub(super) fn tells_platforms_apart(&self) -> bool {
        self.naming.as_ref().is_some_and(Naming::tells_platforms_apart)
    }

    /// Whether the image is there already.
    pub(super) fn holds(&self, image: &ImageReference) -> bool {
        match &self.to {
            To::Registry(prefix) => prefix.holds(image),
            To::Layout(_) => false,
        }
    }

    /// Where `source` goes; `platform` is the one that it is cut down to, if it is.
    ///
    /// # Errors
    /// That it has no name, or that its name would not be one there.
    pub(crate) fn target(
        &self,
        source: &Endpoint,
        chosen: Option<&Chosen>,
        platform: Option<&str>,
    ) -> anyhow::Result<Endpoint> {
        let tag = carried_tag(source);
        let (Some(image), false) = (source.image_name(), chosen.is_some()) else {
            let Some(Chosen(chosen)) = chosen else {
                bail!("{source}: it has no name; write SOURCE$NAME to choose one, or SOURCE TARGET");
            };
            let named = Named { repository: chosen.repository.clone(), tag: chosen.tag.clone() };
            return self.place(named, tag);
        };
        match (&self.to, &self.naming) {
            // Who unpacks an archive finds the image under its own name.
            (To::Layout(layout), None) => {
                Ok(Endpoint::Layout(layout.clone().named(ImageReference { tag, digest: None, ..image })))
            }
            (To::Registry(_), None) => self.place(Naming::default().name(&image, platform)?, tag),
            (_, Some(naming)) => self.place(naming.name(&image, platform)?, tag),
        }
    }

    fn place(&self, named: Named, tag: Option<Tag>) -> anyhow::Result<Endpoint> {
        match &self.to {
            To::Registry(prefix) => Ok(Endpoint::Registry(prefix.image(named, tag)?)),
            To::Layout(layout) => {
                let mut image: ImageReference = named.repository.as_str().parse()?;
                image.tag = named.tag.or(tag);
                Ok(Endpoint::Layout(layout.clone().named(image)))
            }
        }
    }
}

impl To {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if Form::of(text).is_none() {
            return Ok(Self::Registry(text.parse()?));
        }
        match text.parse()? {
            Endpoint::Layout(layout) if layout.is_whole() => Ok(Self::Layout(layout)),
            _ => bail!("{text}: images keep their names and tags; leave them out here"),
        }
    }
}

/// The tag that comes along with a source; a layout that was named alone says it only when it is read.
pub(super) fn carried_tag(source: &Endpoint) -> Option<Tag> {
    let carried = match source {
        Endpoint::Registry(image) => naming::source_tag(image),
        layout => layout.tag().cloned().map(Reference::Tag).or_else(|| layout.reference())?,
    };
    naming::target_tag(&carried, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(to: &str, naming: Option<&str>, source: &str, chosen: Option<&str>) -> anyhow::Result<String> {
        let aim = Aim::new(Some(to), naming)?.unwrap();
        let chosen: Option<Chosen> = chosen.map(str::parse).transpose()?;
        Ok(aim.target(&source.parse()?, chosen.as_ref(), None)?.to_string())
    }

    #[test]
    fn everything_has_a_place() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("quay.io/a/b@{digest}");
        let both = format!("quay.io/a/b:v1@{digest}");
        for (to, naming, source, chosen, expected) in [
            ("localhost:5000/m", None, "quay.io/a/b:v1", None, "localhost:5000/m/a/b:v1"),
            ("localhost:5000/m", None, "quay.io/a/b", None, "localhost:5000/m/a/b:latest"),
            ("localhost:5000/m", None, pinned.as_str(), None, "localhost:5000/m/a/b"),
            ("localhost:5000/m", None, both.as_str(), None, "localhost:5000/m/a/b:v1"),
            ("localhost:5000/m", Some("dots"), "quay.io/a/b:v1", None, "localhost:5000/m/quay.io.a.b:v1"),
            ("localhost:5000/m", Some("dots"), "quay.io/a/b:v1", Some("x/y"), "localhost:5000/m/x/y:v1"),
            ("localhost:5000/m", None, "quay.io/a/b:v1", Some("x:v2"), "localhost:5000/m/x:v2"),
            ("localhost:5000/m", None, "oci:dir:v1", Some("x"), "localhost:5000/m/x:v1"),
            ("localhost:5000", None, "docker-archive:f.tar:quay.io/a/b:v1", None, "localhost:5000/a/b:v1"),
            ("oci:dir", None, "quay.io/a/b:v1", None, "oci:dir:quay.io/a/b:v1"),
            ("oci-archive:f.tar", None, both.as_str(), None, "oci-archive:f.tar:quay.io/a/b:v1"),
            (
                "docker-archive:f.tar",
                Some("basename"),
                "quay.io/a/b:v1",
                None,
                concat!("docker-archive:f.tar:docker.io/", "library/b:v1"),
            ),
            (
                "docker-archive:f.tar",
                None,
                "quay.io/a/b:v1",
                Some("me/x:v2"),
                "docker-archive:f.tar:docker.io/me/x:v2",
            ),
        ] {
            assert_eq!(target(to, naming, source, chosen).unwrap(), expected);
        }
        for (to, naming, source, chosen) in [
            ("localhost:5000", None, "oci:dir:v1", None),
            ("oci:dir:v1", None, "a", None),
            ("localhost:5000/a:v1", None, "a", None),
            ("localhost:5000", Some("dashes"), "a", None),
            ("localhost:5000", None, "a", Some("UPPER")),
            ("localhost:5000", None, "a", Some("x@y")),
        ] {
            assert!(target(to, naming, source, chosen).is_err(), "{to} {source}");
        }
        assert!(Aim::new(None, Some("dots")).is_err());
        assert!(Aim::new(None, None).unwrap().is_none());
    }
}
