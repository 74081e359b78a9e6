//! `ferry delete`: takes an image away.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use ferry_oci::Reference;
use ferry_store::Removed;
use serde_json::json;

use crate::Environment;
use crate::cli::Output;
use crate::config::Registries;
use crate::exit::{self, Exit};
use crate::settings::Delete;
use crate::stores::Stores;

/// Runs `ferry delete`.
pub(crate) async fn delete(
    settings: Delete,
    registries: Registries,
    environment: Environment,
) -> anyhow::Result<Exit> {
    let Delete { image, reference, .. } = &settings;
    let mut stores = Stores::of(settings.of_sides.clone(), registries, environment)?;
    let repository = stores.writer(image)?;
    let found = repository.resolve(reference).await?;
    let digest = found.descriptor.digest;
    if !settings.yes && !confirmed(&what(&settings, &digest.to_string()))? {
        eprintln!("nothing was removed");
        return Ok(Exit::Done);
    }
    match repository.delete_manifest(reference).await? {
        Removed::Yes => {}
        Removed::Unsupported => return Ok(exit::not_removed(image, reference)),
    }
    match settings.output {
        Output::Text => say!("deleted    {image}  {digest}"),
        Output::Json => {
            say!("{}", json!({"image": image.to_string(), "digest": digest, "deleted": true}))
        }
    }
    Ok(Exit::Done)
}

fn what(settings: &Delete, digest: &str) -> String {
    match settings.reference {
        Reference::Tag(_) => format!("remove the tag {} ({digest})?", settings.image),
        Reference::Digest(_) => format!("remove the manifest {} with all tags on it?", settings.image),
    }
}

fn confirmed(question: &str) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("{question} Nobody can be asked here; add --yes if that is meant");
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
