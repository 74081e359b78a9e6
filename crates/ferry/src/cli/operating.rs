//! What can be asked of a running mirror.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ferry_policy::platforms::Pattern;

use super::Output;

/// Let a running mirror fetch images before anybody asks for them.
///
/// Images are named by the registry that they come from, and fetched whole: index, manifests, blobs, and what refers to them as
/// signatures do. They are fetched by the mirror, which goes on if this command is stopped.
#[derive(Debug, Args)]
pub(crate) struct WarmArguments {
    /// The images, as docker pull names them
    #[arg(value_name = "IMAGE", required_unless_present = "from_file")]
    pub(crate) images: Vec<String>,
    /// Fetch the images that a file lists (- for standard input), one on each line; a list for ferry copy will do
    #[arg(long, value_name = "LIST", conflicts_with = "images")]
    pub(crate) from_file: Option<PathBuf>,
    /// Fetch only this platform of each image: linux/arm64, linux/arm/v7, amd64; may be repeated [default: all]
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<Pattern>,
    #[command(flatten)]
    pub(crate) admin: AdminArguments,
}

/// Where the mirror is.
#[derive(Debug, Args)]
pub(crate) struct AdminArguments {
    /// The admin API of the mirror: http://127.0.0.1:5001 [default: serve: admin in the configuration]
    #[arg(long, value_name = "URL")]
    pub(crate) admin: Option<String>,
    /// The file that holds its token [default: serve: admin in the configuration]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// Look after the cache of a running mirror.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheVerb {
    /// List the images in it
    List(ListArguments),
    /// Remove images from it; whoever is fetching them gets them whole
    Drop(CachedArguments),
    /// Keep images from being removed when room is needed, whether they are there yet or not
    Pin(CachedArguments),
    /// Let images be removed again when room is needed
    Unpin(CachedArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only those of this registry
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArguments,
}

#[derive(Debug, Args)]
pub(crate) struct CachedArguments {
    /// The images, named by the registry that they come from
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArguments,
}
