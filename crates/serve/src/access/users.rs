//! Users and what their passwords hash to: lines `NAME:HASH`, as `ferry user add` and `htpasswd -B` write them.

use std::collections::HashMap;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use ferry_oci::Digest;
use ferry_store::{Error, Kind, Result};

/// The longest name of a user, in bytes.
const MAX_NAME: usize = 128;
/// More work for a single password would stop the others: bcrypt's cost doubles it each time.
const MAX_BCRYPT_COST: u32 = 16;
/// KiB of memory for a single password.
const MAX_ARGON2_MEMORY: u32 = 1024 * 1024;
/// Passes over that memory.
const MAX_ARGON2_TIME: u32 = 64;

/// What a password hashes to.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Hash {
    Bcrypt(String),
    /// argon2id, as PHC string.
    Argon2(String),
}

/// Those who can log in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<String, Hash>,
    /// What an unknown user's password is compared with, so that the answer takes as long.
    first: Option<Hash>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} users", self.hashes.len())
    }
}

impl Users {
    /// Reads lines `NAME:HASH`; `#` begins a comment. `file` names them in errors.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the line, for a name that is none or comes twice, and for every hash but bcrypt
    /// (`$2y$`, `$2b$`, `$2a$`) and argon2id.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let mut users = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad =
                |reason: &str| Error::new(Kind::Invalid, "read users", format!("{file}:{number}"), reason);
            let (name, hash) = line.split_once(':').ok_or_else(|| bad("a line is NAME:HASH"))?;
            check_name(name).map_err(bad)?;
            let hash = Hash::parse(hash).map_err(|reason| bad(&reason))?;
            users.first.get_or_insert_with(|| hash.clone());
            if users.hashes.insert(name.to_owned(), hash).is_some() {
                return Err(bad(&format!("the user {name} is there twice")));
            }
        }
        Ok(users)
    }

    pub(super) fn hash(&self, name: &str) -> Option<&Hash> {
        self.hashes.get(name)
    }

    /// Any hash.
    pub(super) fn first(&self) -> Option<&Hash> {
        self.first.as_ref()
    }

    /// What changes with the password; `None` if there is no such user.
    pub(super) fn fingerprint(&self, name: &str) -> Option<String> {
        let hash = self.hashes.get(name)?;
        Some(Digest::sha256(hash.text().as_bytes()).hex()[..32].to_owned())
    }
}

/// Whether somebody can be called so.
///
/// # Errors
/// What is wrong with the name, in words for people.
pub fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || ":/".contains(c);
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("a user name has 1 to 128 characters");
    }
    if name.contains(odd) || name.starts_with('#') {
        return Err("a user name has no blanks, no colon and no slash, and does not begin with #");
    }
    Ok(())
}

/// The hash of a password as it is kept: argon2id with a salt of its own.
///
/// # Errors
/// [`Kind::Unavailable`] if the system gives no random numbers.
pub fn hash_password(password: &str) -> Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    let failed =
        |e: argon2::password_hash::Error| Error::new(Kind::Unavailable, "hash", "a password", e.to_string());
    Ok(hash.map_err(failed)?.to_string())
}

impl Hash {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        if ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| text.starts_with(prefix)) {
            return bcrypt(text);
        }
        if text.starts_with("$argon2id$") {
            return argon2id(text);
        }
        let kind = match text {
            _ if text.starts_with("$apr1$") || text.starts_with("$1$") => "hashed with MD5",
            _ if text.starts_with("{SHA}") => "hashed with SHA-1",
            _ if text.starts_with("$5$") || text.starts_with("$6$") => "hashed with SHA-2",
            _ if text.starts_with("$argon2") => "hashed with a variant of argon2 that is not argon2id",
            _ => "not hashed, or in a way that is not known",
        };
        Err(format!(
            "the password is {kind}; bcrypt and argon2id are taken: write the line with ferry user add or htpasswd -B"
        ))
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Bcrypt(text) | Self::Argon2(text) => text,
        }
    }

    /// Whether it is that of `password`. Takes its time, so not on a thread that others wait for.
    pub(super) fn is_of(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Argon2(text) => PasswordHash::new(text)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
        }
    }
}

fn bcrypt(text: &str) -> std::result::Result<Hash, String> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| "this is no bcrypt hash".to_owned())?;
    match parts.get_cost() {
        cost if cost > MAX_BCRYPT_COST => Err(format!("the bcrypt cost is above {MAX_BCRYPT_COST}")),
        _ => Ok(Hash::Bcrypt(text.to_owned())),
    }
}

fn argon2id(text: &str) -> std::result::Result<Hash, String> {
    let bad = |_| "this is no argon2id hash".to_owned();
    let hash = PasswordHash::new(text).map_err(bad)?;
    let params = Params::try_from(&hash).map_err(|_| "this is no argon2id hash".to_owned())?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("this is no argon2id hash".to_owned());
    }
    if params.m_cost() > MAX_ARGON2_MEMORY || params.t_cost() > MAX_ARGON2_TIME {
        return Err("it asks for more than 1 GiB or 64 passes".to_owned());
    }
    Ok(Hash::Argon2(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, with the least cost.
    const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    #[test]
    fn both_hashes_are_read_and_others_are_named_with_their_line() {
        let argon2 = hash_password("hunter2").unwrap();
        assert!(argon2.starts_with("$argon2id$v=19$"));
        let text = format!("# users\n\nferry:{BCRYPT}\nme@corp:{argon2}\n");
        let users = Users::parse(&text, "f").unwrap();
        assert!(
            users.hash("ferry").unwrap().is_of("secret") && !users.hash("ferry").unwrap().is_of("Secret")
        );
        assert!(users.hash("me@corp").unwrap().is_of("hunter2") && !users.hash("me@corp").unwrap().is_of(""));
        assert!(users.hash("Ferry").is_none());
        let large = argon2.replace("m=19456", "m=4000000");
        let strong = BCRYPT.replace("$04$", "$31$");
        for (line, says) in [
            ("a", "NAME:HASH"),
            (&format!("a b:{BCRYPT}"), "no blanks"),
            (&format!("a/b:{BCRYPT}"), "no slash"),
            (&format!(":{BCRYPT}"), "1 to 128"),
            ("a:hunter2", "not hashed"),
            ("a:$apr1$x$hunter2", "MD5"),
            ("a:{SHA}hunter2", "SHA-1"),
            ("a:$6$hunter2", "SHA-2"),
            ("a:$2y$04$hunter2", "no bcrypt hash"),
            (&format!("a:{strong}"), "cost is above"),
            ("a:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "not argon2id"),
            ("a:$argon2id$v=19$hunter2", "no argon2id hash"),
            (&format!("a:{large}"), "more than 1 GiB"),
            (&format!("ferry:{BCRYPT}"), "there twice"),
        ] {
            let error = Users::parse(&format!("{text}{line}\n"), "f").unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            let said = error.to_string();
            assert!(
                said.contains("f:5") && said.contains(says) && !said.contains("hunter2"),
                "{line}: {said}"
            );
        }
    }

    #[test]
    fn a_fingerprint_changes_with_the_password() {
        let of = |password: &str| {
            let text = format!("a:{}", hash_password(password).unwrap());
            Users::parse(&text, "f").unwrap().fingerprint("a").unwrap()
        };
        assert_ne!(of("x"), of("y"));
        let users = Users::parse(&format!("a:{BCRYPT}"), "f").unwrap();
        assert_eq!(users.fingerprint("a"), users.fingerprint("a"));
        assert_eq!(users.fingerprint("b"), None);
    }
}
