//! The keys that tokens are signed with: files in a directory that several servers may share.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferry_store::{Error, Kind, Result};
use rand::RngCore;

use super::token::REFRESH_LIFE;

const DAY: u64 = 24 * 60 * 60;
/// A key is not needed any more once the last token that it signed has expired; a day for clocks that differ.
const KEPT: u64 = 2 * DAY + REFRESH_LIFE;
/// An unknown key makes us look into the directory, but whoever invents them not more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where no new key can be written this is tried again, in seconds.
const TRY_EVERY: u64 = 60;
const EXTENSION: &str = "key";

/// A clock.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A key.
pub(super) type Key = [u8; 32];

/// The keys of a directory: `SECONDS-RANDOM.key`, named by when they were made. Every day a new one signs; the old ones stay
/// as long as what they signed.
pub struct Keys {
    directory: PathBuf,
    now: Clock,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    keys: BTreeMap<String, Key>,
    looked: Option<SystemTime>,
    /// When no new key could be written last.
    failed: Option<u64>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "keys in {}", self.directory.display())
    }
}

impl Keys {
    /// The keys in `directory`, which is made with the first key that is needed. `now` decides when a key is old.
    pub fn new(directory: PathBuf, now: Clock) -> Self {
        Self { directory, now, ring: Mutex::default() }
    }

    /// Whether that is their directory.
    pub(super) fn are_in(&self, directory: &Path) -> bool {
        self.directory == directory
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> u64 {
        (self.now)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Reads the directory again when a key is asked for.
    pub(super) fn forget(&self) {
        *self.ring() = Ring::default();
    }

    /// The key to sign with. Reads and writes files.
    pub(super) fn newest(&self) -> Result<(String, Key)> {
        let now = self.now();
        let mut ring = self.ring();
        if let Some(found) = ring.newest(now, DAY) {
            return Ok(found);
        }
        self.look(&mut ring)?;
        if let Some(found) = ring.newest(now, DAY) {
            return Ok(found);
        }
        // Whether anybody can pull does not depend on whether the disk has room for a new key.
        let old = ring.newest(now, KEPT);
        if let Some(old) = &old
            && ring.failed.is_some_and(|failed| failed <= now && now < failed.saturating_add(TRY_EVERY))
        {
            return Ok(old.clone());
        }
        match self.make(now) {
            Ok((id, key)) => {
                ring.failed = None;
                ring.keys.insert(id.clone(), key);
                self.tidy(&mut ring, now);
                Ok((id, key))
            }
            Err(error) => {
                ring.failed = Some(now);
                let error = self.failed("make a key", error);
                old.inspect(|_| tracing::warn!(%error, "the last key for tokens signs on")).ok_or(error)
            }
        }
    }

    /// A key by its name. Reads files if it is not known yet.
    pub(super) fn find(&self, id: &str) -> Result<Option<Key>> {
        created(id).ok_or_else(|| Error::new(Kind::Invalid, "find key", "a token", "this is no key"))?;
        let mut ring = self.ring();
        if let Some(key) = ring.keys.get(id) {
            return Ok(Some(*key));
        }
        let now = (self.now)();
        let lately = |looked: SystemTime| now.duration_since(looked).is_ok_and(|since| since < LOOK_EVERY);
        if !ring.looked.is_some_and(lately) {
            self.look(&mut ring)?;
        }
        Ok(ring.keys.get(id).copied())
    }

    fn look(&self, ring: &mut Ring) -> Result<()> {
        ring.looked = Some((self.now)());
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(self.failed("read keys", e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| self.failed("read keys", e))?.path();
            let Some(id) = id_of(&path) else { continue };
            match read(&path) {
                Some(key) => drop(ring.keys.insert(id.to_owned(), key)),
                None => tracing::warn!(file = %path.display(), "this is no key for tokens; remove it"),
            }
        }
        Ok(())
    }

    fn make(&self, now: u64) -> std::io::Result<(String, Key)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let (mut key, mut random) = ([0; 32], [0; 8]);
        rand::rng().fill_bytes(&mut key);
        rand::rng().fill_bytes(&mut random);
        let id = format!("{now}-{}", hex::encode(random));
        // Nobody else can read it: temporary files are made so.
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        writeln!(file, "{}", hex::encode(key))?;
        file.as_file().sync_all()?;
        file.persist(self.directory.join(format!("{id}.{EXTENSION}"))).map_err(|e| e.error)?;
        fs::File::open(&self.directory)?.sync_all()?;
        Ok((id, key))
    }

    /// Removes the keys that nothing valid was signed with.
    fn tidy(&self, ring: &mut Ring, now: u64) {
        let old: Vec<String> = ring.keys.keys().filter(|id| is_older(id, now, KEPT)).cloned().collect();
        for id in old {
            ring.keys.remove(&id);
            // Another server may have been faster.
            let _ = fs::remove_file(self.directory.join(format!("{id}.{EXTENSION}")));
        }
    }

    fn failed(&self, operation: &'static str, error: std::io::Error) -> Error {
        Error::io(operation, self.directory.display(), error)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// The newest key, unless it is as old as this, in seconds.
    fn newest(&self, now: u64, old: u64) -> Option<(String, Key)> {
        let (id, key) = self.keys.iter().max_by_key(|(id, _)| created(id))?;
        (!is_older(id, now, old)).then(|| (id.clone(), *key))
    }
}

fn is_older(id: &str, now: u64, than: u64) -> bool {
    created(id).is_none_or(|created| created.saturating_add(than) <= now)
}

/// When a key was made, by its name.
fn created(id: &str) -> Option<u64> {
    let (seconds, random) = id.split_once('-')?;
    let plain = seconds.bytes().all(|b| b.is_ascii_digit()) && random.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain || random.len() != 16 { None } else { seconds.parse().ok() }
}

fn id_of(path: &Path) -> Option<&str> {
    let is_key = path.extension().is_some_and(|extension| extension == EXTENSION);
    path.file_stem()?.to_str().filter(|id| is_key && created(id).is_some())
}

fn read(path: &Path) -> Option<Key> {
    hex::decode(fs::read_to_string(path).ok()?.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn clock(seconds: &Arc<AtomicU64>) -> Clock {
        let seconds = Arc::clone(seconds);
        Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)))
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).map_or(0, Iterator::count)
    }

    #[test]
    fn a_new_key_every_day_and_old_ones_as_long_as_they_are_needed() {
        let (directory, time) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(1_800_000_000)));
        let path = directory.path().join("keys");
        let [one, two] = [(); 2].map(|()| Keys::new(path.clone(), clock(&time)));
        assert_eq!(one.find("1800000000-0123456789abcdef").unwrap(), None, "nothing is made by asking");
        assert!(!path.exists());
        let first = one.newest().unwrap();
        assert_eq!(two.newest().unwrap(), first, "another server finds it");
        assert_eq!(files(&path), 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(format!("{}.key", first.0)))), (0o700, 0o600));

        time.fetch_add(DAY, Ordering::Relaxed);
        let second = two.newest().unwrap();
        assert_ne!(second, first);
        assert_eq!(two.newest().unwrap(), second);
        assert_eq!(one.find(&second.0).unwrap(), Some(second.1), "it looks for what it does not know");
        assert_eq!(one.newest().unwrap(), second);
        assert_eq!(two.find(&first.0).unwrap(), Some(first.1));

        time.fetch_add(KEPT - DAY, Ordering::Relaxed);
        two.newest().unwrap();
        assert_eq!(two.find(&first.0).unwrap(), None);
        assert_eq!(two.find(&second.0).unwrap(), Some(second.1));
        assert_eq!(files(&path), 2);
    }

    #[test]
    fn without_room_for_a_new_key_the_last_one_signs_on() {
        let (directory, time) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(1_800_000_000)));
        let [good, full, path] = ["good", "/proc", "keys"].map(|name| directory.path().join(name));
        fs::create_dir(&good).unwrap();
        let lead_to = |target: &Path| {
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(target, &path).unwrap();
        };
        lead_to(&full);
        let keys = Keys::new(path.clone(), clock(&time));
        keys.newest().unwrap_err();
        lead_to(&good);
        let first = keys.newest().unwrap();
        lead_to(&full);
        time.fetch_add(DAY, Ordering::Relaxed);
        assert_eq!(keys.newest().unwrap(), first);
        lead_to(&good);
        assert_eq!(keys.newest().unwrap(), first, "not tried at once");
        time.fetch_add(TRY_EVERY, Ordering::Relaxed);
        assert_ne!(keys.newest().unwrap(), first);
        lead_to(&full);
        time.fetch_add(KEPT, Ordering::Relaxed);
        keys.newest().unwrap_err();
    }

    #[test]
    fn what_is_no_key_is_left_alone_and_inventing_names_costs_little() {
        let (directory, time) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(1_800_000_000)));
        let keys = Keys::new(directory.path().to_owned(), clock(&time));
        for (name, content) in [("README", "x"), ("1-0123456789abcdef.key", "short"), ("x.key", "y")] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        for bad in
            ["", "../../etc/passwd", "1-", "1-0123456789abcdeg", "-1-0123456789abcdef", "x-0123456789abcdef"]
        {
            assert!(keys.find(bad).is_err(), "{bad}");
        }
        assert_eq!(keys.find("1-0123456789abcdef").unwrap(), None);
        // Another server makes one within the same second.
        let (id, key) = Keys::new(directory.path().to_owned(), clock(&time)).newest().unwrap();
        assert_eq!(keys.find(&id).unwrap(), None);
        time.fetch_add(1, Ordering::Relaxed);
        assert_eq!(keys.find(&id).unwrap(), Some(key));
        assert_eq!(files(directory.path()), 4);
        fs::remove_file(directory.path().join(format!("{id}.key"))).unwrap();
        assert_eq!(keys.find(&id).unwrap(), Some(key));
        keys.forget();
        assert_eq!(keys.find(&id).unwrap(), None, "a key that was taken away counts no more");
    }
}
