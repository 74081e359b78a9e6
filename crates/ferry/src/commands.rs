//! Commands that pull an image from where it was copied to and give it the name of its source back.

use ferry_oci::{Digest, ImageReference, Tag};
use ferry_policy::clients::{Pull, shell_word};

use crate::cli::Tool;
use crate::endpoint::{Endpoint, Form, LayoutImage};

/// What containerd calls the images of Kubernetes.
const NAMESPACE: &str = "k8s.io";

/// An image that can be pulled.
pub(crate) struct Pullable<'a> {
    pub(crate) source: &'a Endpoint,
    pub(crate) target: &'a Endpoint,
    /// The image as the target has it.
    pub(crate) digest: Digest,
    /// The target is spoken to in plain HTTP.
    pub(crate) plain_http: bool,
}

/// The commands for `tools`, in their order; none for a target that nothing can be pulled from.
pub(crate) fn commands(tools: &[Tool], image: &Pullable<'_>) -> Vec<String> {
    let target = match image.target {
        Endpoint::Registry(target) => target,
        Endpoint::Layout(archive) => return tools.iter().filter_map(|tool| load(*tool, archive)).collect(),
    };
    let from = ImageReference { digest: None, ..target.clone() };
    let from = match &from.tag {
        Some(_) => from,
        None => ImageReference { digest: Some(image.digest), ..from },
    };
    tools.iter().map(|tool| command(*tool, &from, image)).collect()
}

/// The command that reads an archive, if the tool has one for it.
fn load(tool: Tool, archive: &LayoutImage) -> Option<String> {
    let file = shell_word(&archive.path.to_string_lossy());
    match (tool, archive.form) {
        (Tool::Docker, Form::DockerArchive) => Some(format!("docker load -i {file}")),
        // podman load takes a layout only if it holds one image, which nobody knows here.
        (_, Form::Directory) | (Tool::Docker | Tool::Podman, Form::OciArchive) | (Tool::Crictl, _) => None,
        (Tool::Podman, Form::DockerArchive) => Some(format!("podman load -i {file}")),
        (Tool::Ctr, _) => Some(format!("ctr -n {NAMESPACE} images import {file}")),
        (Tool::Nerdctl, _) => Some(format!("nerdctl -n {NAMESPACE} load -i {file}")),
    }
}

fn command(tool: Tool, from: &ImageReference, image: &Pullable<'_>) -> String {
    Pull { from, names: &names(tool, image), plain_http: image.plain_http }.with(tool.into())
}

/// How the tool calls the source. Only containerd takes a digest for a name, and only if it is the image's.
fn names(tool: Tool, image: &Pullable<'_>) -> Vec<ImageReference> {
    let Endpoint::Registry(source) = image.source else { return Vec::new() };
    let tag = source.tag.clone().or_else(|| source.digest.is_none().then(Tag::latest));
    let by_tag = tag.map(|tag| ImageReference { tag: Some(tag), digest: None, ..source.clone() });
    let by_digest = source.digest.filter(|digest| tool == Tool::Ctr && *digest == image.digest);
    let by_digest = by_digest.map(|_| ImageReference { tag: None, ..source.clone() });
    let target = image.target.to_string();
    let names = by_tag.into_iter().chain(by_digest);
    names.filter(|name| name.to_string() != target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Tool; 5] = [Tool::Docker, Tool::Ctr, Tool::Nerdctl, Tool::Crictl, Tool::Podman];

    fn of(tools: &[Tool], source: &str, target: &str, plain_http: bool) -> Vec<String> {
        let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
        let digest = Digest::sha256(b"image");
        commands(tools, &Pullable { source: &source, target: &target, digest, plain_http })
    }

    #[test]
    fn each_tool_gets_the_name_that_it_knows() {
        let t = "r.example.com/hub/alpine:3.20";
        assert_eq!(
            of(&ALL, "alpine:3.20", t, false),
            [
                format!("docker pull {t} && docker tag {t} alpine:3.20"),
                format!(
                    "ctr -n k8s.io images pull {t} && ctr -n k8s.io images tag {t} {}",
                    concat!("docker.io/", "library/alpine:3.20")
                ),
                format!("nerdctl -n k8s.io pull {t} && nerdctl -n k8s.io tag {t} alpine:3.20"),
                format!("crictl pull {t}"),
                format!("podman pull {t} && podman tag {t} {}", concat!("docker.io/", "library/alpine:3.20")),
            ]
        );
    }

    #[test]
    fn names_are_short_where_docker_has_them_short() {
        for (source, name) in [
            ("alpine", "alpine:latest"),
            ("grafana/grafana:11", "grafana/grafana:11"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ] {
            let expected = format!("docker pull quay.io/m/x:1 && docker tag quay.io/m/x:1 {name}");
            assert_eq!(of(&[Tool::Docker], source, "quay.io/m/x:1", false), [expected]);
        }
    }

    #[test]
    fn plain_http_is_said_to_those_who_have_to_know() {
        let t = "10.0.0.1:5000/x:1";
        let pulls: Vec<String> = of(&ALL, "oci:here:1", t, true);
        assert_eq!(
            pulls,
            [
                format!("docker pull {t}"),
                format!("ctr -n k8s.io images pull --plain-http {t}"),
                format!("nerdctl -n k8s.io pull --insecure-registry {t}"),
                format!("crictl pull {t}"),
                format!("podman pull --tls-verify=false {t}"),
            ]
        );
    }

    #[test]
    fn a_digest_is_a_name_for_containerd_alone() {
        let (mine, other) = (Digest::sha256(b"image"), Digest::sha256(b"another"));
        let (both, t) = (format!("quay.io/a/b:1@{mine}"), "r.example.com/b:1");
        assert_eq!(
            of(&[Tool::Docker, Tool::Ctr], &both, t, false),
            [
                format!("docker pull {t} && docker tag {t} quay.io/a/b:1"),
                format!(
                    "ctr -n k8s.io images pull {t} && ctr -n k8s.io images tag {t} quay.io/a/b:1 \
                     && ctr -n k8s.io images tag {t} quay.io/a/b@{mine}"
                ),
            ]
        );
        let untagged = format!("r.example.com/b@{mine}");
        assert_eq!(
            of(&[Tool::Docker, Tool::Ctr], &format!("quay.io/a/b@{other}"), "r.example.com/b", false),
            [format!("docker pull {untagged}"), format!("ctr -n k8s.io images pull {untagged}")],
            "an image that was changed for its target does not get the digest that it had"
        );
    }

    #[test]
    fn archives_are_loaded() {
        assert_eq!(
            of(&ALL, "alpine", "docker-archive:my images.tar", false),
            [
                "docker load -i 'my images.tar'",
                "ctr -n k8s.io images import 'my images.tar'",
                "nerdctl -n k8s.io load -i 'my images.tar'",
                "podman load -i 'my images.tar'",
            ]
        );
        assert_eq!(
            of(&ALL, "alpine", "oci-archive:x.tar", false),
            ["ctr -n k8s.io images import x.tar", "nerdctl -n k8s.io load -i x.tar"]
        );
    }

    #[test]
    fn nothing_is_pulled_from_a_layout_and_brackets_are_no_pattern() {
        assert!(of(&ALL, "alpine", "oci:here:1", false).is_empty());
        assert_eq!(of(&[Tool::Crictl], "alpine", "[::1]:5000/x:1", true), ["crictl pull '[::1]:5000/x:1'"]);
        assert_eq!(of(&[Tool::Docker], "quay.io/a:1", "quay.io/a:1", false), ["docker pull quay.io/a:1"]);
    }
}
