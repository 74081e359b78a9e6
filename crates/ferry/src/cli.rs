//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "Exit codes: 0 all done; 1 some images failed; 2 wrong usage or configuration; \
3 stopped with work left; 4 everything failed.";

/// Moves container images to where people can pull them.
#[derive(Debug, Parser)]
#[command(name = "ferry", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Say more on standard error: -v what is tried again, -vv every request
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Copy(CopyArguments),
    Serve(ServeArguments),
}

/// Copy images between registries and OCI layout directories.
///
/// SOURCE and TARGET are image references as Docker writes them (alpine, quay.io/a/b:1.0, host:5000/a@sha256:…) or
/// oci:DIR[:TAG] for an OCI image layout directory. A TARGET without tag gets the tag of the source. All platforms of
/// an image are copied, byte for byte. A copy that was cut short goes on where it stopped when it is started again.
///
/// Credentials are those of `docker login`. Loopback registries are spoken to in plain HTTP, all others in HTTPS.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct CopyArguments {
    /// The image to copy
    #[arg(required_unless_present = "from_file", requires = "target")]
    pub(crate) source: Option<String>,
    /// Where to copy it
    pub(crate) target: Option<String>,
    /// Copy the images listed in a file (- for standard input): SOURCE and TARGET on each line, # begins a comment
    #[arg(long, value_name = "LIST", conflicts_with_all = ["source", "target"])]
    pub(crate) from_file: Option<PathBuf>,
    /// Check every blob and manifest at the target, even of images that look unchanged
    #[arg(long)]
    pub(crate) recheck: bool,
    /// Stop in good time before so much time has passed, keep what was moved, and exit with 3: 45m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) budget: Option<Duration>,
    /// Blobs moved, and connections content is fetched over, at once; 1 to 64
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
    /// Fetch and send at most so many bytes a second, each way: 500kB, 2MiB
    #[arg(long, value_name = "RATE")]
    pub(crate) limit_rate: Option<ByteSize>,
    /// Read what REGISTRY holds from MIRROR first; may be repeated, and mirrors are asked in order
    #[arg(long = "mirror", value_name = "REGISTRY=MIRROR[/PREFIX]")]
    pub(crate) mirrors: Vec<String>,
    /// Where unfinished large blobs are kept between runs [default: ~/.local/state/ferry]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Disk space that unfinished blobs may take; beyond it they go through memory [default: half of what is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) spool_limit: Option<ByteSize>,
}

/// Serve a directory as a registry that anything can push to and pull from.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The directory that holds the images; created if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) storage: PathBuf,
    /// The address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    pub(crate) listen: String,
    /// Allow an address that others can reach, although anyone there may then push and delete
    #[arg(long)]
    pub(crate) open: bool,
}
