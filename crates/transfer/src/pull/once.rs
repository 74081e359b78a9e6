use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_store::{Error, Kind, Result};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::tasks::{Tasks, again, stopped};

/// Questions that are asked once for all who want the answer at the same time.
pub(super) struct Once<K, T>(Running<K, T>);

type Running<K, T> = Arc<Mutex<HashMap<K, Asked<T>>>>;

/// The answer, for however many wait for it.
type Answer<T> = std::result::Result<T, Arc<Error>>;

/// A question that was asked.
pub(super) struct Asked<T> {
    begun: Instant,
    answer: watch::Receiver<Option<Answer<T>>>,
}

impl<T> Clone for Asked<T> {
    fn clone(&self) -> Self {
        Self { begun: self.begun, answer: self.answer.clone() }
    }
}

impl<K, T> Default for Once<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

fn lock<K, T>(running: &Running<K, T>) -> MutexGuard<'_, HashMap<K, Asked<T>>> {
    // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, T> Once<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Asks, unless somebody has and waits for the answer.
    pub(super) fn ask<F>(&self, tasks: &Tasks, key: K, question: impl FnOnce() -> F) -> Asked<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (told, answer) = watch::channel(None);
        let asked = Asked { begun: Instant::now(), answer };
        {
            let mut running = lock(&self.0);
            if let Some(asked) = running.get(&key) {
                return asked.clone();
            }
            running.insert(key.clone(), asked.clone());
        }
        let place = Place { running: Arc::clone(&self.0), key };
        let question = question();
        tasks.spawn(async move {
            let answer = question.await.map_err(Arc::new);
            // Whoever gets a failure may ask again at once.
            drop(place);
            told.send_replace(Some(answer));
        });
        asked
    }
}

/// Ends the question, also when its task is stopped.
struct Place<K: Eq + Hash, T> {
    running: Running<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Place<K, T> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

impl<T: Clone> Asked<T> {
    /// When it was asked.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    pub(super) async fn answer(mut self) -> Result<T> {
        match self.answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(answer))) => Ok(answer.clone()),
            Ok(Some(Err(error))) => Err(again(error)),
            Ok(None) | Err(_) => Err(stopped()),
        }
    }

    /// The answer, or an error if it has not come so long after the question was asked; it goes on being waited for.
    pub(super) async fn answer_within(self, patience: Duration) -> Result<T> {
        let until = self.begun + patience;
        let silent = || Error::new(Kind::Stalled, "ask", "upstream", "no answer yet");
        timeout_at(until, self.answer()).await.unwrap_or_else(|_| Err(silent()))
    }
}
