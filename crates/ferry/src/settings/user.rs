use std::path::PathBuf;

use anyhow::{Context, anyhow};

use crate::cli::{UserArguments, UserVerb};
use crate::config::Loaded;

/// What `ferry user` shall do.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) change: Change,
}

/// What becomes of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Add,
    Remove,
}

impl User {
    pub(crate) fn new(typed: UserVerb, loaded: &Loaded) -> anyhow::Result<Self> {
        let (UserArguments { name, file }, change) = match typed {
            UserVerb::Add(typed) => (typed, Change::Add),
            UserVerb::Remove(typed) => (typed, Change::Remove),
        };
        ferry_serve::check_name(&name).map_err(|reason| anyhow!("{name:?}: {reason}"))?;
        let access = loaded.config.serve.as_ref().and_then(|serve| serve.access.as_ref());
        let configured = || access?.users.as_ref().map(|file| loaded.resolve(file));
        let file = file.or_else(configured);
        let file =
            file.context("--file FILE is needed: the file of users, as serve: access: users names it")?;
        Ok(Self { name, file, change })
    }
}
