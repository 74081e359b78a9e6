//! Who may have what from a mirror.
//!
//! Rules are read from the top and **the first that fits decides**, as in a firewall: an operator finds out what happens by
//! reading, and never has to weigh which of two rules is more special. What no rule fits is decided by the last word.
//!
//! A rule is a set of conditions, and an empty condition is none. Three things make it hard to write one that opens more
//! than it says:
//!
//! - a rule that names no actions allows reading alone, but denies everything;
//! - a rule for users fits only those who logged in, even if it is for `**`;
//! - what a condition cannot be asked of is allowed to be read and pushed but never denied by it: an index is of no
//!   platform, a blob and what is asked for by digest have no tag. Whoever may pull a tag has to get them, so a rule for
//!   tags or platforms keeps apart what people ask for, and **not** what somebody reads who knows a digest. To close a
//!   repository, deny the repository.

mod outlook;
mod rule;

use std::net::IpAddr;

use ferry_oci::{Malformed, Name, Platform, Reference};

pub use ipnet::IpNet;
pub use outlook::Outlook;
pub use rule::{Place, Rule, network};

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read manifests, blobs and referrers.
    Pull,
    /// Write.
    Push,
    /// Delete a manifest, a tag or a blob.
    Delete,
    /// List the tags of a repository, or see it in a listing.
    List,
}

impl Action {
    /// Whether it changes nothing.
    pub fn reads(self) -> bool {
        matches!(self, Self::Pull | Self::List)
    }
}

/// What is asked of the rules.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who it is, if somebody has logged in.
    pub user: Option<&'a str>,
    /// Where the request comes from, once trusted proxies have been looked through.
    pub address: IpAddr,
    /// The upstream's registry as references write it; `None` for a hosted repository.
    pub upstream: Option<&'a str>,
    /// The repository there.
    pub repository: &'a Name,
    /// The tag or digest of a manifest; `None` for a blob and for listings.
    pub reference: Option<&'a Reference>,
    /// The platform of an image, where it is known: whoever has read that asks again.
    pub platform: Option<&'a Platform>,
    /// What for.
    pub action: Action,
}

/// What a rule says to those that it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allow,
    /// Yes, and no limit of speed, requests or quota applies: for addresses and images that come first.
    Privilege,
    /// No, with words for the client if there are any.
    Deny(Option<String>),
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It may be.
    Allow,
    /// It may be, and no limit applies.
    Privileged,
    /// It may not be, and why, in words for the client.
    Deny(&'a str),
}

/// What is said where the operator said nothing.
const DENIED: &str = "the rules of this mirror do not allow it";

/// The rules of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    otherwise: Verdict,
}

impl Rules {
    /// Rules in their order, and what is said if none fits. An `otherwise` that allows, allows reading.
    ///
    /// # Errors
    /// [`Malformed`] if a rule could never fit, because it has upper-case letters where names have none.
    pub fn new(rules: Vec<Rule>, otherwise: Verdict) -> Result<Self, Malformed> {
        rules.iter().try_for_each(Rule::check)?;
        Ok(Self { rules, otherwise })
    }

    /// Whether somebody may do something.
    pub fn decide(&self, question: &Question<'_>) -> Decision<'_> {
        let rule = self.rules.iter().find(|rule| rule.fits(question));
        let verdict = match rule {
            Some(rule) => &rule.verdict,
            None if question.action.reads() => &self.otherwise,
            None => match &self.otherwise {
                Verdict::Allow | Verdict::Privilege => return Decision::Deny(DENIED),
                deny @ Verdict::Deny(_) => deny,
            },
        };
        match verdict {
            Verdict::Allow => Decision::Allow,
            Verdict::Privilege => Decision::Privileged,
            Verdict::Deny(message) => Decision::Deny(message.as_deref().unwrap_or(DENIED)),
        }
    }
}

#[cfg(test)]
mod tests;
