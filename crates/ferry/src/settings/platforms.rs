use anyhow::bail;
use ferry_policy::platforms::{Mode, Pattern, Selection};

/// Which platforms of images are wanted: `--platform` and `--platform-mode`.
#[derive(Debug, Clone)]
pub(crate) struct Platforms {
    choices: Vec<Choice>,
}

/// What is wanted of an image, and what stands for `{platform}` in its name.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// `None` for all platforms.
    pub(super) selection: Option<Selection>,
    pub(super) name: Option<String>,
}

impl Choice {
    /// All platforms.
    pub(super) const ALL: Self = Self { selection: None, name: None };
}

impl Platforms {
    /// One choice of all that was typed, or, where each platform is an image of its own, one for each.
    pub(super) fn new(patterns: Vec<Pattern>, mode: Mode) -> anyhow::Result<Self> {
        let choose = |patterns: Vec<Pattern>| -> anyhow::Result<Choice> {
            let name = match &patterns[..] {
                [one] => Some(one.to_string()),
                _ => None,
            };
            Ok(Choice { selection: Some(Selection::new(patterns, mode)?), name })
        };
        let choices = match (patterns.is_empty(), mode) {
            (true, _) => vec![Choice::ALL],
            (false, Mode::Single) => {
                patterns.into_iter().map(|one| choose(vec![one])).collect::<anyhow::Result<_>>()?
            }
            (false, Mode::Rewrite | Mode::Sparse) => vec![choose(patterns)?],
        };
        Ok(Self { choices })
    }

    /// Refuses names that cannot say what they shall.
    pub(super) fn check_naming(&self, tells_platforms_apart: bool) -> anyhow::Result<()> {
        match (&self.choices[..], tells_platforms_apart) {
            ([], _) | ([_, _, ..], true) | ([Choice { name: Some(_), .. }], _) | ([_], false) => Ok(()),
            ([_, _, ..], false) => bail!(
                "several platforms with --platform-mode single become several images: \
                 tell them apart with {{platform}} in --naming, as in '{{basename}}-{{platform}}'"
            ),
            ([_], true) => bail!(
                "--naming: {{platform}} stands for one platform; choose one with --platform, \
                 or several with --platform-mode single, each of which becomes an image"
            ),
        }
    }

    pub(super) fn choices(&self) -> &[Choice] {
        &self.choices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_can() {
        for (patterns, mode, apart, images) in [
            (&[][..], Mode::Rewrite, false, Some(1)),
            (&[], Mode::Rewrite, true, None),
            (&["amd64"], Mode::Rewrite, true, Some(1)),
            (&["amd64", "arm64"], Mode::Rewrite, false, Some(1)),
            (&["amd64", "arm64"], Mode::Sparse, true, None),
            (&["amd64"], Mode::Single, false, Some(1)),
            (&["amd64", "arm64"], Mode::Single, false, None),
            (&["amd64", "arm64"], Mode::Single, true, Some(2)),
        ] {
            let platforms = patterns.iter().map(|text| text.parse().unwrap()).collect();
            let platforms = Platforms::new(platforms, mode).unwrap();
            let many = platforms.check_naming(apart).map(|()| platforms.choices().len());
            assert_eq!(many.ok(), images, "{patterns:?} {mode}");
        }
    }
}
