//! Which platforms of an image are wanted, and how an image with only those is brought.

mod pattern;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ferry_oci::{Descriptor, Digest, Malformed, Manifest, Platform, media_type, rewrite};

pub use pattern::Pattern;

/// How many platforms of an image an error lists.
const LISTED: usize = 40;

/// How an image with only some of its platforms is brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The index is rewritten to name the chosen manifests only. Its digest changes; every registry takes it.
    #[default]
    Rewrite,
    /// The index keeps its bytes and its digest, and only the chosen manifests are brought. The target must take an index
    /// whose manifests are missing, which distribution, Harbor and others do not. An index inside that is wanted comes whole,
    /// and so does whatever the index does not say the platform of.
    Sparse,
    /// The one chosen manifest takes the place of the index. Its attestations stay behind, because it is the index that
    /// names them.
    Single,
}

impl Mode {
    /// All of them, the usual one first.
    pub const ALL: [Self; 3] = [Self::Rewrite, Self::Sparse, Self::Single];

    /// The name as it is written in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rewrite => "rewrite",
            Self::Sparse => "sparse",
            Self::Single => "single",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| Malformed {
            what: "platform mode",
            input: text.to_owned(),
            reason: format!("it is one of {}", Self::ALL.map(Self::as_str).join(", ")),
        })
    }
}

/// The platforms that are wanted of an image, and how. Cheap to clone.
///
/// An image need not have all of them: what it has of them is chosen. One that has none of them is an error, unless it
/// says nothing of platforms at all, as artifacts do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    patterns: Arc<[Pattern]>,
    mode: Mode,
}

/// What an entry of an index says about being wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is for a platform that is wanted.
    Wanted,
    /// It is for another platform.
    Other,
    /// It does not say, but what it names does: an index inside the index, or an image without platform.
    Look,
    /// It is no image, so it is for every platform.
    Any,
    /// It is an attestation, and goes where the manifest goes that it is about.
    Follows,
}

/// An image has none of the platforms that are wanted, or too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unchosen {
    /// It has none of them.
    #[error("it has no {wanted}; it has {}", listed(has))]
    Nothing {
        /// What was wanted.
        wanted: String,
        /// What there is.
        has: Vec<Platform>,
    },
    /// It has several versions of Windows, of which only the host that runs the image can choose one.
    #[error(
        "{wanted} is there for several versions of Windows ({}); name one, as in windows(10.0.20348)/amd64",
        listed(has)
    )]
    Several {
        /// What was wanted.
        wanted: String,
        /// What there is of it.
        has: Vec<Platform>,
    },
}

fn listed(platforms: &[Platform]) -> String {
    let mut shown: Vec<String> = platforms.iter().take(LISTED).map(Platform::to_string).collect();
    if platforms.len() > LISTED {
        shown.push(format!("and {} more", platforms.len() - LISTED));
    }
    shown.join(", ")
}

/// The platform that an entry names, if it does: BuildKit and others write `unknown` where there is none.
pub fn told(entry: &Descriptor) -> Option<&Platform> {
    entry.platform.as_ref().filter(|platform| is_told(platform))
}

/// Whether it names a platform at all.
pub fn is_told(platform: &Platform) -> bool {
    [&platform.os, &platform.architecture].into_iter().all(|part| !matches!(part.as_str(), "" | "unknown"))
}

impl Selection {
    /// Wants the platforms that any of `patterns` matches. Their order means nothing.
    ///
    /// # Errors
    /// [`Malformed`] without a pattern, and with several where there can be only one manifest.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>, mode: Mode) -> Result<Self, Malformed> {
        let mut patterns: Vec<Pattern> = patterns.into_iter().collect();
        // What is remembered of a selection does not depend on how it was written.
        patterns.sort();
        patterns.dedup();
        let chosen = Self { patterns: patterns.into(), mode };
        let reason = match (chosen.patterns.len(), mode) {
            (0, _) => "name at least one platform, such as linux/amd64",
            (2.., Mode::Single) => "with the mode single there is one platform; use rewrite for several",
            _ => return Ok(chosen),
        };
        Err(Malformed { what: "choice of platforms", input: chosen.to_string(), reason: reason.to_owned() })
    }

    /// What is wanted, sorted and each once.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// How it is brought.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the platform is wanted.
    pub fn wants(&self, platform: &Platform) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(platform))
    }

    /// What `entry` says about being wanted. An index inside an index is not wanted as such, but for what is in it.
    pub fn verdict(&self, entry: &Descriptor) -> Verdict {
        if rewrite::is_attestation(entry) {
            return Verdict::Follows;
        }
        let is_index = media_type::is_index(&entry.media_type);
        match told(entry) {
            Some(platform) if !self.wants(platform) => Verdict::Other,
            Some(_) if !is_index => Verdict::Wanted,
            Some(_) => Verdict::Look,
            None if !media_type::is_manifest(&entry.media_type) || entry.artifact_type.is_some() => {
                Verdict::Any
            }
            None => Verdict::Look,
        }
    }

    /// Which entries of `index` are kept, in their order. Those with [`Verdict::Look`] are, unless they turned out to be
    /// `gone`; an attestation is kept if the manifest is that it is about.
    pub fn kept(&self, index: &Manifest, gone: &HashSet<Digest>) -> Vec<bool> {
        let entries = index.children();
        let is_kept = |entry: &Descriptor| match self.verdict(entry) {
            Verdict::Wanted | Verdict::Any => true,
            Verdict::Look => !gone.contains(&entry.digest),
            Verdict::Other | Verdict::Follows => false,
        };
        // What is brought whole stays as it is, with attestations that are about nothing.
        if entries.iter().all(|entry| is_kept(entry) || rewrite::is_attestation(entry)) {
            return vec![true; entries.len()];
        }
        let named: HashSet<Digest> =
            entries.iter().filter(|entry| is_kept(entry)).map(|entry| entry.digest).collect();
        let follows = |entry: &Descriptor| {
            let about = rewrite::is_attestation(entry).then(|| rewrite::attested(entry)).flatten();
            about.is_some_and(|digest| named.contains(&digest))
        };
        entries.iter().map(|entry| is_kept(entry) || follows(entry)).collect()
    }

    /// The error for an image that `has` nothing that is wanted.
    pub fn nothing(&self, has: Vec<Platform>) -> Unchosen {
        let patterns: Vec<String> = self.patterns.iter().map(Pattern::to_string).collect();
        Unchosen::Nothing { wanted: patterns.join(" and no "), has }
    }

    /// The place among `candidates` of the one that stands for all: the one that Docker would run on a machine of today.
    /// For 32-bit ARM that is v7 before v6 before v5, elsewhere the variant that all machines have before later ones;
    /// of equals the first. `None` if there is no candidate.
    ///
    /// # Errors
    /// [`Unchosen::Several`] for several versions of Windows: there the machine decides.
    pub fn best(&self, candidates: &[(Digest, Platform)]) -> Result<Option<usize>, Unchosen> {
        let Some(best) = (0..candidates.len()).min_by_key(|place| pattern::rank(&candidates[*place].1))
        else {
            return Ok(None);
        };
        let (digest, platform) = &candidates[best];
        let is_rival = |(other, its): &&(Digest, Platform)| {
            other != digest
                && its.os_version != platform.os_version
                && pattern::rank(its) == pattern::rank(platform)
        };
        if pattern::is_windows(platform) && candidates.iter().any(|candidate| is_rival(&candidate)) {
            let has = candidates.iter().map(|(_, platform)| platform.clone()).collect();
            return Err(Unchosen::Several { wanted: self.to_string(), has });
        }
        Ok(Some(best))
    }
}

impl fmt::Display for Selection {
    /// The patterns, separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<String> = self.patterns.iter().map(Pattern::to_string).collect();
        f.write_str(&patterns.join(","))
    }
}

#[cfg(test)]
mod tests;
