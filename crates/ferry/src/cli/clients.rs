//! What can be typed about the use of a mirror.

use clap::Args;
use ferry_oci::Registry;
use ferry_policy::address::Form;
use ferry_policy::clients::{Client, PublicUrl};

use super::Output;

/// Print the configuration with which a client asks a mirror: docker, containerd, podman, k3s, buildkit, kubernetes, ferry.
///
/// Nothing is asked over the network. What the mirror mirrors is taken from `serve: mirror` in the configuration; without it,
/// the usual registries are meant, and the host of the URL is the mirror's domain.
#[derive(Debug, Args)]
pub(crate) struct ClientConfigArguments {
    /// The client
    pub(crate) client: Client,
    /// Where the mirror is: https://cr.example.cn
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: PublicUrl,
    /// Only for this registry; may be repeated [default: all that are mirrored]
    #[arg(long = "upstream", value_name = "REGISTRY", value_delimiter = ',')]
    pub(crate) upstreams: Vec<Registry>,
}

/// Print what an image is called at a mirror, and how it is pulled from there.
///
/// Nothing is asked over the network. What the mirror mirrors is known as for ferry client-config.
#[derive(Debug, Args)]
pub(crate) struct ResolveArguments {
    /// The image by its own name: nginx:1.27, registry.k8s.io/pause:3.10
    pub(crate) image: String,
    /// Where the mirror is: https://cr.example.cn
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: PublicUrl,
    /// Only in this way: prefix, alias-host, namespace, transparent [default: all]
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<Form>,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}
