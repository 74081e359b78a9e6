//! Answers that take their time to get, for a moment.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ferry_oci::Registry;
use ferry_registry::Credential;
use ferry_store::Result;
use tokio::sync::Mutex;

/// How long an answer is good for. All repositories of a registry share it; a password that was refused is asked for
/// again soon enough.
const FRESH: Duration = Duration::from_secs(60);

type Answers = HashMap<(String, Registry), (Instant, Option<Credential>)>;

/// What was answered a moment ago.
#[derive(Default)]
pub(super) struct Fresh {
    answers: Mutex<Answers>,
}

impl Fresh {
    /// What `who` has for `registry`; asks if that is not known.
    pub(super) async fn get<F>(
        &self,
        who: &str,
        registry: &Registry,
        ask: impl FnOnce() -> F,
    ) -> Result<Option<Credential>>
    where
        F: Future<Output = Result<Option<Credential>>>,
    {
        // Held while it is asked, so that everyone who waits gets the same answer.
        let mut answers = self.answers.lock().await;
        let key = (who.to_owned(), registry.clone());
        if let Some((when, answer)) = answers.get(&key)
            && when.elapsed() < FRESH
        {
            return Ok(answer.clone());
        }
        let answer = ask().await?;
        answers.insert(key, (Instant::now(), answer.clone()));
        Ok(answer)
    }
}
