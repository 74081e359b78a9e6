//! What stands between one request and the registry.

use ferry_oci::{Name, Platform, Reference, Registry};
use ferry_policy::access::{Action, Decision, Outlook, Question};
use http::Method;
use http::request::Parts;

use super::refusal::Refusal;
use super::scope::{self, CATALOG, Scope};
use super::{Access, Mode, Pass, Policy};
use crate::caller::Caller;
use crate::error::Failure;
use crate::mirror;
use crate::route::Call;

/// What is said to those who have to log in.
const LOG_IN: &str = "log in to this registry first: docker login or podman login";

/// Decides about one request.
pub(crate) struct Gate<'a> {
    access: &'a Access,
    policy: &'a Policy,
    caller: Caller,
    pass: Pass,
    /// Scheme and host that the client asked, as far as is known.
    origin: String,
}

/// What somebody wants of a repository.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// What stands in the path where the name does; tokens are for this.
    pub(crate) addressed: &'a str,
    pub(crate) upstream: Option<&'a Registry>,
    pub(crate) name: &'a Name,
    pub(crate) call: &'a Call,
}

impl<'a> Gate<'a> {
    pub(super) fn new(access: &'a Access, parts: &Parts) -> Self {
        let caller = Caller::of(&parts.extensions);
        let scheme = if caller.secure { "https" } else { "http" };
        let host = mirror::host(parts).and_then(super::proxies::host);
        let origin = format!("{scheme}://{}", host.as_deref().unwrap_or("localhost"));
        let pass = parts.extensions.get().cloned().unwrap_or_default();
        Self { access, policy: &access.policy, caller, pass, origin }
    }

    /// Whether the client may know that this is a registry. Docker learns here, and only here, how to log in; so where tokens
    /// are given everybody gets one, as at Docker Hub.
    pub(crate) fn ping(&self) -> Result<(), Failure> {
        let tokens = self.policy.mode == Mode::Token && self.pass == Pass::None;
        if self.can_log_in() && (tokens || !self.could_anything()) {
            return Err(self.refuse(None, LOG_IN));
        }
        Ok(())
    }

    /// Turns away who could do nothing at all without a login, before anything else is said.
    pub(crate) fn enter(&self, addressed: &str, method: &Method) -> Result<(), Failure> {
        if self.caller.user.is_some() || !self.can_log_in() || self.could_anything() {
            return Ok(());
        }
        let action = match *method {
            Method::GET | Method::HEAD => Action::Pull,
            Method::DELETE => Action::Delete,
            _ => Action::Push,
        };
        Err(self.refuse_for(&Scope::needed(addressed, action).to_string(), LOG_IN))
    }

    /// Whether the listing of repositories may be seen, of which [`Gate::sees`] then tells.
    pub(crate) fn catalog(&self) -> Result<(), Failure> {
        let outside = matches!(&self.pass, Pass::Token(scopes) if !scope::cover_catalog(scopes));
        let stranger = self.caller.user.is_none() && !self.could(Action::List) && self.can_log_in();
        if outside || stranger {
            return Err(self.refuse_for(CATALOG, LOG_IN));
        }
        Ok(())
    }

    /// Whether a hosted repository stands in the listing.
    pub(crate) fn sees(&self, name: &Name) -> bool {
        self.allows(&self.question(None, name, Action::List))
    }

    /// Whether the client may do this; and if so, whether no limit applies.
    pub(crate) fn admit(&self, wish: &Wish<'_>) -> Result<bool, Failure> {
        let action = wish.call.action();
        if matches!(&self.pass, Pass::Token(scopes) if !scope::covers(scopes, wish.addressed, action)) {
            let needed = Scope::needed(wish.addressed, action).to_string();
            return Err(self.refuse_for(&needed, "the token is not for this"));
        }
        let mut privileged = true;
        for reference in references(wish.call) {
            let platform = self.platform(wish);
            let question = Question {
                reference: reference.as_ref(),
                platform: platform.as_ref(),
                ..self.question(wish.upstream, wish.name, action)
            };
            privileged &= self.ask(wish, &question)?;
        }
        Ok(privileged)
    }

    fn ask(&self, wish: &Wish<'_>, question: &Question<'_>) -> Result<bool, Failure> {
        let message = match self.policy.rules.decide(question) {
            Decision::Allow => return Ok(false),
            Decision::Privileged => return Ok(true),
            Decision::Deny(message) => message,
        };
        if self.can_log_in() && self.policy.rules.login_may_help(question) {
            let needed = Scope::needed(wish.addressed, question.action).to_string();
            return Err(self.refuse_for(&needed, LOG_IN));
        }
        Err(Refusal::Denied(message.to_owned()).into())
    }

    /// Whether the client could pull blobs of a hosted repository, which is what mounting from it amounts to.
    pub(crate) fn may_mount(&self, from: &Name) -> bool {
        let covered = match &self.pass {
            Pass::Token(scopes) => scope::covers(scopes, from.as_str(), Action::Pull),
            Pass::None | Pass::Password => true,
        };
        covered && self.allows(&self.question(None, from, Action::Pull))
    }

    /// Turns somebody away who may come back with better credentials.
    pub(super) fn refuse(&self, error: Option<&str>, message: &str) -> Failure {
        self.challenge(None, error, message)
    }

    fn refuse_for(&self, scope: &str, message: &str) -> Failure {
        let error = matches!(self.pass, Pass::Token(_)).then_some("insufficient_scope");
        self.challenge(Some(scope), error, message)
    }

    /// <https://distribution.github.io/distribution/spec/auth/token/>, RFC 6750 section 3, RFC 7617.
    fn challenge(&self, scope: Option<&str>, error: Option<&str>, message: &str) -> Failure {
        let service = &self.policy.service;
        let mut challenge = match self.policy.mode {
            Mode::Token => format!("Bearer realm=\"{}\",service=\"{service}\"", self.realm()),
            Mode::Open | Mode::Basic => format!("Basic realm=\"{service}\", charset=\"UTF-8\""),
        };
        if self.policy.mode == Mode::Token {
            // A path may have what would end the quotes; no repository is called so.
            let scope = scope.filter(|scope| !scope.contains(['"', '\\']));
            for (name, value) in [("scope", scope), ("error", error)] {
                challenge += &value.map(|value| format!(",{name}=\"{value}\"")).unwrap_or_default();
            }
        }
        Refusal::LogIn { challenge, message: message.to_owned() }.into()
    }

    /// Turns somebody away from the place where tokens are got.
    pub(super) fn refuse_login(&self, message: &str) -> Failure {
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.policy.service);
        Refusal::LogIn { challenge, message: message.to_owned() }.into()
    }

    fn realm(&self) -> String {
        self.policy.realm.clone().unwrap_or_else(|| format!("{}/token", self.origin))
    }

    fn can_log_in(&self) -> bool {
        self.policy.users.is_some()
    }

    /// Whether the client could do anything here as who it is.
    pub(super) fn could_anything(&self) -> bool {
        [Action::Pull, Action::List, Action::Push, Action::Delete]
            .into_iter()
            .any(|action| self.could(action))
    }

    fn could(&self, action: Action) -> bool {
        let (user, address) = (self.caller.user.as_deref(), Some(self.caller.address));
        self.policy.rules.could(&Outlook { user, address, upstream: None, action })
    }

    fn question<'b>(
        &'b self,
        upstream: Option<&'b Registry>,
        repository: &'b Name,
        action: Action,
    ) -> Question<'b> {
        Question {
            user: self.caller.user.as_deref(),
            address: self.caller.address,
            upstream: upstream.map(Registry::as_str),
            repository,
            reference: None,
            platform: None,
            action,
        }
    }

    fn allows(&self, question: &Question<'_>) -> bool {
        !matches!(self.policy.rules.decide(question), Decision::Deny(_))
    }

    /// The platform of the manifest that is asked for, if an index said it here.
    fn platform(&self, wish: &Wish<'_>) -> Option<Platform> {
        match wish.call {
            Call::ReadManifest { reference: Reference::Digest(digest), .. } => {
                self.access.platforms.of(wish.upstream, wish.name, digest)
            }
            _ => None,
        }
    }
}

/// The manifests that a call is about, by tag and by digest; one question at least.
fn references(call: &Call) -> Vec<Option<Reference>> {
    match call {
        Call::PutManifest { tags, .. } => {
            let tags = tags.iter().map(|tag| Some(Reference::Tag(tag.clone())));
            [call.reference()].into_iter().chain(tags).collect()
        }
        Call::ReadManifest { .. } | Call::DeleteManifest { .. } => vec![call.reference()],
        _ => vec![None],
    }
}
