//! What can be typed about what is shown.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Output, SHOWN};

/// Whether output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR or CLICOLOR=0 is set
    Auto,
    /// Also in files and pipes
    Always,
    /// Not at all
    Never,
}

/// How it is shown where a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Bars on a terminal, elsewhere a line every 30 seconds
    Auto,
    /// A line every 30 seconds
    Plain,
    /// Nothing
    None,
}

/// A program that pulls images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    Docker,
    /// The tool of containerd, for the images of Kubernetes
    Ctr,
    /// For the images of Kubernetes
    Nerdctl,
    /// Of Kubernetes; it cannot give an image the name of its source
    Crictl,
    Podman,
}

impl From<Tool> for ferry_policy::clients::Tool {
    fn from(tool: Tool) -> Self {
        match tool {
            Tool::Docker => Self::Docker,
            Tool::Ctr => Self::Ctr,
            Tool::Nerdctl => Self::Nerdctl,
            Tool::Crictl => Self::Crictl,
            Tool::Podman => Self::Podman,
        }
    }
}

/// What a copy shows.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShownArguments {
    /// How results are printed; ferry schema copy describes the JSON lines
    #[arg(long, value_enum, default_value = "text", help_heading = SHOWN)]
    pub(crate) output: Output,
    /// How progress is shown, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto", help_heading = SHOWN)]
    pub(crate) progress: Progress,
    /// Print commands that pull each image from the target, or load the archive, for these tools
    #[arg(long, value_enum, value_name = "TOOL,...", value_delimiter = ',', help_heading = SHOWN)]
    pub(crate) commands: Vec<Tool>,
}

/// Print completions for a shell: ferry completions bash > /etc/bash_completion.d/ferry
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page of ferry, or write those of all its commands into a directory.
#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Write the pages here: /usr/local/share/man/man1
    pub(crate) directory: Option<PathBuf>,
}

/// Print the JSON schema of what a command prints.
#[derive(Debug, Args)]
pub(crate) struct SchemaArguments {
    /// The command
    pub(crate) of: SchemaOf,
}

/// What has a schema of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// Each line of ferry copy --output json
    Copy,
}
