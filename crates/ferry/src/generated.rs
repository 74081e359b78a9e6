//! What is made from the definition of the command line and from types: completions, manual pages, schemas.

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Arguments, CompletionsArguments, ManArguments, SchemaOf};
use crate::exit::Exit;
use crate::{records, say};

/// Runs `ferry completions`.
pub(crate) fn completions(typed: &CompletionsArguments) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(typed.shell, &mut Arguments::command(), "ferry", &mut script);
    say::line(String::from_utf8_lossy(&script).trim_end());
    Exit::Done
}

/// Runs `ferry man`.
pub(crate) fn man(typed: &ManArguments) -> anyhow::Result<Exit> {
    let Some(directory) = &typed.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
        say::line(String::from_utf8_lossy(&page).trim_end());
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), directory))
        .with_context(|| format!("cannot write manual pages to {}", directory.display()))?;
    Ok(Exit::Done)
}

/// Runs `ferry schema`.
pub(crate) fn schema(of: SchemaOf) -> Exit {
    match of {
        SchemaOf::Copy => say::line(&records::json_schema()),
    }
    Exit::Done
}
