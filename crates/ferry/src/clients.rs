//! `ferry client-config` and `ferry resolve`: how a mirror is used.

use ferry_policy::address::Form;
use ferry_policy::clients::{Language, Note, Syntax, Way, described};

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
            let described = described(&settings.image, settings.mirror.url(), &ways);
            say!("{}", serde_json::to_string_pretty(&described)?);
        }
    }
    Ok(Exit::Done)
}

fn show(way: &Way) {
    match &way.name {
        // It has a name, and nobody who would use it.
        Ok(_) if way.commands.is_empty() => {
            say!("{}: none; Docker asks mirrors only for images of Docker Hub", way.form);
        }
        Ok(name) => say!("{}: {name}", way.form),
        Err(error) => say!("{}: none; {error}", way.form),
    }
    way.commands.iter().for_each(|command| say!("    {}", command.line));
}
