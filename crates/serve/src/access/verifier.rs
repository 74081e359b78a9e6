//! Compares passwords, which is slow on purpose, without letting that stop anything else.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngCore;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::users::Users;

/// So many may wait for their turn; further ones are sent away.
const WAITING: usize = 128;
/// So many logins that were right are remembered.
const REMEMBERED: usize = 10_000;

/// What became of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    Right,
    Wrong,
    /// Too many are being compared.
    Busy,
}

/// Compares passwords on threads of their own, few at once, and remembers those that were right: of each a salted hash that
/// is worth nothing outside of this process.
pub(super) struct Verifier {
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
    salt: [u8; 32],
    right: Mutex<HashSet<[u8; 32]>>,
}

impl Verifier {
    pub(super) fn new() -> Self {
        let at_once = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        Self::with(WAITING, at_once)
    }

    fn with(waiting: usize, at_once: usize) -> Self {
        let mut salt = [0; 32];
        rand::rng().fill_bytes(&mut salt);
        let [waiting, working] = [waiting, at_once].map(|n| Arc::new(Semaphore::new(n)));
        Self { waiting, working, salt, right: Mutex::default() }
    }

    /// Whether this is the password of that user. For an unknown user it takes as long.
    pub(super) async fn check(&self, users: &Users, name: &str, password: &str) -> Checked {
        let known = users.hash(name);
        let Some(hash) = known.or(users.first()).cloned() else { return Checked::Wrong };
        // A changed password is another entry.
        let entry = self.entry(name, password, hash.text());
        if known.is_some() && self.right().contains(&entry) {
            return Checked::Right;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return Checked::Busy };
        let Ok(turn) = Arc::clone(&self.working).acquire_owned().await else { return Checked::Busy };
        let password = password.to_owned();
        let compared = tokio::task::spawn_blocking(move || {
            let same = hash.is_of(&password);
            // Who leaves in between does not make room for another.
            drop(turn);
            same
        });
        match compared.await {
            Ok(true) if known.is_some() => {
                self.remember(entry);
                Checked::Right
            }
            _ => Checked::Wrong,
        }
    }

    fn entry(&self, name: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(self.salt);
        for part in [name, password, hash] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    fn remember(&self, entry: [u8; 32]) {
        let mut right = self.right();
        if right.len() >= REMEMBERED {
            right.clear();
        }
        right.insert(entry);
    }

    fn right(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, with the least cost.
    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    fn users(text: &str) -> Users {
        Users::parse(text, "f").unwrap()
    }

    #[tokio::test]
    async fn right_logins_are_remembered_and_only_those() {
        let (verifier, ferry) = (Verifier::new(), users(&format!("ferry:{HASH}")));
        assert_eq!(verifier.check(&ferry, "ferry", "wrong").await, Checked::Wrong);
        assert_eq!(verifier.check(&ferry, "other", "secret").await, Checked::Wrong);
        assert!(verifier.right().is_empty());
        assert_eq!(verifier.check(&ferry, "ferry", "secret").await, Checked::Right);
        assert_eq!(verifier.right().len(), 1);
        // Nothing is compared any more, so nobody has to wait.
        let _all = verifier.waiting.try_acquire_many(WAITING as u32).unwrap();
        assert_eq!(verifier.check(&ferry, "ferry", "secret").await, Checked::Right);
        assert_eq!(verifier.check(&ferry, "ferry", "wrong").await, Checked::Busy);
        assert_eq!(verifier.check(&ferry, "other", "secret").await, Checked::Busy, "as for a known user");
        let changed = users(&format!("ferry:{}", super::super::users::hash_password("new").unwrap()));
        assert_eq!(verifier.check(&changed, "ferry", "secret").await, Checked::Busy, "not from memory");
        assert_eq!(verifier.check(&users(""), "ferry", "secret").await, Checked::Wrong);
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let verifier = Verifier::with(1, 1);
        for number in 0..=REMEMBERED {
            verifier.remember(verifier.entry("a", &number.to_string(), ""));
        }
        assert_eq!(verifier.right().len(), 1);
        assert_ne!(verifier.entry("ab", "c", ""), verifier.entry("a", "bc", ""));
    }
}
