use std::ffi::OsString;
use std::path::PathBuf;

/// What ferry takes from its environment. Nothing else in the program looks there.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    home: Option<PathBuf>,
    state_home: Option<PathBuf>,
    docker_config: Option<PathBuf>,
}

impl Environment {
    /// Reads `HOME`, `XDG_STATE_HOME` and `DOCKER_CONFIG`.
    pub fn of_this_process() -> Self {
        let path =
            |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        Self { home: path("HOME"), state_home: path("XDG_STATE_HOME"), docker_config: path("DOCKER_CONFIG") }
    }

    /// Where programs keep what is worth keeping between runs (XDG base directories), for ferry.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        let base = self.state_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")))?;
        Some(base.join("ferry"))
    }

    /// The file in which `docker login` leaves credentials.
    pub(crate) fn docker_config_file(&self) -> Option<PathBuf> {
        let directory = self.docker_config.clone().or_else(|| Some(self.home.as_ref()?.join(".docker")))?;
        Some(directory.join("config.json"))
    }
}
