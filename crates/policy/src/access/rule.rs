use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ferry_oci::{Malformed, Platform, Reference, Registry};
use ipnet::IpNet;

use super::{Action, Question, Verdict};
use crate::cut;
use crate::pattern::Pattern;

/// One rule: it fits if every condition does, and a condition without entries always does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub verdict: Verdict,
    /// Patterns of the names of users who logged in.
    pub users: Vec<Pattern>,
    /// Networks that the request comes from.
    pub addresses: Vec<IpNet>,
    /// Where the repository is.
    pub places: Vec<Place>,
    /// Patterns of the repository's name there: `library/*`.
    pub repositories: Vec<Pattern>,
    /// Patterns of tags.
    pub tags: Vec<Pattern>,
    /// Patterns of platforms, as `linux/arm64`, whatever its variant, or `linux/arm64/v8`.
    pub platforms: Vec<Pattern>,
    /// What it is wanted for; none is every action for a rule that denies, and reading for one that allows.
    pub actions: Vec<Action>,
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At the mirror itself: written `hosted`.
    Hosted,
    /// At an upstream of such a name: `docker.io`, `*.gcr.io`, `*`.
    Upstream(Pattern),
}

/// How a condition stands to a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// What is asked for has nothing that the condition is about.
    Open,
}

impl Rule {
    /// A rule without conditions.
    pub fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            users: Vec::new(),
            addresses: Vec::new(),
            places: Vec::new(),
            repositories: Vec::new(),
            tags: Vec::new(),
            platforms: Vec::new(),
            actions: Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Malformed> {
        let upper = |pattern: &&Pattern| pattern.as_str().bytes().any(|b| b.is_ascii_uppercase());
        match self.repositories.iter().find(upper) {
            None => Ok(()),
            Some(pattern) => Err(Malformed {
                what: "rule",
                input: cut(pattern.as_str()),
                reason: "a repository name is lower case, so the pattern would never fit".to_owned(),
            }),
        }
    }

    pub(super) fn fits(&self, question: &Question<'_>) -> bool {
        self.concerns(question) && self.is_for(question) && {
            let fits = [self.fits_tag(question), self.fits_platform(question)];
            !fits.contains(&Fit::No) && (!fits.contains(&Fit::Open) || self.takes_open(question.action))
        }
    }

    /// Whether it is about this action in this repository.
    fn concerns(&self, question: &Question<'_>) -> bool {
        let repository = question.repository.as_str();
        self.is_about(question.action)
            && any(&self.places, |place| place.is_at(question.upstream))
            && any(&self.repositories, |pattern| pattern.matches(repository))
    }

    pub(super) fn is_about(&self, action: Action) -> bool {
        match self.actions.as_slice() {
            [] => self.denies() || action.reads(),
            actions => actions.contains(&action),
        }
    }

    /// Whether it is about this client.
    fn is_for(&self, question: &Question<'_>) -> bool {
        // A socket for both families shows IPv4 clients at ::ffff:0:0/96.
        let address = question.address.to_canonical();
        any(&self.users, |pattern| question.user.is_some_and(|user| pattern.matches(user)))
            && any(&self.addresses, |network| network.contains(&address))
    }

    fn fits_tag(&self, question: &Question<'_>) -> Fit {
        match question.reference {
            _ if self.tags.is_empty() => Fit::Yes,
            Some(Reference::Tag(tag)) => sure(any(&self.tags, |pattern| pattern.matches(tag.as_str()))),
            Some(Reference::Digest(_)) | None => Fit::Open,
        }
    }

    fn fits_platform(&self, question: &Question<'_>) -> Fit {
        match question.platform {
            _ if self.platforms.is_empty() => Fit::Yes,
            // Attestations are of "unknown/unknown", and belong to images of every platform.
            Some(platform) if platform.os != "unknown" => {
                sure(any(&self.platforms, |pattern| is_of(pattern, platform)))
            }
            _ => Fit::Open,
        }
    }

    pub(super) fn denies(&self) -> bool {
        matches!(self.verdict, Verdict::Deny(_))
    }

    /// Deleting by digest takes tags along that nobody asked about.
    fn takes_open(&self, action: Action) -> bool {
        !self.denies() && action != Action::Delete
    }
}

fn any<T>(condition: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    condition.is_empty() || condition.iter().any(fits)
}

fn sure(fits: bool) -> Fit {
    if fits { Fit::Yes } else { Fit::No }
}

fn is_of(pattern: &Pattern, platform: &Platform) -> bool {
    let plain = format!("{}/{}", platform.os, platform.architecture);
    let variant = platform.variant.as_ref().map(|variant| format!("{plain}/{variant}"));
    pattern.matches(&plain) || variant.is_some_and(|variant| pattern.matches(&variant))
}

impl Place {
    pub(super) fn is_at(&self, upstream: Option<&str>) -> bool {
        match (self, upstream) {
            (Self::Hosted, None) => true,
            (Self::Upstream(pattern), Some(upstream)) => pattern.matches(upstream),
            (Self::Hosted, Some(_)) | (Self::Upstream(_), None) => false,
        }
    }
}

impl FromStr for Place {
    type Err = Malformed;

    /// All spellings of Docker Hub are `docker.io`, and upper case is lower case, as in references.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "hosted" {
            return Ok(Self::Hosted);
        }
        let lower = text.to_ascii_lowercase();
        let text = lower.parse().map_or(lower, |registry: Registry| registry.to_string());
        text.parse().map(Self::Upstream)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosted => f.write_str("hosted"),
            Self::Upstream(pattern) => pattern.fmt(f),
        }
    }
}

/// A range of addresses, `10.0.0.0/8` or `fd00::/8`, or a single one.
///
/// # Errors
/// [`Malformed`] if it is neither, or has bits behind its prefix: `10.0.0.1/8` is a mistake in one of its two numbers.
pub fn network(text: &str) -> Result<IpNet, Malformed> {
    let bad = |reason: String| Malformed { what: "network", input: cut(text), reason };
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => {
            text.parse().map_err(|_| bad("write ADDRESS or ADDRESS/BITS, as in 10.0.0.0/8".to_owned()))?
        }
    };
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(bad(format!("write {whole}, or the address alone"))),
    }
}
