//! What a token is for: <https://distribution.github.io/distribution/spec/auth/scope/>.

use std::fmt;
use std::str::FromStr;

use ferry_policy::access::Action;

/// The scope of the listing of repositories.
pub(super) const CATALOG: &str = "registry:catalog:*";

/// The longest scope that is read.
const MAX_LENGTH: usize = 512;

/// Actions on a resource: `repository:NAME:pull,push`, where NAME stands as clients write it in paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// `repository:NAME`
    resource: String,
    actions: Vec<String>,
}

impl Scope {
    /// What a request for such an action needs.
    pub(super) fn needed(name: &str, action: Action) -> Self {
        let actions: &[&str] = match action {
            Action::Pull | Action::List => &["pull"],
            Action::Push => &["pull", "push"],
            Action::Delete => &["delete"],
        };
        let actions = actions.iter().map(|&action| action.to_owned()).collect();
        Self { resource: format!("repository:{name}"), actions }
    }

    /// Whether who has this may do that.
    fn allows(&self, resource: &str, action: &str) -> bool {
        self.resource == resource && self.actions.iter().any(|one| one == action || one == "*")
    }
}

/// Whether a token with these scopes is for such an action on a repository.
pub(super) fn covers(scopes: &[Scope], name: &str, action: Action) -> bool {
    let action = match action {
        Action::Pull | Action::List => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
    };
    let resource = format!("repository:{name}");
    scopes.iter().any(|scope| scope.allows(&resource, action))
}

/// Whether a token with these scopes is for the listing of repositories.
pub(super) fn cover_catalog(scopes: &[Scope]) -> bool {
    scopes.iter().any(|scope| scope.allows("registry:catalog", "*"))
}

impl FromStr for Scope {
    type Err = ();

    /// Other kinds of resources and actions than these are nothing that could be given.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (resource, actions) = text.rsplit_once(':').ok_or(())?;
        let (kind, name) = resource.split_once(':').ok_or(())?;
        let plain = |c: char| c.is_ascii_graphic() && !"\"\\,".contains(c);
        if text.len() > MAX_LENGTH || name.is_empty() || !name.chars().all(plain) {
            return Err(());
        }
        let known = |action: &&str| ["pull", "push", "delete", "*"].contains(action);
        let actions: Vec<String> = actions.split(',').filter(known).map(str::to_owned).collect();
        match kind {
            "repository" | "registry" if !actions.is_empty() => {
                Ok(Self { resource: resource.to_owned(), actions })
            }
            _ => Err(()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.resource, self.actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        for text in
            ["repository:a/b:pull,push", "repository:localhost:5000/a:pull", "repository:a:*", CATALOG]
        {
            assert_eq!(scope(text).to_string(), text);
        }
        assert_eq!(scope("repository:a:pull,metadata_read").to_string(), "repository:a:pull");
        let long = format!("repository:{}:pull", "a".repeat(MAX_LENGTH));
        for bad in [
            "",
            "a",
            "repository:pull",
            "repository::pull",
            "repository:a:",
            "repository(plugin):a:pull",
            "repository:a\"b:pull",
            "repository:a b:pull",
            &long,
        ] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_is_for_its_repository_and_actions_alone() {
        use Action::{Delete, List, Pull, Push};
        let scopes = [scope("repository:a/b:pull"), scope("repository:c:pull,push"), scope("repository:d:*")];
        for (name, action, expected) in [
            ("a/b", Pull, true),
            ("a/b", List, true),
            ("a/b", Push, false),
            ("a/b", Delete, false),
            ("a", Pull, false),
            ("a/b/c", Pull, false),
            ("c", Push, true),
            ("c", Delete, false),
            ("d", Delete, true),
        ] {
            assert_eq!(covers(&scopes, name, action), expected, "{name} {action:?}");
            assert!(covers(&[Scope::needed(name, action)], name, action));
        }
        assert!(!cover_catalog(&scopes) && cover_catalog(&[scope(CATALOG)]));
        assert!(!cover_catalog(&[scope("repository:catalog:*")]));
    }
}
