use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use async_trait::async_trait;
use ferry_oci::Registry;
use ferry_registry::{Asked, Client, ClientOptions, Credential, Credentials, Login, Secret};
use ferry_store::Result;

use super::auth_file::{self, Kept};
use super::helper;
use crate::Environment;
use crate::exit::Exit;

/// What `ferry login` shall do.
pub(crate) struct LogIn {
    pub(crate) registry: Registry,
    pub(crate) username: Option<String>,
    pub(crate) file: Option<PathBuf>,
}

/// Shows an account to a registry and, if it is taken, keeps it.
pub(crate) async fn log_in(
    settings: LogIn,
    options: ClientOptions,
    environment: &Environment,
) -> anyhow::Result<Exit> {
    let LogIn { registry, username, file } = settings;
    let file = file_or_usual(file, environment)?;
    let username = match username {
        Some(username) => username,
        None => ask_for_user()?,
    };
    let password = read_password("ferry login --username ME REGISTRY")?;
    let credential = Credential::Password { username: username.clone(), password: password.clone() };
    let client = Client::new(options, Arc::new(Only(credential)))?;
    let asked = client.log_in(&registry).await?;
    match auth_file::keeper(&file, &registry)? {
        Kept::ByHelper(name) => {
            helper::store(&name, &registry, &username, &password).await?;
            auth_file::write(&file, &registry, None)?;
            say!("logged in to {registry}; docker-credential-{name} keeps the password");
        }
        Kept::InFile => {
            auth_file::write(&file, &registry, Some((&username, &password)))?;
            say!("logged in to {registry}; the password is kept unencrypted in {}", file.display());
        }
    }
    for other in environment.auth_files().iter().take_while(|other| **other != file) {
        if auth_file::knows(other, &registry)? {
            let path = other.display();
            eprintln!(
                "warning: {path} has a login to {registry} too, and is looked at first; \
                 to remove it: ferry logout --authfile {path} {registry}"
            );
        }
    }
    if asked == Login::NotAsked {
        eprintln!("warning: {registry} lets everyone in, so the password could not be tried");
    }
    Ok(Exit::Done)
}

/// Forgets the account for a registry.
pub(crate) async fn log_out(
    registry: &Registry,
    file: Option<PathBuf>,
    environment: &Environment,
) -> anyhow::Result<Exit> {
    let file = file_or_usual(file, environment)?;
    if let Kept::ByHelper(name) = auth_file::keeper(&file, registry)? {
        helper::erase(&name, registry).await?;
    }
    match auth_file::remove(&file, registry)? {
        true => say!("logged out of {registry}"),
        false => say!("there is no login to {registry} in {}", file.display()),
    }
    Ok(Exit::Done)
}

fn file_or_usual(file: Option<PathBuf>, environment: &Environment) -> anyhow::Result<PathBuf> {
    file.or_else(|| environment.login_file())
        .context("there is no home directory; say where with --authfile FILE")
}

/// The same credential for whoever asks.
struct Only(Credential);

#[async_trait]
impl Credentials for Only {
    async fn find(&self, _: &Asked<'_>) -> Result<Vec<Credential>> {
        Ok(vec![self.0.clone()])
    }
}

fn ask_for_user() -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("--username is needed when the password comes from standard input");
    }
    eprint!("username: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("cannot read the user name")?;
    let username = line.trim();
    if username.is_empty() {
        bail!("a user name is needed");
    }
    Ok(username.to_owned())
}

/// From a terminal without showing it, else all of standard input without the end of its last line.
/// `command` is how it is written to it.
pub(crate) fn read_password(command: &str) -> anyhow::Result<Secret> {
    let text = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("password: ").context("cannot read the password")?
    } else {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the password from standard input")?;
        text
    };
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("no password came; write it to standard input, as in: {command} < FILE");
    }
    Ok(Secret::new(password))
}
