use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};

use super::copy::{Pair, pair};

/// The pairs of `--from-file`.
pub(super) fn read_list(path: &Path) -> anyhow::Result<Vec<Pair>> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the list from standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        (path.display().to_string(), text)
    };
    parse_list(&name, &text)
}

/// The pairs of a list that is called `name`.
pub(super) fn parse_list(name: &str, text: &str) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let place = || format!("{name}, line {number}");
        match words[..] {
            [] => {}
            [source, target] => pairs.push(pair(source, target).with_context(place)?),
            _ => bail!("{}: expected SOURCE TARGET, found {} words", place(), words.len()),
        }
    }
    if pairs.is_empty() {
        bail!("{name} lists no image; write SOURCE and TARGET on each line");
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(list: &str) -> Vec<String> {
        parse_list("list", list).unwrap().iter().map(|pair| pair.target.to_string()).collect()
    }

    #[test]
    fn the_tag_comes_along() {
        let list = "# a comment\n\nalpine:3 localhost:5000/alpine   # another\nalpine oci:dir\noci:dir localhost:5000/x\n\
                    oci:dir:v1 localhost:5000/x\nalpine:3 localhost:5000/y:z\n";
        assert_eq!(
            targets(list),
            [
                "localhost:5000/alpine:3",
                "oci:dir:latest",
                "localhost:5000/x",
                "localhost:5000/x:v1",
                "localhost:5000/y:z"
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (list, message) in [
            ("", "list lists no image"),
            ("a b\nc\n", "list, line 2: expected SOURCE TARGET, found 1 words"),
            ("a b c\n", "list, line 1: expected SOURCE TARGET, found 3 words"),
            ("\nquay.io/A c\n", "list, line 2"),
        ] {
            let error = parse_list("list", list).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
