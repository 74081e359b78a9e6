use std::fmt;
use std::str::FromStr;

use ferry_oci::{Malformed, Registry};
use serde_json::json;

use super::quote::{list, quoted};
use super::{Note, Reached};
use crate::address::Unmirrored;
use crate::cut;
use crate::upstream::Upstream;

/// A program that can be configured to use a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `dockerd`
    Docker,
    /// `containerd`, and with it Kubernetes and nerdctl
    Containerd,
    /// podman, CRI-O, skopeo, buildah
    Podman,
    /// k3s, RKE2
    K3s,
    /// `buildkitd`
    Buildkit,
    /// Kubernetes, where its nodes cannot be configured
    Kubernetes,
    /// ferry itself
    Ferry,
}

/// What has to be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Files, or parts of files.
    pub snippets: Vec<Snippet>,
    /// What else there is to know.
    pub notes: Vec<Note>,
}

/// A file, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Where it usually is.
    pub file: String,
    /// What it is written in.
    pub syntax: Syntax,
    /// What stands there.
    pub text: String,
}

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// JSON
    Json,
    /// TOML
    Toml,
    /// YAML
    Yaml,
}

/// Where containerd looks for registries.
const CERTS_D: &str = "/etc/containerd/certs.d";

impl Client {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Docker,
        Self::Containerd,
        Self::Podman,
        Self::K3s,
        Self::Buildkit,
        Self::Kubernetes,
        Self::Ferry,
    ];

    /// Its name in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::K3s => "k3s",
            Self::Buildkit => "buildkit",
            Self::Kubernetes => "kubernetes",
            Self::Ferry => "ferry",
        }
    }

    /// Its name for people, with those that are configured in the same way.
    pub fn title(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman, CRI-O, skopeo",
            Self::K3s => "k3s, RKE2",
            Self::Buildkit => "BuildKit",
            Self::Kubernetes => "Kubernetes",
            Self::Ferry => "ferry",
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Client {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let found = Self::ALL.into_iter().find(|client| client.as_str() == text);
        found.ok_or_else(|| Malformed {
            what: "client",
            input: cut(text),
            reason: format!("there are {}", Self::ALL.map(Self::as_str).join(", ")),
        })
    }
}

impl Reached {
    /// How `client` is configured to ask this mirror for what is at the registries of `only`; for all of them if there are
    /// none.
    ///
    /// # Errors
    /// [`Unmirrored`] if one of them is not mirrored, or if the mirror has no name that this client could write.
    pub fn configuration(&self, client: Client, only: &[Registry]) -> Result<Configuration, Unmirrored> {
        let chosen = self.chosen(only)?;
        let mut configuration = match client {
            Client::Docker => self.docker(&chosen)?,
            Client::Containerd => self.containerd(&chosen, only.is_empty()),
            Client::Podman => self.podman(&chosen)?,
            Client::K3s => self.k3s(&chosen, only.is_empty()),
            Client::Buildkit => self.buildkit(&chosen),
            Client::Kubernetes => self.kubernetes(&chosen)?,
            Client::Ferry => self.ferry(&chosen)?,
        };
        if self.login {
            configuration.notes.push(Note::Login { client, host: self.host() });
        }
        if !self.url.is_secure() {
            configuration.notes.push(Note::PlainHttp);
        }
        Ok(configuration)
    }

    fn host(&self) -> String {
        self.url.host().to_string()
    }

    fn docker(&self, chosen: &[&Upstream]) -> Result<Configuration, Unmirrored> {
        let hub = chosen.iter().any(|upstream| upstream.registry.is_docker_hub());
        let hub = hub.then(|| self.hub()).flatten();
        let mut fields = serde_json::Map::new();
        if let Some(hub) = &hub {
            fields.insert("registry-mirrors".to_owned(), json!([self.url.at(hub).to_string()]));
        }
        if !self.url.is_secure() {
            let mut hosts = vec![self.host()];
            hosts.extend(hub.as_ref().map(ToString::to_string).filter(|hub| *hub != self.host()));
            fields.insert("insecure-registries".to_owned(), json!(hosts));
        }
        // One that people know, if there is.
        let well_known = |upstream: &&&Upstream| upstream.registry.as_str() == "quay.io";
        let others = || chosen.iter().filter(|upstream| !upstream.registry.is_docker_hub());
        let other = others().find(well_known).or_else(|| others().next());
        let example = other.map(|other| self.prefix(other)).transpose()?;
        let mut notes = Vec::new();
        match (&hub, example) {
            (Some(_), Some(example)) => notes.push(Note::DockerHubOnly { example }),
            (None, Some(example)) => notes.push(Note::DockerByName { example }),
            (None, None) => notes.push(Note::DockerNoHub),
            (Some(_), None) => {}
        }
        let mut snippets = Vec::new();
        if !fields.is_empty() {
            let text = format!("{:#}\n", serde_json::Value::Object(fields));
            snippets.push(snippet("/etc/docker/daemon.json", Syntax::Json, text));
            notes.insert(0, Note::DockerReload);
        }
        Ok(Configuration { snippets, notes })
    }

    fn containerd(&self, chosen: &[&Upstream], all: bool) -> Configuration {
        let host =
            format!("[host.{}]\n  capabilities = [\"pull\", \"resolve\"]\n", quoted(&self.url.to_string()));
        let mut snippets = Vec::new();
        if all {
            snippets.push(snippet(format!("{CERTS_D}/_default/hosts.toml"), Syntax::Toml, host));
        } else {
            for upstream in chosen {
                let file = format!("{CERTS_D}/{}/hosts.toml", upstream.registry);
                let server = quoted(&format!("https://{}", origin(&upstream.registry)));
                snippets.push(snippet(file, Syntax::Toml, format!("server = {server}\n\n{host}")));
            }
        }
        let mut notes = vec![Note::ContainerdDirectory];
        if all {
            notes.push(Note::ContainerdDefault);
        }
        Configuration { snippets, notes }
    }

    /// For images that are called by their name at the mirror.
    fn containerd_plain_http(&self) -> Option<Snippet> {
        let server = quoted(&self.url.to_string());
        let text =
            format!("server = {server}\n\n[host.{server}]\n  capabilities = [\"pull\", \"resolve\"]\n");
        let file = format!("{CERTS_D}/{}/hosts.toml", self.host());
        (!self.url.is_secure()).then(|| snippet(file, Syntax::Toml, text))
    }

    fn podman(&self, chosen: &[&Upstream]) -> Result<Configuration, Unmirrored> {
        let block = |upstream: &&Upstream| {
            let [of, at] = [upstream.registry.to_string(), self.prefix(upstream)?].map(|text| quoted(&text));
            let insecure = if self.url.is_secure() { "" } else { "insecure = true\n" };
            Ok(format!("[[registry]]\nlocation = {of}\n\n[[registry.mirror]]\nlocation = {at}\n{insecure}"))
        };
        let blocks: Vec<String> = chosen.iter().map(block).collect::<Result<_, Unmirrored>>()?;
        let file = "/etc/containers/registries.conf.d/50-mirror.conf";
        let snippets = vec![snippet(file, Syntax::Toml, blocks.join("\n"))];
        Ok(Configuration { snippets, notes: vec![Note::PodmanFile] })
    }

    fn k3s(&self, chosen: &[&Upstream], all: bool) -> Configuration {
        let endpoint = |of: &str| format!("  {}:\n    endpoint: {}\n", quoted(of), list([&self.url]));
        let mirrors: String = match all {
            true => endpoint("*"),
            false => chosen.iter().map(|upstream| endpoint(upstream.registry.as_str())).collect(),
        };
        let mut text = format!("mirrors:\n{mirrors}");
        if self.login {
            let host = quoted(&self.host());
            text += &format!(
                "configs:\n  {host}:\n    auth:\n      username: \"USER\"\n      password: \"PASSWORD\"\n"
            );
        }
        let snippets = vec![snippet("/etc/rancher/k3s/registries.yaml", Syntax::Yaml, text)];
        Configuration { snippets, notes: vec![Note::K3sRestart] }
    }

    fn buildkit(&self, chosen: &[&Upstream]) -> Configuration {
        let host = quoted(&self.host());
        let block = |upstream: &&Upstream| {
            format!("[registry.{}]\n  mirrors = [{host}]\n", quoted(upstream.registry.as_str()))
        };
        let mut blocks: Vec<String> = chosen.iter().map(block).collect();
        if !self.url.is_secure() {
            blocks.push(format!("[registry.{host}]\n  http = true\n"));
        }
        let snippets = vec![snippet("buildkitd.toml", Syntax::Toml, blocks.join("\n"))];
        Configuration { snippets, notes: vec![Note::BuildkitStart] }
    }

    fn kubernetes(&self, chosen: &[&Upstream]) -> Result<Configuration, Unmirrored> {
        let hub = chosen.iter().find(|upstream| upstream.registry.is_docker_hub());
        let (of, name) = match (hub, chosen.first()) {
            (Some(hub), _) => (hub, "library/nginx:1.27"),
            (None, Some(first)) => (first, "team/app:1.0"),
            (None, None) => {
                return Ok(Configuration { snippets: Vec::new(), notes: vec![Note::KubernetesNodes] });
            }
        };
        let image = quoted(&format!("{}/{name}", self.prefix(of)?));
        let secrets = if self.login { "  imagePullSecrets:\n    - name: mirror\n" } else { "" };
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: example\nspec:\n{secrets}  containers:\n    - name: example\n      image: {image}\n"
        );
        let mut snippets = vec![snippet("pod.yaml", Syntax::Yaml, pod)];
        if let Some(k8s) = chosen.iter().find(|upstream| upstream.registry.as_str() == "registry.k8s.io") {
            let at = self.prefix(k8s)?;
            // kubeadm asks for CoreDNS in another place as soon as the repository is not its own.
            let text = format!(
                "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nimageRepository: {}\ndns:\n  imageRepository: {}\n",
                quoted(&at),
                quoted(&format!("{at}/coredns"))
            );
            snippets.push(snippet("kubeadm.yaml", Syntax::Yaml, text));
        }
        snippets.extend(self.containerd_plain_http());
        Ok(Configuration { snippets, notes: vec![Note::KubernetesNodes] })
    }

    fn ferry(&self, chosen: &[&Upstream]) -> Result<Configuration, Unmirrored> {
        let mut text = "registries:\n".to_owned();
        for upstream in chosen {
            let of = quoted(upstream.registry.as_str());
            text += &format!("  {of}:\n    mirrors: {}\n", list([self.prefix(upstream)?]));
        }
        if !self.url.is_secure() {
            text += &format!("  {}:\n    plain_http: true\n", quoted(&self.host()));
        }
        let snippets = vec![snippet("~/.config/ferry/ferry.yaml", Syntax::Yaml, text)];
        Ok(Configuration { snippets, notes: Vec::new() })
    }
}

/// Where a registry's own API is.
fn origin(registry: &Registry) -> &str {
    if registry.is_docker_hub() { "registry-1.docker.io" } else { registry.as_str() }
}

fn snippet(file: impl Into<String>, syntax: Syntax, text: String) -> Snippet {
    Snippet { file: file.into(), syntax, text }
}
