use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};

use super::wish::Wish;

/// What `--from-file` asks for.
pub(super) fn read_list(path: &Path) -> anyhow::Result<Vec<Wish>> {
    let (name, text) = read_text(path)?;
    parse_list(&name, &text)
}

/// What a list is called, and what is in it.
pub(super) fn read_text(path: &Path) -> anyhow::Result<(String, String)> {
    Ok(if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the list from standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        (path.display().to_string(), text)
    })
}

/// What a list that is called `name` asks for.
pub(super) fn parse_list(name: &str, text: &str) -> anyhow::Result<Vec<Wish>> {
    let mut wishes = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let place = format!("{name}, line {number}");
        let wish = match words[..] {
            [] => continue,
            [source] => Wish::new(source, None),
            [source, target] => Wish::new(source, Some(target)),
            _ => bail!("{place}: expected SOURCE or SOURCE TARGET, found {} words", words.len()),
        };
        wishes.push(wish.with_context(|| place.clone())?.at(place));
    }
    if wishes.is_empty() {
        bail!("{name} lists no image; write SOURCE, SOURCE TARGET or SOURCE$NAME:TAG on each line");
    }
    Ok(wishes)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::settings::aim::Aim;
    use crate::settings::platforms::Choice;

    fn targets(list: &str) -> Vec<String> {
        let aim = Aim::new(Some("localhost:5000/m"), None).unwrap();
        let wishes = parse_list("list", list).unwrap();
        wishes.iter().map(|wish| wish.pair(aim.as_ref(), &Choice::ALL).unwrap().target.to_string()).collect()
    }

    #[test]
    fn the_tag_comes_along() {
        let list = "\u{feff}# a comment\n\nalpine:3 localhost:5000/alpine   # another\nalpine oci:dir\r\noci:dir localhost:5000/x\n\
                    oci:dir:v1 localhost:5000/x\nalpine:3 localhost:5000/y:z\nquay.io/a/b:v1\nquay.io/a/b:v1$c\n\
                    quay.io/a/b:v1$c/d:v2\n";
        assert_eq!(
            targets(list),
            [
                "localhost:5000/alpine:3",
                "oci:dir:latest",
                "localhost:5000/x",
                "localhost:5000/x:v1",
                "localhost:5000/y:z",
                "localhost:5000/m/a/b:v1",
                "localhost:5000/m/c:v1",
                "localhost:5000/m/c/d:v2",
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (list, message) in [
            ("", "list lists no image"),
            ("a x/b\nquay.io/c\n", "list, line 2: quay.io/c: no target"),
            ("a x/b\nquay.io/c$d\n", "list, line 2: quay.io/c: no target"),
            ("a x/b c\n", "list, line 1: expected SOURCE or SOURCE TARGET, found 3 words"),
            ("a$b x/c\n", "list, line 1: a$b x/c: "),
            ("a localhost:5000\n", "list, line 1: localhost:5000: a target is NAMESPACE/NAME"),
            ("a$B\n", "list, line 1: \"B\" is not a valid name"),
            ("\nquay.io/A x/c\n", "list, line 2: \"quay.io/A\" is not a valid image reference"),
        ] {
            let error = parse_list("list", list).and_then(|wishes| {
                wishes.iter().map(|wish| wish.pair(None, &Choice::ALL)).collect::<anyhow::Result<Vec<_>>>()
            });
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.starts_with(message), "{error}");
        }
    }
}
