use anyhow::bail;
use ferry_oci::{Reference, Registry};

use super::sides::of_sides;
use crate::Environment;
use crate::cli::{DeleteArguments, InspectArguments, LoginArguments, Output, TagsArguments};
use crate::credentials::{LogIn, OfSides};
use crate::endpoint::Endpoint;

/// What `ferry inspect` shall show.
#[derive(Debug)]
pub(crate) struct Inspect {
    pub(crate) image: Endpoint,
    pub(crate) output: Output,
    pub(crate) referrers: bool,
    pub(crate) of_sides: OfSides,
}

impl Inspect {
    pub(crate) fn new(typed: InspectArguments, environment: &Environment) -> anyhow::Result<Self> {
        let image: Endpoint = typed.image.parse()?;
        let of_sides = of_sides(image.registry(), None, environment)?;
        Ok(Self { image, output: typed.output, referrers: !typed.no_referrers, of_sides })
    }
}

/// Which tags `ferry tags` shall list.
#[derive(Debug)]
pub(crate) struct Tags {
    pub(crate) repository: Endpoint,
    pub(crate) output: Output,
    pub(crate) of_sides: OfSides,
}

impl Tags {
    pub(crate) fn new(typed: TagsArguments, environment: &Environment) -> anyhow::Result<Self> {
        let repository = Endpoint::parse_repository(&typed.repository)?;
        if repository.tag().is_some() || repository.digest().is_some() {
            bail!("{repository}: a repository is needed, without tag and digest");
        }
        let of_sides = of_sides(repository.registry(), None, environment)?;
        Ok(Self { repository, output: typed.output, of_sides })
    }
}

/// What `ferry delete` shall take away.
#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) image: Endpoint,
    pub(crate) reference: Reference,
    pub(crate) yes: bool,
    pub(crate) output: Output,
    pub(crate) of_sides: OfSides,
}

impl Delete {
    pub(crate) fn new(typed: DeleteArguments, environment: &Environment) -> anyhow::Result<Self> {
        let image: Endpoint = typed.image.parse()?;
        // `latest` is nobody's intention here.
        let reference = match (image.tag(), image.digest()) {
            (Some(_), Some(_)) => {
                bail!("{image}: name the tag, which is then removed, or the digest, not both")
            }
            (Some(tag), None) => Reference::Tag(tag.clone()),
            (None, Some(digest)) => Reference::Digest(digest),
            (None, None) => bail!("{image}: write the tag or the digest that shall be removed"),
        };
        let of_sides = of_sides(None, image.registry(), environment)?;
        Ok(Self { image, reference, yes: typed.yes, output: typed.output, of_sides })
    }
}

/// A registry that was typed.
pub(crate) fn registry(text: &str) -> anyhow::Result<Registry> {
    // People paste what a browser shows.
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    Ok(host.trim_end_matches('/').parse()?)
}

/// What `ferry login` shall do.
pub(crate) fn log_in(typed: LoginArguments) -> anyhow::Result<LogIn> {
    let LoginArguments { registry: name, username, authfile: file, .. } = typed;
    if username.as_deref().is_some_and(|username| username.is_empty() || username.contains(':')) {
        bail!("--username: a user name is not empty and has no colon");
    }
    Ok(LogIn { registry: registry(&name)?, username, file })
}
