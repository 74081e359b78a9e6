use anyhow::{Context, bail};
use ferry_oci::Platform;
use ferry_policy::platforms::Pattern;

use super::platforms::Choice;
use crate::endpoint::{Endpoint, Form, LayoutImage};

/// How archives are written.
#[derive(Debug, Clone)]
pub(crate) struct Archives {
    /// What need not be in them.
    pub(crate) except: Vec<LayoutImage>,
    /// Whether an index may be in them whose children are not.
    pub(crate) sparse: bool,
    /// What `docker load` takes of an image for several platforms.
    pub(crate) platform: Platform,
}

impl Archives {
    pub(super) fn new(except: &[String], choices: &[Choice]) -> anyhow::Result<Self> {
        let except =
            except.iter().map(|text| previous(text).context("--except")).collect::<anyhow::Result<_>>()?;
        let chosen = choices.iter().filter_map(|choice| choice.selection.as_ref()).next();
        let platform = match chosen.and_then(|selection| selection.patterns().first()) {
            Some(pattern) => pattern.platform(),
            None => this_machine(),
        };
        let sparse =
            chosen.is_some_and(|selection| selection.mode() == ferry_policy::platforms::Mode::Sparse);
        Ok(Self { except, sparse, platform })
    }
}

/// What `docker load` would take on a machine like this.
fn this_machine() -> Platform {
    let pattern: Result<Pattern, _> = format!("linux/{}", std::env::consts::ARCH).parse();
    let amd64 = || Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: None,
        os_version: None,
    };
    pattern.map_or_else(|_| amd64(), |pattern| pattern.platform())
}

/// An archive before this one; a path alone will do.
fn previous(text: &str) -> anyhow::Result<LayoutImage> {
    if Form::of(text).is_none() {
        return Ok(LayoutImage::whole(Form::OciArchive, text));
    }
    match text.parse()? {
        Endpoint::Layout(layout) if layout.is_whole() => Ok(layout),
        _ => bail!("{text}: the whole archive is meant; leave out the image"),
    }
}
