use std::fmt;
use std::str::FromStr;

use ferry_oci::{Malformed, Platform};

/// Architectures that may be written alone, for Linux.
const ARCHITECTURES: [&str; 15] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "sparc64", "wasm",
];

/// A platform as it is asked for: `linux/arm64`, `linux/arm/v7`, `windows(10.0.20348)/amd64`, or an architecture alone,
/// which means Linux.
///
/// Without a variant it matches all variants, with one only that; a platform without variant has the usual one of its
/// architecture (`v1` of amd64, `v8` of arm64, `v7` of arm). The version of an operating system matches itself and
/// everything that goes on after a dot. Architectures may be written as `uname -m` and Debian call them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    os: String,
    version: Option<String>,
    architecture: String,
    variant: Option<String>,
}

impl Pattern {
    /// Whether `platform` is one of those meant.
    pub fn matches(&self, platform: &Platform) -> bool {
        let (architecture, variant) = of_machine(&platform.architecture, platform.variant.as_deref());
        let usual = || usual_variant(&architecture).map(str::to_owned);
        self.os == of_system(&platform.os)
            && self.architecture == architecture
            && (self.variant.is_none() || self.variant == variant.or_else(usual))
            && self.matches_version(platform.os_version.as_deref())
    }

    /// A platform that it matches.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.version.clone(),
            variant: self.variant.clone(),
        }
    }

    fn matches_version(&self, version: Option<&str>) -> bool {
        let Some(asked) = &self.version else { return true };
        let rest = version.and_then(|version| version.strip_prefix(asked.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Display for Pattern {
    /// In the form in which it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Pattern {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: String| Malformed { what: "platform", input: cut(text), reason };
        // Reports write the version of Windows behind a colon.
        let (text, behind) = match text.split_once(':') {
            Some((text, version)) => (text, Some(version)),
            None => (text, None),
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (system, machine, variant) = match parts[..] {
            [alone] => ("linux", check_alone(alone).map_err(bad)?, None),
            [system, machine] => (system, machine, None),
            [system, machine, variant] => (system, machine, Some(variant)),
            _ => return Err(bad("write OS/ARCHITECTURE[/VARIANT], such as linux/arm64".to_owned())),
        };
        let (system, version) = split_version(system, behind).map_err(bad)?;
        for part in [Some(system), version, Some(machine), variant].into_iter().flatten() {
            check_part(part).map_err(bad)?;
        }
        let os = of_system(system);
        if is_architecture(&os) {
            return Err(bad(format!(
                "{os} is an architecture, and the operating system comes first: write linux/{os}"
            )));
        }
        let (architecture, variant) = of_machine(machine, variant);
        Ok(Self { os, version: version.map(str::to_owned), architecture, variant })
    }
}

/// One word: an architecture of Linux.
fn check_alone(word: &str) -> Result<&str, String> {
    let (architecture, _) = of_machine(word, None);
    match is_architecture(&architecture) {
        true => Ok(word),
        false => Err(format!(
            "an architecture alone is one of {}; else write OS/ARCHITECTURE, such as linux/amd64",
            ARCHITECTURES.join(", ")
        )),
    }
}

/// `windows(10.0.17763)` as containerd writes it, unless the version came `behind` everything.
fn split_version<'a>(system: &'a str, behind: Option<&'a str>) -> Result<(&'a str, Option<&'a str>), String> {
    match (system.split_once('('), behind) {
        (None, behind) => Ok((system, behind)),
        (Some((system, rest)), None) => {
            let version =
                rest.strip_suffix(')').ok_or("the bracket after the operating system is not closed")?;
            Ok((system, Some(version)))
        }
        (Some(_), Some(_)) => Err("it names the version of the operating system twice".to_owned()),
    }
}

fn check_part(part: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match part {
        "" => Err("a part of it is empty; write OS/ARCHITECTURE[/VARIANT], such as linux/arm64".to_owned()),
        _ if part.contains(',') => Err("each platform is named on its own".to_owned()),
        _ if part.chars().all(good) => Ok(()),
        _ => Err("its parts are letters, digits, '_', '.' and '-'; there are no wildcards".to_owned()),
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn is_architecture(word: &str) -> bool {
    ARCHITECTURES.contains(&word)
}

/// The operating system in the words of `GOOS`.
fn of_system(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    }
}

/// Architecture in the words of `GOARCH`, and variant, from what people and images write (containerd/platforms
/// `database.go`).
fn of_machine(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
    let (architecture, implied) = match architecture.to_ascii_lowercase().as_str() {
        "i386" => ("386".to_owned(), None),
        "x86_64" | "x86-64" => ("amd64".to_owned(), None),
        "aarch64" => ("arm64".to_owned(), None),
        "armhf" => ("arm".to_owned(), Some("v7")),
        "armel" => ("arm".to_owned(), Some("v6")),
        other => (other.to_owned(), None),
    };
    let is_arm = matches!(architecture.as_str(), "arm" | "arm64");
    let variant = match variant {
        _ if implied.is_some() => implied.map(str::to_owned),
        Some(number) if is_arm && number.starts_with(|c: char| c.is_ascii_digit()) => {
            Some(format!("v{number}"))
        }
        variant => variant,
    };
    (architecture, variant)
}

/// The variant that is meant where none is named.
fn usual_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("v1"),
        "arm64" => Some("v8"),
        "arm" => Some("v7"),
        _ => None,
    }
}

/// The lower, the more machines of today run it well.
pub(super) fn rank(platform: &Platform) -> (u8, Option<String>) {
    let (architecture, variant) = of_machine(&platform.architecture, platform.variant.as_deref());
    let variant = variant.filter(|variant| Some(variant.as_str()) != usual_variant(&architecture));
    let rank = match (architecture.as_str(), variant.as_deref()) {
        (_, None) => 0,
        ("arm", Some("v6")) => 1,
        ("arm", Some("v5")) => 2,
        _ => 3,
    };
    (rank, variant)
}

pub(super) fn is_windows(platform: &Platform) -> bool {
    of_system(&platform.os) == "windows"
}
