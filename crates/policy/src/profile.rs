//! What is known of a target by its host: which names it takes, what has to be there before a push, and what it refuses.
//!
//! Sourced facts only, each with its source beside it in the table; what is not known is not held against a target.
//! A profile saves a user a failure halfway; the target always has the last word.

mod table;

use std::fmt;
use std::str::FromStr;

use ferry_oci::{ImageReference, Malformed, Name, Registry, media_type};

use crate::degrade::{Degradation, Degradations};
use crate::naming::Preset;
use crate::pattern::fits;

/// One sort of registry.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// The name in options: `huawei-swr`.
    pub name: &'static str,
    /// The name for people: `Huawei SWR`.
    pub title: &'static str,
    /// How many parts a repository name has, its namespace among them.
    pub depth: Depth,
    /// What must be created before the first push, and where.
    pub before_push: Option<&'static str>,
    /// Media types of manifests that it refuses.
    pub refuses: &'static [&'static str],
    /// The largest manifest that it takes, in bytes.
    pub max_manifest: Option<u64>,
    /// More requests than so many a second are refused, or have been found unwise.
    pub requests_per_second: Option<u32>,
    /// Whether ferry's tests have met such a registry that nobody here wrote.
    pub tested: bool,
    /// Patterns of the hosts that it goes by.
    hosts: &'static [&'static str],
}

/// How many parts a repository name may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// At least.
    pub min: usize,
    /// At most, where there is a limit.
    pub max: Option<usize>,
}

/// A repository name has more or fewer parts than the target takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target} takes {allowed}, and {name} has {found} {}", if *.found == 1 { "part" } else { "parts" })]
pub struct WrongDepth {
    /// The title of the profile.
    pub target: &'static str,
    /// The name.
    pub name: Name,
    /// How many parts there may be.
    pub allowed: Depth,
    /// How many there are.
    pub found: usize,
}

impl Depth {
    const ANY: Self = Self { min: 1, max: None };
    const TWO: Self = Self { min: 2, max: Some(2) };
    /// A namespace and at least one part below it.
    const BELOW_NAMESPACE: Self = Self { min: 2, max: None };

    /// Whether a name of so many parts is within.
    pub fn allows(self, parts: usize) -> bool {
        parts >= self.min && self.max.is_none_or(|max| parts <= max)
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |n: usize| if n == 1 { "part" } else { "parts" };
        match (self.min, self.max) {
            (2, Some(2)) => f.write_str("NAMESPACE/NAME"),
            (2, None) => f.write_str("NAMESPACE/NAME or deeper names"),
            (min, None) => write!(f, "names of at least {min} {}", part(min)),
            (min, Some(max)) if min == max => write!(f, "names of {min} {}", part(min)),
            (min, Some(max)) => write!(f, "names of {min} to {max} parts"),
        }
    }
}

impl Profile {
    /// The profile of a registry as its host tells it; [`Profile::generic`] where the host tells nothing.
    pub fn of(registry: &Registry) -> &'static Self {
        let host = registry.host();
        let belongs = |profile: &&Self| profile.hosts.iter().any(|pattern| fits(pattern, host));
        table::PROFILES.iter().find(belongs).unwrap_or(Self::generic())
    }

    /// The profile of that name.
    ///
    /// # Errors
    /// [`Malformed`] that lists the names there are.
    pub fn named(name: &str) -> Result<&'static Self, Malformed> {
        Self::all().find(|profile| profile.name == name).ok_or_else(|| Malformed {
            what: "profile",
            input: name.chars().take(120).collect(),
            reason: format!("write one of {}", Self::all().map(|p| p.name).collect::<Vec<_>>().join(", ")),
        })
    }

    /// A registry of which nothing is known but the specification.
    pub fn generic() -> &'static Self {
        &table::GENERIC
    }

    /// All profiles.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        table::PROFILES.iter().chain([Self::generic()])
    }

    /// Whether the target takes repositories of this name, as far as depth decides it.
    ///
    /// # Errors
    /// [`WrongDepth`] if not.
    pub fn check_name(&self, name: &Name) -> Result<(), WrongDepth> {
        let found = name.as_str().split('/').count();
        if self.depth.allows(found) {
            return Ok(());
        }
        Err(WrongDepth { target: self.title, name: name.clone(), allowed: self.depth, found })
    }

    /// The first preset, in the order of [`Preset::ALL`], under which `source` has a name that the target takes, and the
    /// whole name; below `namespace` if there is one.
    pub fn fitting(&self, source: &ImageReference, namespace: Option<&str>) -> Option<(Preset, Name)> {
        Preset::ALL.into_iter().find_map(|preset| {
            let name = preset.name(source).ok()?;
            let name = match namespace {
                Some(namespace) => format!("{namespace}/{name}").parse().ok()?,
                None => name,
            };
            self.check_name(&name).is_ok().then_some((preset, name))
        })
    }

    /// What has to be changed in images so that the target takes them.
    pub fn degradations(&self) -> Degradations {
        let refuses = |kind| self.refuses.contains(&kind);
        if refuses(media_type::OCI_INDEX) || refuses(media_type::OCI_MANIFEST) {
            // Docker's types have no words for attestations.
            return Degradations::NONE.with(Degradation::StripAttestations).with(Degradation::DockerTypes);
        }
        Degradations::NONE
    }
}

/// Which profile is used for a target, and whether images may be changed for it: what `--profile` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// As the host tells.
    #[default]
    Auto,
    /// As the host tells, and every image arrives as it is or not at all.
    Strict,
    /// This one, whatever the host is called.
    Named(&'static Profile),
}

impl Choice {
    /// The profile of a target.
    pub fn profile(self, registry: &Registry) -> &'static Profile {
        match self {
            Self::Auto | Self::Strict => Profile::of(registry),
            Self::Named(profile) => profile,
        }
    }

    /// What is changed in images for a target.
    pub fn degradations(self, registry: &Registry) -> Degradations {
        match self {
            Self::Strict => Degradations::NONE,
            Self::Auto | Self::Named(_) => self.profile(registry).degradations(),
        }
    }
}

impl FromStr for Choice {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "auto" => Ok(Self::Auto),
            "strict" => Ok(Self::Strict),
            name => Profile::named(name)
                .map(Self::Named)
                .map_err(|error| Malformed { reason: format!("{}, auto or strict", error.reason), ..error }),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Strict => "strict",
            Self::Named(profile) => profile.name,
        })
    }
}

#[cfg(test)]
mod tests;
