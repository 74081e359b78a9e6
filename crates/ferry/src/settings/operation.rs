use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_registry::Secret;

use crate::Environment;
use crate::config::{AdminConfig, Loaded, LogFormat, fetch_now};

/// Where the admin API is if nobody says.
const LISTEN: &str = "127.0.0.1:5001";

/// A token that is shorter can be guessed.
const SHORTEST: usize = 16;

/// How requests under way are waited for if nobody says.
const GRACE: Duration = Duration::from_secs(30);

/// How a server is looked after.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) admin: Option<AdminAt>,
    pub(crate) access_log: Option<AccessLogAt>,
    /// How long connections are still taken once it is to stop.
    pub(crate) delay: Duration,
    /// How long requests may go on after that.
    pub(crate) grace: Duration,
}

/// The admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminAt {
    pub(crate) listen: SocketAddr,
    pub(crate) token: Secret,
    pub(crate) open_metrics: bool,
}

/// Where requests are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessLogAt {
    pub(crate) format: LogFormat,
    /// `None` for standard error.
    pub(crate) file: Option<PathBuf>,
}

impl Operation {
    /// What is configured.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub(crate) fn new(loaded: &Loaded, environment: &Environment) -> anyhow::Result<Self> {
        let configured = loaded.config.serve.clone().unwrap_or_default();
        let admin = configured.admin.as_ref().map(|config| admin(config, loaded, environment));
        let access_log = configured.access_log.map(|config| AccessLogAt {
            format: config.format,
            file: config.file.map(|path| loaded.resolve(&path)),
        });
        let stop = configured.stop.unwrap_or_default();
        Ok(Self {
            admin: admin.transpose().with_context(|| format!("{}: serve: admin", loaded.name()))?,
            access_log,
            delay: stop.delay.map_or(Duration::ZERO, |term| term.value.0),
            grace: stop.grace.map_or(GRACE, |term| term.value.0),
        })
    }
}

fn admin(config: &AdminConfig, loaded: &Loaded, environment: &Environment) -> anyhow::Result<AdminAt> {
    let listen = config.listen.as_deref().unwrap_or(LISTEN);
    let listen = listen.parse().with_context(|| {
        format!("listen: {listen}: write an address and a port, as in 127.0.0.1:5001 or [::1]:5001")
    })?;
    let token = fetch_now(loaded, &config.token, environment);
    let token = token.and_then(|token| long_enough(token.expose())).context("token")?;
    Ok(AdminAt { listen, token, open_metrics: config.open_metrics })
}

/// The token in a file.
pub(super) fn token_in(path: PathBuf) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    long_enough(&text).with_context(|| path.display().to_string())
}

fn long_enough(text: &str) -> anyhow::Result<Secret> {
    let token = text.trim();
    if token.len() < SHORTEST {
        bail!(
            "the token has less than {SHORTEST} characters, so it can be guessed; make one with: openssl rand -hex 32"
        );
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("the token cannot stand in a header: it is of ASCII characters without blanks");
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(text: &str) -> anyhow::Result<Operation> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "0123456789abcdef\n").unwrap();
        std::fs::write(directory.path().join("short"), "0123\n").unwrap();
        let path = directory.path().join("ferry.yaml");
        std::fs::write(&path, format!("serve: {text}\n")).unwrap();
        let environment =
            [("TOKEN", "a token with blanks")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = environment.into_iter().collect();
        Operation::new(&Loaded::find(Some(&path), &environment)?, &environment)
    }

    #[test]
    fn nothing_is_open_that_is_not_configured() {
        let usual = operation("{}").unwrap();
        assert!(usual.admin.is_none() && usual.access_log.is_none());
        assert_eq!((usual.delay, usual.grace), (Duration::ZERO, GRACE));
    }

    #[test]
    fn what_is_configured_counts() {
        let text = "{admin: {token: {file: token}}, access_log: {format: text, file: log}, stop: {delay: 5s, grace: 1h}}";
        let operation = operation(text).unwrap();
        let admin = operation.admin.unwrap();
        assert_eq!((admin.listen.to_string().as_str(), admin.open_metrics), (LISTEN, false));
        assert_eq!(admin.token.expose(), "0123456789abcdef");
        assert!(!format!("{admin:?}").contains("0123456789abcdef"));
        assert!(operation.access_log.unwrap().file.unwrap().is_absolute());
        assert_eq!((operation.delay.as_secs(), operation.grace.as_secs()), (5, 3600));
    }

    #[test]
    fn an_admin_api_has_a_token_that_cannot_be_guessed() {
        for (text, says) in [
            ("{admin: {}}", "missing field `token`"),
            ("{admin: {token: 0123456789abcdef}}", "a secret is not written here"),
            ("{admin: {token: {file: short}}}", "less than 16 characters"),
            ("{admin: {token: {file: absent}}}", "cannot read"),
            ("{admin: {token: {env: ABSENT}}}", "ABSENT is not set"),
            ("{admin: {token: {env: TOKEN}}}", "without blanks"),
            ("{admin: {token: {command: [date]}}}", "not from a command"),
            ("{admin: {token: {file: token}, listen: 5001}}", "as in 127.0.0.1:5001"),
        ] {
            let error = format!("{:#}", operation(text).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("a token with blanks"), "{error}");
        }
    }
}
