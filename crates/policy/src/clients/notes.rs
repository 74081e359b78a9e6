use std::str::FromStr;

use ferry_oci::Malformed;

use super::Client;

/// A language that people read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    /// English
    #[default]
    English,
    /// Simplified Chinese
    Chinese,
}

impl Language {
    /// The tag of the language (BCP 47).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }
}

impl FromStr for Language {
    type Err = Malformed;

    /// By the first part of its tag: `zh-CN` is Chinese.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let primary = text.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
        match &*primary {
            "en" => Ok(Self::English),
            "zh" => Ok(Self::Chinese),
            _ => Err(Malformed {
                what: "language",
                input: crate::cut(text),
                reason: "there are en and zh".to_owned(),
            }),
        }
    }
}

/// What there is to know beside a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// When it counts.
    DockerReload,
    /// What dockerd asks mirrors for.
    DockerHubOnly {
        /// What stands in front of the names of another registry.
        example: String,
    },
    /// No host of the mirror is Docker Hub to dockerd, or Docker Hub is not wanted.
    DockerByName {
        /// What stands in front of the names of a registry.
        example: String,
    },
    /// There is nothing that dockerd could be told.
    DockerNoHub,
    /// Where containerd has to be told of the directory.
    ContainerdDirectory,
    /// What goes before the file.
    ContainerdDefault,
    /// Where else it may stand, and when it counts.
    PodmanFile,
    /// When it counts.
    K3sRestart,
    /// How the file is used.
    BuildkitStart,
    /// What is better than all this.
    KubernetesNodes,
    /// How the client logs in.
    Login {
        /// Which client.
        client: Client,
        /// The host of the mirror.
        host: String,
    },
    /// What plain HTTP means.
    PlainHttp,
}

impl Note {
    /// The note in a language. Code stands between backquotes.
    pub fn text(&self, language: Language) -> String {
        match language {
            Language::English => self.english(),
            Language::Chinese => self.chinese(),
        }
    }

    fn english(&self) -> String {
        match self {
            Self::DockerReload => "Then `systemctl reload docker`.".to_owned(),
            Self::DockerHubOnly { example } => format!(
                "dockerd asks a mirror only for images of Docker Hub. Pull everything else by its name at the mirror: `docker pull {example}/…`"
            ),
            Self::DockerByName { example } => {
                format!("Images are pulled by their name at the mirror: `docker pull {example}/…`")
            }
            Self::DockerNoHub => {
                "No host of this mirror stands for Docker Hub, and dockerd asks a mirror for nothing else.".to_owned()
            }
            Self::ContainerdDirectory => "containerd has to know the directory: `config_path = \"/etc/containerd/certs.d\"` in \
                 `/etc/containerd/config.toml`, under `[plugins.\"io.containerd.cri.v1.images\".registry]` in containerd 2 and \
                 `[plugins.\"io.containerd.grpc.v1.cri\".registry]` in containerd 1. `hosts.toml` itself counts at once, without a restart."
                .to_owned(),
            Self::ContainerdDefault => {
                "Where there is a directory for a registry, such as `certs.d/docker.io/`, it goes before `_default/`.".to_owned()
            }
            Self::PodmanFile => "It may as well stand in `/etc/containers/registries.conf`. podman, skopeo and buildah read it at once; \
                 CRI-O after `systemctl reload crio`."
                .to_owned(),
            Self::K3sRestart => "Then `systemctl restart k3s` (`k3s-agent` on agents). RKE2 has it in `/etc/rancher/rke2/registries.yaml`.".to_owned(),
            Self::BuildkitStart => {
                "For docker buildx: `docker buildx create --use --buildkitd-config buildkitd.toml`".to_owned()
            }
            Self::KubernetesNodes => "If you can configure the nodes, configure containerd, CRI-O or k3s there, and images keep their names. \
                 Otherwise write the name at the mirror:"
                .to_owned(),
            Self::Login { client, host } => english_login(*client, host),
            Self::PlainHttp => {
                "This address is plain HTTP: whoever is in between can see and change what is pulled. Use it only in a network that you trust."
                    .to_owned()
            }
        }
    }

    fn chinese(&self) -> String {
        match self {
            Self::DockerReload => "然后运行 `systemctl reload docker`。".to_owned(),
            Self::DockerHubOnly { example } => format!(
                "dockerd 只向镜像站请求 Docker Hub 的镜像。其他镜像请用它在镜像站的名称拉取：`docker pull {example}/…`"
            ),
            Self::DockerByName { example } => format!("用镜像在镜像站的名称拉取：`docker pull {example}/…`"),
            Self::DockerNoHub => "这个镜像站没有代表 Docker Hub 的主机，而 dockerd 只向镜像站请求 Docker Hub 的镜像。".to_owned(),
            Self::ContainerdDirectory => "containerd 需要知道这个目录：在 `/etc/containerd/config.toml` 中写 `config_path = \"/etc/containerd/certs.d\"`，\
                 containerd 2 在 `[plugins.\"io.containerd.cri.v1.images\".registry]` 下，containerd 1 在 \
                 `[plugins.\"io.containerd.grpc.v1.cri\".registry]` 下。`hosts.toml` 本身立即生效，无需重启。"
                .to_owned(),
            Self::ContainerdDefault => "某个镜像仓库有自己的目录（如 `certs.d/docker.io/`）时，它先于 `_default/`。".to_owned(),
            Self::PodmanFile => "也可以写在 `/etc/containers/registries.conf` 里。podman、skopeo、buildah 立即读取；CRI-O 需要 `systemctl reload crio`。".to_owned(),
            Self::K3sRestart => "然后运行 `systemctl restart k3s`（agent 上是 `k3s-agent`）。RKE2 的文件是 `/etc/rancher/rke2/registries.yaml`。".to_owned(),
            Self::BuildkitStart => "用于 docker buildx：`docker buildx create --use --buildkitd-config buildkitd.toml`".to_owned(),
            Self::KubernetesNodes => "如果可以配置节点，请在节点上配置 containerd、CRI-O 或 k3s，镜像名称就不用改。否则请写镜像在镜像站的名称：".to_owned(),
            Self::Login { client, host } => chinese_login(*client, host),
            Self::PlainHttp => "这个地址是明文 HTTP：中间的任何人都能看到并修改拉取的内容。只在可信的网络中使用。".to_owned(),
        }
    }
}

/// What is typed to log in, where that is all.
fn log_in(client: Client, host: &str) -> String {
    match client {
        Client::Podman => format!("podman login {host}"),
        Client::Ferry => format!("ferry login {host}"),
        Client::Kubernetes => format!(
            "kubectl create secret docker-registry mirror --docker-server={host} --docker-username=USER --docker-password=PASSWORD"
        ),
        Client::Docker | Client::Buildkit | Client::Containerd | Client::K3s => {
            format!("docker login {host}")
        }
    }
}

fn english_login(client: Client, host: &str) -> String {
    match client {
        Client::Docker => format!(
            "This mirror wants a login. dockerd shows a mirror only the login of Docker Hub, so pull by the name at the mirror, after `docker login {host}`."
        ),
        Client::Containerd => format!(
            "This mirror wants a login: name an account under `registry.configs.\"{host}\".auth` (`username`, `password`), beside `config_path`, and restart containerd."
        ),
        Client::K3s => "This mirror wants a login: put yours in the place of USER and PASSWORD.".to_owned(),
        Client::Podman | Client::Buildkit | Client::Kubernetes | Client::Ferry => {
            format!("This mirror wants a login: `{}`", log_in(client, host))
        }
    }
}

fn chinese_login(client: Client, host: &str) -> String {
    match client {
        Client::Docker => format!(
            "这个镜像站需要登录。dockerd 只向镜像站出示 Docker Hub 的登录信息，所以请先 `docker login {host}`，再用镜像在镜像站的名称拉取。"
        ),
        Client::Containerd => format!(
            "这个镜像站需要登录：在 `config_path` 旁边的 `registry.configs.\"{host}\".auth` 下写账号（`username`、`password`），然后重启 containerd。"
        ),
        Client::K3s => "这个镜像站需要登录：把 USER 和 PASSWORD 换成你的账号。".to_owned(),
        Client::Podman | Client::Buildkit | Client::Kubernetes | Client::Ferry => {
            format!("这个镜像站需要登录：`{}`", log_in(client, host))
        }
    }
}
