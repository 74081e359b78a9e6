use std::process::Stdio;
use std::time::Duration;

use ferry_store::{Error, Kind, Result};
use tokio::process::Command;

/// The most of what a hook has said that is repeated, in bytes.
const SAID: usize = 2000;

/// A program that writes records into the DNS and removes them, for `dns-01` (RFC 8555 section 8.4).
///
/// It is run without a shell, with ferry's environment and nothing on its standard input, as
/// `PROGRAM ARGUMENTS... present NAME VALUE`, and with `cleanup` instead of `present` afterwards. `NAME` is the whole name of
/// the TXT record without a dot at its end, `VALUE` what it holds. There may be several records of one name at a time: for a
/// domain and its wildcard there are two. It succeeds by ending with 0; what it prints is shown if it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program.
    pub program: String,
    /// What it is given first.
    pub arguments: Vec<String>,
    /// How long it may run.
    pub limit: Duration,
    /// How long a record takes until it is seen everywhere, counted from the end of `present`.
    pub settle: Duration,
}

/// What a hook is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Do {
    Present,
    Cleanup,
}

impl Hook {
    /// Runs it.
    ///
    /// # Errors
    /// If it cannot be started, fails, or takes too long.
    pub(crate) async fn run(&self, what: Do, name: &str, value: &str) -> Result<()> {
        let word = match what {
            Do::Present => "present",
            Do::Cleanup => "cleanup",
        };
        let failed = |kind: Kind, detail: String| {
            Error::new(kind, "run the hook", format!("{} {word} {name}", self.program), detail)
        };
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .args([word, name, value])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(Kind::Invalid, format!("it cannot be started: {e}")))?;
        let output = tokio::time::timeout(self.limit, child.wait_with_output())
            .await
            .map_err(|_| failed(Kind::Stalled, format!("it did not end within {:?}", self.limit)))?
            .map_err(|e| failed(Kind::Unavailable, e.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said[..said.len().min(SAID)]).trim().to_owned();
        Err(failed(Kind::Unavailable, format!("it ended with {}: {said}", output.status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Hook {
        let arguments = vec!["-c".to_owned(), script.to_owned(), "hook".to_owned()];
        Hook {
            program: "/bin/sh".to_owned(),
            arguments,
            limit: Duration::from_secs(20),
            settle: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn it_is_told_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("calls");
        let hook = shell(&format!("echo \"$@\" >> {}", file.display()));
        hook.run(Do::Present, "_acme-challenge.a.test", "x-_y").await.unwrap();
        hook.run(Do::Cleanup, "_acme-challenge.a.test", "$(id) *").await.unwrap();
        let calls = std::fs::read_to_string(file).unwrap();
        assert_eq!(
            calls, "present _acme-challenge.a.test x-_y\ncleanup _acme-challenge.a.test $(id) *\n",
            "no shell has seen it"
        );
    }

    #[tokio::test]
    async fn what_it_says_is_repeated_when_it_fails() {
        let error = shell("echo no such zone >&2; exit 3").run(Do::Present, "n", "v").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/bin/sh present n") && text.contains("status: 3: no such zone"), "{text}");
        let missing = Hook { program: "/no/such/hook".to_owned(), ..shell("") };
        let text = missing.run(Do::Present, "n", "v").await.unwrap_err().to_string();
        assert!(text.contains("it cannot be started"), "{text}");
    }

    #[tokio::test]
    async fn it_is_not_waited_for_for_ever() {
        let hook = Hook { limit: Duration::from_millis(50), ..shell("exec sleep 600") };
        assert_eq!(hook.run(Do::Present, "n", "v").await.unwrap_err().kind(), Kind::Stalled);
    }
}
