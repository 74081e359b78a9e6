//! `ferry client-config` and `ferry resolve`: how a mirror is used.

use ferry_policy::address::Form;
use ferry_policy::clients::{Command, Language, Note, Syntax, Way};
use serde::Serialize;

use crate::cli::Output;
use crate::exit::Exit;
use crate::settings::{ClientConfig, Resolve};

/// Runs `ferry client-config`. What is said of the files stands in them as comments where they may have some, so that one file
/// can be written as it is.
pub(crate) fn client_config(settings: &ClientConfig) -> anyhow::Result<Exit> {
    let configuration = settings.mirror.configuration(settings.client, &settings.only)?;
    let comments = !configuration.snippets.iter().any(|snippet| snippet.syntax == Syntax::Json);
    let notes = configuration.notes.iter().map(plain);
    match comments {
        true => notes.for_each(|note| say!("# {note}")),
        false => notes.for_each(|note| note!("{note}")),
    }
    for snippet in &configuration.snippets {
        let (file, text) = (&snippet.file, snippet.text.trim_end());
        match comments {
            true => say!("\n# {file}\n{text}"),
            false => {
                note!("{file}:");
                say!("{text}");
            }
        }
    }
    Ok(Exit::Done)
}

fn plain(note: &Note) -> String {
    note.text(Language::English).replace('`', "")
}

/// What `ferry resolve --output json` prints.
#[derive(Debug, Serialize)]
struct Resolved {
    image: String,
    mirror: String,
    modes: Vec<Mode>,
}

#[derive(Debug, Serialize)]
struct Mode {
    mode: &'static str,
    /// What the image is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Why it has no name in this mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    commands: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    tool: &'static str,
    command: String,
}

/// Runs `ferry resolve`. It is a mistake to ask for an image that has no name at the mirror in any wanted mode.
pub(crate) fn resolve(settings: &Resolve) -> anyhow::Result<Exit> {
    let modes = Form::ALL.into_iter().filter(|form| settings.mode.is_none_or(|mode| mode == *form));
    let ways: Vec<Way> = modes.map(|form| settings.mirror.way(&settings.image, form)).collect();
    if let Some(Way { name: Err(error), .. }) = ways.first()
        && ways.iter().all(|way| way.name.is_err())
    {
        return Err(error.clone().into());
    }
    match settings.output {
        Output::Text => ways.iter().for_each(show),
        Output::Json => {
            let resolved = Resolved {
                image: settings.image.to_string(),
                mirror: settings.mirror.url().to_string(),
                modes: ways.into_iter().map(Mode::from).collect(),
            };
            say!("{}", serde_json::to_string_pretty(&resolved)?);
        }
    }
    Ok(Exit::Done)
}

fn show(way: &Way) {
    match &way.name {
        Ok(name) => say!("{}: {name}", way.form),
        Err(error) => say!("{}: none; {error}", way.form),
    }
    way.commands.iter().for_each(|command| say!("    {}", command.line));
}

impl From<Way> for Mode {
    fn from(way: Way) -> Self {
        let line = |Command { tool, line }: Command| Line { tool: tool.as_str(), command: line };
        let reason = way.name.as_ref().err().map(ToString::to_string);
        Self {
            mode: way.form.as_str(),
            name: way.name.ok().map(|name| name.to_string()),
            reason,
            commands: way.commands.into_iter().map(line).collect(),
        }
    }
}
