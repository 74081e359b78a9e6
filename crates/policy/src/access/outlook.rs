//! What can be said of rules before anybody asks for anything.

use std::net::IpAddr;

use super::{Action, Question, Rule, Rules, Verdict};

/// What is known of questions that have not been asked.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// Who will ask; `None` for nobody who has logged in.
    pub user: Option<&'a str>,
    /// Where from; `None` for anywhere.
    pub address: Option<IpAddr>,
    /// At which upstream; `None` for any place.
    pub upstream: Option<&'a str>,
    /// What for.
    pub action: Action,
}

impl Rules {
    /// Whether there may be a repository for which the answer is not no. Sure of a "no", not of a "yes": patterns of
    /// repositories are not compared with each other.
    pub fn could(&self, outlook: &Outlook<'_>) -> bool {
        for rule in self.rules.iter().filter(|rule| rule.may_fit(outlook)) {
            if !rule.denies() {
                return true;
            }
            if rule.is_sure(outlook) {
                return false;
            }
        }
        outlook.action.reads() && !matches!(self.otherwise, Verdict::Deny(_))
    }

    /// Whether somebody who logs in may hear another answer to a question of nobody.
    pub fn login_may_help(&self, question: &Question<'_>) -> bool {
        if question.user.is_some() {
            return false;
        }
        for rule in &self.rules {
            let for_all = Rule { users: Vec::new(), ..rule.clone() };
            if !for_all.fits(question) {
                continue;
            }
            match (rule.users.is_empty(), rule.denies()) {
                (_, false) => return true,
                (true, true) => return false,
                // It denies some users; others are asked about further down.
                (false, true) => {}
            }
        }
        question.action.reads() && !matches!(self.otherwise, Verdict::Deny(_))
    }

    /// Whether any answer depends on the platform.
    pub fn ask_for_platforms(&self) -> bool {
        self.rules.iter().any(|rule| !rule.platforms.is_empty())
    }
}

impl Rule {
    /// Whether there is a question within the outlook that this fits.
    fn may_fit(&self, outlook: &Outlook<'_>) -> bool {
        let users = self.users.is_empty()
            || outlook.user.is_some_and(|user| self.users.iter().any(|pattern| pattern.matches(user)));
        let address = outlook.address.map(|address| address.to_canonical());
        let addresses = self.addresses.is_empty()
            || address.is_none_or(|address| self.addresses.iter().any(|network| network.contains(&address)));
        let places = self.places.is_empty()
            || outlook.upstream.is_none_or(|one| self.places.iter().any(|place| place.is_at(Some(one))));
        users && addresses && places && self.is_about(outlook.action)
    }

    /// Whether a rule that may fit does so for certain, whatever is asked within the outlook.
    fn is_sure(&self, outlook: &Outlook<'_>) -> bool {
        let address = self.addresses.is_empty() || outlook.address.is_some();
        let place = self.places.is_empty() || outlook.upstream.is_some();
        let open = self.repositories.is_empty() && self.tags.is_empty() && self.platforms.is_empty();
        address && place && open
    }
}
