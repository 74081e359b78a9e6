use std::fmt;

use ferry_oci::ImageReference;

/// What containerd calls the images of Kubernetes.
const NAMESPACE: &str = "k8s.io";

/// A program that pulls images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `docker`
    Docker,
    /// `ctr`, for the images of Kubernetes
    Ctr,
    /// `nerdctl`, for the images of Kubernetes
    Nerdctl,
    /// `crictl`, which cannot name images
    Crictl,
    /// `podman`
    Podman,
    /// `skopeo`, which keeps images in files
    Skopeo,
}

impl Tool {
    /// All of them, the ones that most people have first.
    pub const ALL: [Self; 6] =
        [Self::Docker, Self::Ctr, Self::Nerdctl, Self::Crictl, Self::Podman, Self::Skopeo];

    /// Its name as it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Ctr => "ctr",
            Self::Nerdctl => "nerdctl",
            Self::Crictl => "crictl",
            Self::Podman => "podman",
            Self::Skopeo => "skopeo",
        }
    }

    /// An image as this tool wants its name: Docker's is the short form; podman would put `localhost/` before it, and
    /// containerd knows no short forms.
    pub(super) fn shown(self, image: &ImageReference) -> String {
        match self {
            Self::Docker | Self::Nerdctl => familiar(image),
            Self::Podman | Self::Ctr | Self::Crictl | Self::Skopeo => image.to_string(),
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An image that shall be pulled and named.
#[derive(Debug, Clone)]
pub struct Pull<'a> {
    /// Its name where it is pulled from, with a tag or a digest.
    pub from: &'a ImageReference,
    /// What it shall be called then.
    pub names: &'a [ImageReference],
    /// Where it is pulled from speaks plain HTTP.
    pub plain_http: bool,
}

impl Pull<'_> {
    /// The command line for a shell.
    pub fn with(&self, tool: Tool) -> String {
        let plain = |flag: &'static str| if self.plain_http { flag } else { "" };
        let from = shell_word(&self.from.to_string());
        let (pull, tag, flag) = match tool {
            Tool::Docker => ("docker pull".to_owned(), "docker tag".to_owned(), ""),
            Tool::Podman => ("podman pull".to_owned(), "podman tag".to_owned(), plain(" --tls-verify=false")),
            Tool::Crictl => return format!("crictl pull {from}"),
            Tool::Skopeo => return self.with_skopeo(plain(" --src-tls-verify=false")),
            Tool::Ctr => {
                let ctr = format!("ctr -n {NAMESPACE} images");
                (format!("{ctr} pull"), format!("{ctr} tag"), plain(" --plain-http"))
            }
            Tool::Nerdctl => {
                let nerdctl = format!("nerdctl -n {NAMESPACE}");
                (format!("{nerdctl} pull"), format!("{nerdctl} tag"), plain(" --insecure-registry"))
            }
        };
        let pull = format!("{pull}{flag} {from}");
        let name = |name: &ImageReference| format!(" && {tag} {from} {}", shell_word(&tool.shown(name)));
        [pull].into_iter().chain(self.names.iter().map(name)).collect()
    }

    /// Into a directory that has the name of the image.
    fn with_skopeo(&self, flag: &str) -> String {
        let ImageReference { repository, tag, .. } = self.from;
        let last = repository.as_str().rsplit('/').next().unwrap_or_default();
        let tag = tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let from = shell_word(&format!("docker://{}", self.from));
        format!("skopeo copy --all{flag} {from} {}", shell_word(&format!("oci:{last}{tag}")))
    }
}

/// An image as people write it for Docker: what goes without saying is left out.
pub fn familiar(image: &ImageReference) -> String {
    let text = image.to_string();
    let hub = text.strip_prefix("docker.io/").filter(|_| image.registry.is_docker_hub());
    let Some(hub) = hub else { return text };
    match hub.strip_prefix("library/") {
        // What looks like a registry would be taken for one.
        Some(rest) if !image.repository.as_str()["library/".len()..].contains('/') => rest.to_owned(),
        _ => hub.to_owned(),
    }
}

/// One word for a shell.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
