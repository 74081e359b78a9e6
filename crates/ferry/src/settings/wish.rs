use anyhow::{Context, bail};
use ferry_policy::naming;

use super::aim::{Aim, Chosen, carried_tag};
use super::copy::Pair;
use super::platforms::Choice;
use crate::endpoint::{Endpoint, Form};

/// An image, or all images of a repository or layout, that somebody wants somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) source: Endpoint,
    target: Wanted,
    /// Where it is written, if in a list.
    place: Option<String>,
}

#[derive(Debug, Clone)]
enum Wanted {
    /// Exactly there.
    At(Endpoint),
    /// Below `--to`, under a name that was chosen.
    Chosen(Chosen),
    /// Below `--to`, as `--naming` says.
    ByNaming,
}

impl Wish {
    /// `SOURCE TARGET`, `SOURCE$NAME[:TAG]` or `SOURCE` as they were typed.
    pub(super) fn new(source: &str, target: Option<&str>) -> anyhow::Result<Self> {
        let (source, target) = match (source.rsplit_once('$'), target) {
            (Some(_), Some(target)) => bail!("{source} {target}: a name after $ or a TARGET, not both"),
            (Some((source, chosen)), None) => (source, Wanted::Chosen(chosen.parse()?)),
            (None, None) => (source, Wanted::ByNaming),
            (None, Some(target)) => (source, Wanted::At(parse_target(target)?)),
        };
        Ok(Self { source: source.parse()?, target, place: None })
    }

    /// The same, written at `place`.
    pub(super) fn at(self, place: String) -> Self {
        Self { place: Some(place), ..self }
    }

    /// The same about one image of the source.
    pub(crate) fn about(&self, source: Endpoint) -> Self {
        Self { source, ..self.clone() }
    }

    /// Where it is explicitly wanted.
    pub(super) fn target(&self) -> Option<&Endpoint> {
        match &self.target {
            Wanted::At(target) => Some(target),
            Wanted::Chosen(_) | Wanted::ByNaming => None,
        }
    }

    /// Whether it is about all that the source holds, which is only known when that was asked: with `--all-tags`, or where
    /// a whole layout goes to a place that has names for all of it.
    ///
    /// # Errors
    /// What speaks against copying all tags.
    pub(super) fn is_about_all(&self, all_tags: bool) -> anyhow::Result<bool> {
        let one = self.source.tag().is_some() || self.source.digest().is_some();
        if !all_tags {
            return Ok(!one && self.source.registry().is_none() && matches!(self.target, Wanted::ByNaming));
        }
        let tagged = match &self.target {
            Wanted::At(target) => target.tag().is_some(),
            Wanted::Chosen(chosen) => chosen.has_tag(),
            Wanted::ByNaming => false,
        };
        let wrong = match (one, tagged) {
            (true, _) => self.source.to_string(),
            (false, true) => format!("the target of {}", self.source),
            (false, false) => return Ok(true),
        };
        let at = self.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        bail!("{at}--all-tags: all tags are kept; leave out the tag of {wrong}");
    }

    /// From where and to where. The target's tag is decided except for a layout that was named alone.
    ///
    /// # Errors
    /// That there is no target, or what is wrong with its name.
    pub(crate) fn pair(&self, aim: Option<&Aim>, platform: &Choice) -> anyhow::Result<Pair> {
        let target = self.place_of(aim, platform.name.as_deref());
        let target = match &self.place {
            Some(place) => target.with_context(|| place.clone()),
            None => target,
        };
        Ok(Pair { source: self.source.clone(), target: target?, platforms: platform.selection.clone() })
    }

    fn place_of(&self, aim: Option<&Aim>, platform: Option<&str>) -> anyhow::Result<Endpoint> {
        let chosen = match &self.target {
            Wanted::At(target) => return Ok(self.tagged(target)),
            Wanted::Chosen(chosen) => Some(chosen),
            Wanted::ByNaming => None,
        };
        let Some(aim) = aim else {
            bail!("{}: no target; write SOURCE TARGET, or say where all go with --to PREFIX", self.source);
        };
        aim.target(&self.source, chosen, platform)
    }

    /// The target with the source's tag if it has none; the source's name comes along into archives.
    fn tagged(&self, target: &Endpoint) -> Endpoint {
        let tag = target.tag().cloned().or_else(|| carried_tag(&self.source));
        target.named_after(&self.source).with_tag(tag)
    }
}

fn parse_target(text: &str) -> anyhow::Result<Endpoint> {
    // Docker's grammar takes it for an image of Docker's own, which nobody else pushes to.
    if Form::of(text).is_none() && !text.contains('/') {
        bail!(
            "{text}: a target is NAMESPACE/NAME on Docker Hub or REGISTRY/NAME elsewhere; \
             for all images below a registry write --to {text}"
        );
    }
    let target: Endpoint = text.parse()?;
    if let Endpoint::Registry(image) = &target {
        naming::check_target(image)?;
    } else if target.digest().is_some() {
        bail!("{target}: a target has no digest; write DIR or DIR:TAG, FILE or FILE:NAME:TAG");
    }
    Ok(target)
}
