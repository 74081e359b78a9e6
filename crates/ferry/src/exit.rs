//! The one place of the program that turns errors into words for people and into exit codes.

use std::error::Error as _;
use std::process::ExitCode;

use ferry_oci::{Reference, Registry};
use ferry_policy::platforms::Unchosen;
use ferry_policy::profile::Profile;
use ferry_registry::{Quota, Refused};
use ferry_store::{Error, Kind, Side};

use crate::endpoint::Endpoint;
use crate::say;

/// What looking for an account is called; its errors say all there is to say.
const LOGIN: &str = "look up the login of";

/// What stores call reading a blob.
const READ_BLOB: &str = "read blob";

/// What the transfer core calls changing an image for a target.
const REWRITE: &str = "rewrite manifest";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All done.
    Done,
    /// Some images failed.
    SomeFailed,
    /// What was typed or configured cannot be carried out.
    Usage,
    /// Stopped with work left.
    Stopped,
    /// Everything failed.
    AllFailed,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::SomeFailed => 1,
            Self::Usage => 2,
            Self::Stopped => 3,
            Self::AllFailed => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Prints an error that kept a run from beginning.
pub(crate) fn explain(error: &anyhow::Error) -> Exit {
    tell(error, None);
    Exit::Usage
}

/// Prints an error that is nobody's mistake.
pub(crate) fn failed(error: &anyhow::Error) -> Exit {
    tell(error, None);
    Exit::AllFailed
}

/// Whether the same command may succeed later.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|error| error.kind() == Kind::Unavailable)
}

/// Prints an error, and what to do about it; `registry` is the registry on its side, if it is one.
pub(crate) fn tell(error: &anyhow::Error, registry: Option<&Registry>) {
    note!("ferry: {}", chain(error));
    if let Some(hint) = error.downcast_ref::<Error>().and_then(|error| hint(error, registry)) {
        say::hint(&hint);
    }
}

/// What became of a question to one registry: that it was not answered is no wrong usage.
pub(crate) fn of_asking(result: anyhow::Result<Exit>, registry: Option<&Registry>) -> anyhow::Result<Exit> {
    let error = match result {
        // A layout that is not there was typed wrongly, as for a copy.
        Err(error) if error.is::<Error>() && registry.is_some() => error,
        other => return other,
    };
    tell(&error, registry);
    Ok(Exit::AllFailed)
}

/// The error and its causes, leaving out what was said already.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        before if before.ends_with(&cause) || before.contains(&format!(": {cause}")) => said,
        before => format!("{before}: {cause}"),
    })
}

/// What to do about an error; `registry` is the registry on its side, if it is one.
pub(crate) fn hint(error: &Error, registry: Option<&Registry>) -> Option<String> {
    let side = error.side();
    if let Some(refused) = error.source().and_then(|source| source.downcast_ref::<Refused>()) {
        let registry = registry.map_or("that registry", Registry::as_str);
        return Some(format!(
            "{registry} refers to an address inside a network; if that is meant, write it into the configuration: \
             registries: {registry}: allow_networks: [{}]",
            refused.address
        ));
    }
    let says_all = error.source().is_some_and(|source| source.is::<Unchosen>());
    if error.operation() == LOGIN || says_all {
        return None;
    }
    Some(match (error.kind(), registry) {
        (Kind::Invalid, Some(registry)) if error.operation() == REWRITE => {
            format!("{registry} does not take the image as it is, and it cannot be changed without loss")
        }
        (Kind::Unauthorized | Kind::Denied, Some(registry)) if side == Some(Side::Source) => {
            format!("the image is private or does not exist; if it is private: ferry login {registry}")
        }
        (Kind::Unauthorized, Some(registry)) => format!("log in first: ferry login {registry}"),
        (Kind::Denied, Some(registry)) => {
            format!(
                "the account used for {registry} may not write there, or the repository has to be created first"
            )
        }
        // The image was found; a part of it is missing.
        (Kind::NotFound, _) if error.operation() == READ_BLOB => return None,
        (Kind::NotFound, _) if side == Some(Side::Source) => {
            "check the name and the tag of the source".to_owned()
        }
        (Kind::NotFound, Some(_)) if side.is_none() => "check the name and the tag".to_owned(),
        (Kind::NotFound, Some(registry)) if side == Some(Side::Target) => {
            format!("{registry} may want the repository or its namespace to be created first")
        }
        (Kind::RateLimited { .. }, Some(registry)) => {
            format!(
                "{registry} limits requests; log in for a higher limit, or run the same command again later"
            )
        }
        (Kind::Unavailable | Kind::Stalled, Some(registry)) => {
            format!("check the connection to {registry}; the same command goes on where this one stopped")
        }
        (Kind::DigestMismatch, _) if side == Some(Side::Source) => {
            "the source's copy is damaged or altered on the way; nothing was written under the tag".to_owned()
        }
        (Kind::Full, _) if side.is_none() => "free some space, or choose another --state-dir".to_owned(),
        (Kind::Full, _) => "the target has no space left".to_owned(),
        _ => return None,
    })
}

/// What has to be there before a push to a target that says something is missing, or not ours to make.
pub(crate) fn before_push(error: &Error, profile: &Profile) -> Option<String> {
    let missing = matches!(error.kind(), Kind::NotFound | Kind::Denied) && error.source().is_none();
    let before_push = profile.before_push.filter(|_| missing && error.side() == Some(Side::Target))?;
    Some(format!("before the first push: {before_push}"))
}

/// Says that standard output was not written whole, which fails a run that has nothing else to show.
pub(crate) fn unsaid(error: &std::io::Error, exit: Exit, is_copy: bool) -> Exit {
    note!("ferry: cannot write to standard output: {error}");
    if exit == Exit::Done && !is_copy { Exit::AllFailed } else { exit }
}

/// Says that a registry does not remove what was asked, and what may work instead.
pub(crate) fn not_removed(image: &Endpoint, reference: &Reference) -> Exit {
    let why = match reference {
        Reference::Tag(_) => {
            "the registry does not remove tags; name the digest instead, which removes the manifest with all its tags"
        }
        Reference::Digest(_) => "the registry does not allow to delete, or only by its own tools",
    };
    note!("ferry: {image}: {why}");
    Exit::AllFailed
}

/// What to say when a quota is smaller than the work that is left.
pub(crate) fn quota(registry: &Registry, quota: &Quota, images: u64) -> String {
    format!(
        "{registry} allows {} more pulls of its {} in {}, and {images} images are left; \
         a login (ferry login {registry}) may allow more",
        quota.remaining,
        quota.limit,
        humantime::format_duration(quota.window)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_registry() {
        let error = Error::new(Kind::Unauthorized, "push manifest", "x", "").on(Side::Target);
        assert_eq!(
            hint(&error, Some(&"quay.io".parse().unwrap())).unwrap(),
            "log in first: ferry login quay.io"
        );
        assert!(hint(&Error::new(Kind::Invalid, "x", "y", ""), None).is_none());
    }
}
