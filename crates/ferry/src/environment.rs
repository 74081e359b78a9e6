use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What ferry takes from its environment. Nothing else in the program looks there.
#[derive(Clone, Default)]
pub struct Environment {
    variables: Arc<HashMap<String, String>>,
}

impl Environment {
    /// The variables of this process, as they are now. Those whose value is no text or empty are as good as none.
    pub fn of_this_process() -> Self {
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok().filter(|value| !value.is_empty())?))
        });
        Self { variables: Arc::new(texts.collect()) }
    }

    /// The value of a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from)
    }

    fn below_home(&self, path: &str) -> Option<PathBuf> {
        Some(self.path("HOME")?.join(path))
    }

    /// Where programs keep what is worth keeping between runs (XDG base directories), for ferry.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        Some(self.path("XDG_STATE_HOME").or_else(|| self.below_home(".local/state"))?.join("ferry"))
    }

    /// Where a configuration is looked for, in this order.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let own = self.path("XDG_CONFIG_HOME").or_else(|| self.below_home(".config"));
        let own = own.map(|directory| directory.join("ferry/ferry.yaml"));
        own.into_iter().chain([PathBuf::from("/etc/ferry/ferry.yaml")]).collect()
    }

    /// The files in which logins are left, in the order in which podman reads them: its own, then Docker's. One that is
    /// named by `REGISTRY_AUTH_FILE` is the only one.
    pub(crate) fn auth_files(&self) -> Vec<PathBuf> {
        if let Some(only) = self.path("REGISTRY_AUTH_FILE") {
            return vec![only];
        }
        let of_podman = [
            self.path("XDG_RUNTIME_DIR"),
            self.path("XDG_CONFIG_HOME").or_else(|| self.below_home(".config")),
        ];
        let of_podman =
            of_podman.into_iter().flatten().map(|directory| directory.join("containers/auth.json"));
        of_podman.chain(self.docker_config_file()).collect()
    }

    /// The file in which `docker login` leaves credentials.
    pub(crate) fn docker_config_file(&self) -> Option<PathBuf> {
        Some(self.path("DOCKER_CONFIG").or_else(|| self.below_home(".docker"))?.join("config.json"))
    }

    /// The file that a login goes to.
    pub(crate) fn login_file(&self) -> Option<PathBuf> {
        self.path("REGISTRY_AUTH_FILE").or_else(|| self.docker_config_file())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: Arc::new(variables.into_iter().collect()) }
    }
}

impl fmt::Debug for Environment {
    /// Values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn files_are_where_podman_and_docker_look() {
        let paths = |variables: &[(&str, &str)]| -> Vec<String> {
            let files = environment(variables).auth_files();
            files.iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            paths(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/1")]),
            ["/run/user/1/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(paths(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a.json")]), ["/a.json"]);
        assert_eq!(paths(&[("DOCKER_CONFIG", "/d")]), ["/d/config.json"]);
        assert!(paths(&[]).is_empty());
    }

    #[test]
    fn values_are_not_printed() {
        let shown = format!("{:?}", environment(&[("FERRY_TARGET_PASSWORD", "hunter2")]));
        assert!(shown.contains("FERRY_TARGET_PASSWORD") && !shown.contains("hunter2"));
    }
}
