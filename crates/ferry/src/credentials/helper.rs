//! Programs that keep or make secrets: credential helpers (docker/docker-credential-helpers), and commands.

use std::process::Stdio;
use std::time::Duration;

use ferry_oci::Registry;
use ferry_registry::{Credential, Secret};
use ferry_store::Result;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{failed, key_of};

/// How long such a program may take: some ask a cloud.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that such a program may print.
const MAX_OUTPUT: u64 = 64 * 1024;

/// Whether a text can be the NAME of `docker-credential-NAME`.
pub(crate) fn is_helper_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// What `docker-credential-NAME` has for `registry`.
pub(super) async fn get(name: &str, registry: &Registry) -> Result<Option<Credential>> {
    let said = talk(name, "get", &key_of(registry), registry).await?;
    if !said.succeeded {
        return match said.text.trim() {
            "credentials not found in native keychain" => Ok(None),
            // What else it printed may be a secret.
            _ => Err(failed(registry, format!("docker-credential-{name} get failed; try it by hand"))),
        };
    }
    let answer: Answer = serde_json::from_str(&said.text)
        .map_err(|_| failed(registry, format!("the answer of docker-credential-{name} cannot be read")))?;
    let secret = Secret::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(secret),
        _ => Credential::Password { username: answer.username, password: secret },
    }))
}

/// Gives a login to a helper to keep.
pub(super) async fn store(name: &str, registry: &Registry, username: &str, secret: &Secret) -> Result<()> {
    let login = json!({"ServerURL": key_of(registry), "Username": username, "Secret": secret.expose()});
    ended_well(name, "store", &login.to_string(), registry).await
}

/// Makes a helper forget a login.
pub(super) async fn erase(name: &str, registry: &Registry) -> Result<()> {
    ended_well(name, "erase", &key_of(registry), registry).await
}

async fn ended_well(name: &str, verb: &str, input: &str, registry: &Registry) -> Result<()> {
    let said = talk(name, verb, input, registry).await?;
    let wrong = || failed(registry, format!("docker-credential-{name} {verb} failed; try it by hand"));
    said.succeeded.then_some(()).ok_or_else(wrong)
}

async fn talk(name: &str, verb: &str, input: &str, registry: &Registry) -> Result<Said> {
    let program = format!("docker-credential-{name}");
    run(registry, &[program, verb.to_owned()], input).await
}

/// What a command that makes a secret prints.
pub(super) async fn output(registry: &Registry, words: &[String]) -> Result<String> {
    let said = run(registry, words, "").await?;
    let program = words.first().map(String::as_str).unwrap_or_default();
    if !said.succeeded {
        return Err(failed(registry, format!("{program} failed; try it by hand")));
    }
    Ok(said.text)
}

/// What a program printed, and whether it says that all went well.
struct Said {
    succeeded: bool,
    text: String,
}

async fn run(registry: &Registry, words: &[String], input: &str) -> Result<Said> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(failed(registry, "no command is given"));
    };
    let talking = async {
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        // What it says on standard error may be a secret, too; whoever tries it by hand will see it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input has its reasons.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let mut text = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut text).await?;
        }
        let text = String::from_utf8(text).map_err(|_| std::io::ErrorKind::InvalidData)?;
        Ok::<Said, std::io::Error>(Said { succeeded: child.wait().await?.success(), text })
    };
    match tokio::time::timeout(PATIENCE, talking).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(e)) => Err(failed(registry, format!("cannot run {program}: {e}"))),
        Err(_) => Err(failed(registry, format!("{program} did not end within {} s", PATIENCE.as_secs()))),
    }
}
