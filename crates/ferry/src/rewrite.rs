//! `ferry rewrite`: the new names of images in the files that name them.

mod find;

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use ferry_oci::ImageReference;

use crate::exit::Exit;
use crate::settings::{Rewrite, tagged};
use find::Found;

/// What Istio fills in by itself.
const FILLED_IN: &str = "auto";

/// Runs `ferry rewrite`. Nothing is printed unless everything can be.
pub(crate) fn rewrite(settings: &Rewrite) -> anyhow::Result<Exit> {
    let mut printed = String::new();
    let mut images: Vec<String> = Vec::new();
    let mut taken = Taken::new();
    for path in &settings.files {
        let (name, text) = read(path)?;
        let found = find::find(&text).map_err(|error| not_yaml(&name, &error))?;
        let found = found.into_iter().filter(|found| is_fixed(&name, found));
        if settings.list {
            for found in found {
                if !images.contains(&found.image) {
                    images.push(found.image);
                }
            }
        } else {
            append(&mut printed, &replaced((&name, &text), found, settings, &mut taken)?);
        }
    }
    printed += &images.join("\n");
    say!("{}", printed.strip_suffix('\n').unwrap_or(&printed));
    Ok(Exit::Done)
}

fn read(path: &Path) -> anyhow::Result<(String, String)> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(("standard input".to_owned(), text));
    }
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}

fn not_yaml(name: &str, error: &granit_parser::ScanError) -> anyhow::Error {
    let (line, column) = (error.marker().line(), error.marker().col() + 1);
    anyhow::anyhow!(
        "{name}:{line}:{column}: this is not YAML: {}; render templates first, as with helm template",
        error.info()
    )
}

/// Whether the value says which image it is, and not what fills it in.
fn is_fixed(name: &str, found: &Found) -> bool {
    if found.image.contains('$') {
        note!(
            "warning: {name}:{}:{}: {} has variables and stays as it is; fill them in first, as with docker compose config",
            found.line,
            found.column,
            found.image
        );
    }
    !found.image.contains('$') && found.image != FILLED_IN
}

/// Images by the new names that they have got.
type Taken = HashMap<ImageReference, ImageReference>;

fn replaced(
    (name, text): (&str, &str),
    found: impl Iterator<Item = Found>,
    settings: &Rewrite,
    taken: &mut Taken,
) -> anyhow::Result<String> {
    let (mut new, mut copied) = (String::with_capacity(text.len()), 0);
    for found in found {
        let place = || format!("{name}:{}:{}", found.line, found.column);
        let image: ImageReference = found.image.parse().with_context(place)?;
        let Some(renamed) = settings.renamed(&image).with_context(place)? else { continue };
        let image = tagged(image);
        // A copy refuses them as well, but may not have been asked for both.
        if let Some(other) = taken.insert(renamed.clone(), image.clone())
            && other != image
        {
            bail!("{}: {other} and {image} would both become {renamed}", place());
        }
        new += &text[copied..found.bytes.start];
        new += &quoted(&renamed.to_string(), found.quote);
        copied = found.bytes.end;
    }
    new += &text[copied..];
    Ok(new)
}

/// A name in the quotes that the old one had, or in some if it needs them: an IPv6 address begins as a list does.
fn quoted(image: &str, quote: Option<char>) -> String {
    match quote.or_else(|| image.starts_with('[').then_some('"')) {
        Some(quote) => format!("{quote}{image}{quote}"),
        None => image.to_owned(),
    }
}

/// Another file as documents of its own.
fn append(printed: &mut String, text: &str) {
    if !printed.is_empty() {
        if !printed.ends_with('\n') {
            printed.push('\n');
        }
        if !text.starts_with("---") {
            printed.push_str("---\n");
        }
    }
    printed.push_str(text);
}
