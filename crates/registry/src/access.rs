use std::collections::{BTreeMap, BTreeSet};

use ferry_oci::Name;
use ferry_store::Side;

use crate::accounts::Purpose;

/// What is done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Read.
    Pull,
    /// Read and write.
    Push,
    /// Read, write and remove.
    Delete,
}

/// What a request needs to be allowed, in the words of token scopes (distribution `docs/content/spec/auth/scope.md`).
///
/// Built from what we ask for: the scope of a challenge may be a placeholder, so it can only add actions on the
/// repository at hand.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    repository: Option<Name>,
    side: Option<Side>,
    own: String,
    grants: BTreeMap<String, BTreeSet<String>>,
}

impl Access {
    /// Access to one repository.
    pub(crate) fn repository(name: &Name, action: Action) -> Self {
        let actions: &[&str] = match action {
            Action::Pull => &["pull"],
            Action::Push => &["pull", "push"],
            Action::Delete => &["delete", "pull", "push"],
        };
        Self::new(Some(name.clone()), format!("repository:{name}"), actions)
    }

    /// Access to the list of repositories.
    pub(crate) fn catalog() -> Self {
        Self::new(None, "registry:catalog".to_owned(), &["*"])
    }

    fn new(repository: Option<Name>, own: String, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Self { repository, side: None, grants: BTreeMap::from([(own.clone(), actions)]), own }
    }

    /// Access to nothing in particular, which only shows who asks.
    pub(crate) fn login() -> Self {
        Self { repository: None, side: None, own: String::new(), grants: BTreeMap::new() }
    }

    /// The same, on this side of a copy.
    pub(crate) fn on(mut self, side: Option<Side>) -> Self {
        self.side = side;
        self
    }

    /// The same, and reading from `name` as a mount does.
    pub(crate) fn and_pull(mut self, name: &Name) -> Self {
        self.grants.entry(format!("repository:{name}")).or_default().insert("pull".to_owned());
        self
    }

    /// What credentials are wanted for.
    pub(crate) fn purpose(&self) -> Purpose {
        (self.side, self.repository.clone())
    }

    /// Adds what a challenge for this very request names beyond it (ACR wants `metadata_read` to list tags). Returns
    /// whether that was anything.
    pub(crate) fn grow(&mut self, scope: &str) -> bool {
        let Some(actions) = self.grants.get_mut(&self.own) else { return false };
        let before = actions.len();
        for part in scope.split_ascii_whitespace() {
            if let Some((resource, more)) = part.rsplit_once(':')
                && resource == self.own
            {
                actions.extend(more.split(',').filter(|action| !action.is_empty()).map(str::to_owned));
            }
        }
        actions.len() > before
    }

    /// The scopes of a token request, the one that matters first: some servers honour no other.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let text = |(resource, actions): (&String, &BTreeSet<String>)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        };
        let (own, others): (Vec<_>, Vec<_>) =
            self.grants.iter().partition(|(resource, _)| **resource == self.own);
        own.into_iter().chain(others).map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn own_scope_comes_first() {
        let access = Access::repository(&name("z/app"), Action::Push).and_pull(&name("a/base"));
        assert_eq!(access.scopes(), ["repository:z/app:pull,push", "repository:a/base:pull"]);
        assert_eq!(Access::catalog().scopes(), ["registry:catalog:*"]);
    }

    #[test]
    fn pulling_from_itself_adds_nothing() {
        let access = Access::repository(&name("app"), Action::Push).and_pull(&name("app"));
        assert_eq!(access.scopes(), ["repository:app:pull,push"]);
    }

    #[test]
    fn a_challenge_adds_actions_on_its_own_repository_only() {
        let mut access = Access::repository(&name("app"), Action::Pull);
        assert!(!access.grow("repository:user/image:pull,push repository:app:pull"));
        assert!(access.grow("repository:app:metadata_read"));
        assert_eq!(access.scopes(), ["repository:app:metadata_read,pull"]);
    }
}
