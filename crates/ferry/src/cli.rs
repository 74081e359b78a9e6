//! What can be typed.

mod clients;
mod operating;
mod shown;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ferry_policy::platforms::{Mode, Pattern};

use crate::config::Size;

pub(crate) use clients::{ClientConfigArguments, ResolveArguments};
pub(crate) use operating::{AdminArguments, CacheVerb, WarmArguments};
pub(crate) use shown::{
    CompletionsArguments, ManArguments, Progress, SchemaArguments, SchemaOf, ShownArguments, Tool, When,
};

const EXIT_CODES: &str = "Exit codes: 0 all done; 1 some images failed; 2 wrong usage or configuration; \
3 stopped with work left; 4 everything failed.";

/// What options are about, in the order of the help of ferry copy.
const WHICH: &str = "Which images, and where to";
const WHAT: &str = "What of them";
const MEANS: &str = "Time, room and speed";
pub(crate) const SHOWN: &str = "What is shown";
const ALWAYS: &str = "Options of all commands";

/// Moves container images to where people can pull them.
#[derive(Debug, Parser)]
#[command(name = "ferry", version, after_help = EXIT_CODES, disable_help_flag = true, arg(help_flag()))]
pub(crate) struct Arguments {
    /// Say more on standard error: -v what is tried again, -vv every request
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = ALWAYS)]
    pub(crate) verbose: u8,
    /// The configuration [default: $FERRY_CONFIG, ~/.config/ferry/ferry.yaml or /etc/ferry/ferry.yaml, if there]
    #[arg(long, global = true, value_name = "FILE", help_heading = ALWAYS)]
    pub(crate) config: Option<PathBuf>,
    /// Colour the status of images and hints
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto", help_heading = ALWAYS)]
    pub(crate) color: When,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Copy(CopyArguments),
    Rewrite(RewriteArguments),
    Serve(ServeArguments),
    ClientConfig(ClientConfigArguments),
    Resolve(ResolveArguments),
    Warm(WarmArguments),
    #[command(subcommand)]
    Cache(CacheVerb),
    Inspect(InspectArguments),
    Tags(TagsArguments),
    Delete(DeleteArguments),
    Login(LoginArguments),
    Logout(LogoutArguments),
    #[command(subcommand)]
    Storage(StorageVerb),
    #[command(subcommand)]
    User(UserVerb),
    #[command(subcommand)]
    Config(ConfigVerb),
    Schema(SchemaArguments),
    Completions(CompletionsArguments),
    Man(ManArguments),
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Show what an image is made of: indexes, manifests, layers, referrers, with their sizes.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The image, as for ferry copy
    pub(crate) image: String,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: Output,
    /// Do not ask for referrers (signatures, attestations, SBOMs), which takes a request for each manifest
    #[arg(long)]
    pub(crate) no_referrers: bool,
}

/// List the tags of a repository, or the images in a layout or archive.
#[derive(Debug, Args)]
pub(crate) struct TagsArguments {
    /// The repository: quay.io/team/app; or oci:DIR, oci-archive:FILE, docker-archive:FILE
    pub(crate) repository: String,
    /// How to print them
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// Remove an image from a registry or an OCI layout: its tag, or by digest the manifest with all its tags.
///
/// The content stays until the registry collects what nothing needs any more.
#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    /// The image, with its tag or its digest
    pub(crate) image: String,
    /// Do not ask first
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How to print what was done
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// Log in to a registry; the password comes from standard input.
///
/// The login is tried, and kept where docker login keeps it, so that docker and podman find it too.
#[derive(Debug, Args)]
pub(crate) struct LoginArguments {
    /// The registry as references name it: docker.io, quay.io, registry.example.com:5000
    pub(crate) registry: String,
    /// The user name; asked for on a terminal if it is not given
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Not needed: the password always comes from standard input. Accepted for those used to docker
    #[arg(long, hide = true)]
    pub(crate) password_stdin: bool,
    /// Keep the login in this file [default: $REGISTRY_AUTH_FILE, else $DOCKER_CONFIG/config.json, else
    /// ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

/// Forget the login to a registry.
#[derive(Debug, Args)]
pub(crate) struct LogoutArguments {
    /// The registry as references name it
    pub(crate) registry: String,
    /// The file that the login is kept in
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

/// Keep the directory of ferry serve in order. While ferry serve runs, it does so by itself.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageVerb {
    /// Compare what is on the disk with what should be, and say what is damaged
    Check(CheckArguments),
    /// Remove what nothing needs any more
    Gc(GcArguments),
    /// Say how much there is
    Stats(StatsArguments),
}

/// Where the images are.
#[derive(Debug, Args)]
pub(crate) struct StorageArguments {
    /// The directory that holds the images [default: serve: storage in the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) storage: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) of: StorageArguments,
    /// Take damaged content out, so that clients are told that it is missing and push it again; its files go to
    /// DIR/damaged
    #[arg(long)]
    pub(crate) repair: bool,
    /// Look at sizes only, and do not read everything
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    #[command(flatten)]
    pub(crate) of: StorageArguments,
    /// Also remove manifests that no tag has led to for so long: 30d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) untagged_older_than: Option<Duration>,
    /// Blobs that no manifest names stay for so long, because a push brings them first [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) grace: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    #[command(flatten)]
    pub(crate) of: StorageArguments,
}

/// Say who can log in to ferry serve. A server that runs learns of it when it reads its configuration again.
#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Add a user, or change the password; the password comes from standard input
    Add(UserArguments),
    /// Remove a user
    Remove(UserArguments),
}

#[derive(Debug, Args)]
pub(crate) struct UserArguments {
    /// The name of the user
    pub(crate) name: String,
    /// The file of users; created if missing [default: serve: access: users in the configuration]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Look at the configuration, ferry.yaml.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Say whether the configuration is right, or where it is not
    Check,
    /// Show the configuration that is in force; secrets are shown as where they come from
    Show,
    /// Print the JSON schema of the configuration, for editors
    Schema,
}

/// Copy images between registries, OCI layout directories and archives.
///
/// SOURCE and TARGET are image references as Docker writes them (alpine, quay.io/a/b:1.0, host:5000/a@sha256:…),
/// oci:DIR[:TAG] for an OCI image layout directory, oci-archive:FILE for one in a tar file, docker-archive:FILE for what docker
/// load and docker save know. A TARGET without tag gets the tag of the source. All platforms of an image are copied, byte for
/// byte, with its signatures and other referrers. A copy that was cut short goes on where it stopped when it is started again.
///
/// Credentials come from FERRY_SOURCE_USERNAME and FERRY_SOURCE_PASSWORD, FERRY_TARGET_USERNAME and
/// FERRY_TARGET_PASSWORD, from the configuration, or from ferry login, docker login and podman login. Loopback
/// registries are spoken to in plain HTTP, all others in HTTPS, unless the configuration says otherwise.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, override_usage = "ferry copy [OPTIONS] SOURCE TARGET\n       \
    ferry copy [OPTIONS] --to PREFIX SOURCE...\n       ferry copy [OPTIONS] --from-file LIST [--to PREFIX]")]
pub(crate) struct CopyArguments {
    /// The image to copy, and where to; with --to, the images to copy, each as SOURCE or SOURCE$NAME[:TAG]
    #[arg(value_name = "SOURCE TARGET", required_unless_present = "from_file")]
    pub(crate) images: Vec<String>,
    /// Where images go that have no TARGET: REGISTRY[/NAMESPACE], oci:DIR, oci-archive:FILE or docker-archive:FILE
    #[arg(long, value_name = "PREFIX", help_heading = WHICH)]
    pub(crate) to: Option<String>,
    /// What images are called below --to: keep (repository path), dots (registry.k8s.io.pause), underscores
    /// (registry.k8s.io_pause), basename (pause), or a template of {registry}, {repository}, {basename}, {tag}, {platform}
    /// [default: keep; in layouts and archives the whole name]
    #[arg(long, value_name = "NAMING", help_heading = WHICH)]
    pub(crate) naming: Option<String>,
    /// Copy the images that a file lists (- for standard input), on each line SOURCE, SOURCE TARGET or SOURCE$NAME[:TAG];
    /// # begins a comment
    #[arg(long, value_name = "LIST", conflicts_with = "images", help_heading = WHICH)]
    pub(crate) from_file: Option<PathBuf>,
    /// Copy all tags of each SOURCE
    #[arg(long, help_heading = WHICH)]
    pub(crate) all_tags: bool,
    /// Say what would be copied, and how much, and copy nothing
    #[arg(long, help_heading = WHICH)]
    pub(crate) dry_run: bool,
    /// Copy only this platform of each image: linux/arm64, linux/arm/v7, amd64; may be repeated [default: all]
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',', help_heading = WHAT)]
    pub(crate) platforms: Vec<Pattern>,
    /// What becomes of the list of platforms, the index: rewrite cuts it down, so its digest changes; sparse keeps it and
    /// brings only the chosen platforms, which not every registry takes; single copies the one platform without it
    #[arg(long, value_name = "MODE", requires = "platforms", default_value_t, help_heading = WHAT)]
    pub(crate) platform_mode: Mode,
    /// Copy images without what belongs to them: referrers and cosign's tags (signatures, attestations, SBOMs)
    #[arg(long, help_heading = WHAT)]
    pub(crate) no_referrers: bool,
    /// Leave out of an archive what an earlier one holds: FILE, or oci:DIR; may be repeated. The earlier one is to be
    /// imported first
    #[arg(long, value_name = "PREVIOUS", help_heading = WHAT)]
    pub(crate) except: Vec<String>,
    /// Look at every blob and manifest at the target, even of images that look unchanged
    #[arg(long, help_heading = WHAT)]
    pub(crate) recheck: bool,
    /// What targets take: auto goes by their hosts; NAME (huawei-swr, tencent-ccr, ...) where the host does not tell;
    /// strict changes no image for a target, whatever it takes
    #[arg(long, value_name = "PROFILE", help_heading = WHAT)]
    pub(crate) profile: Option<String>,
    /// Stop in good time before so much time has passed, keep what was moved, and exit with 3: 45m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = MEANS)]
    pub(crate) budget: Option<Duration>,
    /// Blobs moved, and connections content is fetched over, at once; 1 to 64
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = MEANS)]
    pub(crate) jobs: u16,
    /// Fetch and send at most so many bytes a second, each way: 500kB, 2MiB
    #[arg(long, value_name = "RATE", value_parser = str::parse::<Size>, help_heading = MEANS)]
    pub(crate) limit_rate: Option<Size>,
    /// Read what REGISTRY holds from MIRROR first; may be repeated, and mirrors are asked in order
    #[arg(long = "mirror", value_name = "REGISTRY=MIRROR[/PREFIX]", help_heading = MEANS)]
    pub(crate) mirrors: Vec<String>,
    /// Where unfinished large blobs, and what was seen of targets, are kept between runs [default: $XDG_STATE_HOME/ferry, else
    /// ~/.local/state/ferry]
    #[arg(long, value_name = "DIR", help_heading = MEANS)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Disk space that unfinished blobs may take; beyond it they go through memory [default: half of what is free]
    #[arg(long, value_name = "SIZE", value_parser = str::parse::<Size>, help_heading = MEANS)]
    pub(crate) spool_limit: Option<Size>,
    #[command(flatten)]
    pub(crate) shown: ShownArguments,
}

/// Print Kubernetes manifests, Helm output or Compose files with the images' names at the target.
///
/// The names are those that ferry copy gives with the same --to, --naming and --from-file. Everything else in the files stays
/// as it is, to the byte.
#[derive(Debug, Args)]
pub(crate) struct RewriteArguments {
    /// The files; standard input if there are none
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Where the images are: REGISTRY[/NAMESPACE]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) to: Option<String>,
    /// What images are called below --to, as for ferry copy
    #[arg(long, value_name = "NAMING")]
    pub(crate) naming: Option<String>,
    /// The names that a list for ferry copy gives come first
    #[arg(long, value_name = "LIST")]
    pub(crate) from_file: Option<PathBuf>,
    /// What {platform} in the naming stands for, as for ferry copy
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Pattern>,
    /// List the images that the files name, one on each line, for ferry copy --from-file
    #[arg(long)]
    pub(crate) list: bool,
}

/// Serve a directory as a registry that anything can push to and pull from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArguments {
    /// The directory that holds the images; created if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) storage: Option<PathBuf>,
    /// The address and port to listen on; port 0 takes a free one [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Allow an address that others can reach, although anyone there may then push and delete
    #[arg(long)]
    pub(crate) open: bool,
    /// Be a mirror of the usual public registries, or of those in the configuration: what is asked for is fetched
    /// once and kept
    #[arg(long)]
    pub(crate) mirror: bool,
    /// Remove manifests that no tag has led to for so long: 30d [default: they stay]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) untagged_older_than: Option<Duration>,
    /// When the images take more room than this, remove what was fetched from elsewhere and not used for longest
    /// [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = str::parse::<Size>)]
    pub(crate) size_limit: Option<Size>,
    /// Let --size-limit remove what was pushed here, too
    #[arg(long)]
    pub(crate) evict_pushed: bool,
}

#[cfg(test)]
impl ServeArguments {
    /// What is typed by somebody who has written everything else into the configuration.
    pub(crate) fn typed(arguments: &[&str]) -> Self {
        let typed = ["ferry", "serve"].iter().chain(arguments);
        match Arguments::try_parse_from(typed) {
            Ok(Arguments { verb: Verb::Serve(typed), .. }) => typed,
            other => panic!("{arguments:?} is for another verb or none: {other:?}"),
        }
    }
}

/// Help that stands where the other options of all commands stand.
fn help_flag() -> clap::Arg {
    clap::Arg::new("help")
        .short('h')
        .long("help")
        .help("Print help; --help says more than -h")
        .action(clap::ArgAction::Help)
        .global(true)
        .help_heading(ALWAYS)
}
