use std::fmt;
use std::str::FromStr;

use ferry_oci::{ImageReference, Malformed, Tag};
use serde_json::{Value, json};

use super::{PublicUrl, Pull, Reached, Tool, shell_word};
use crate::address::{Form, Unmirrored};
use crate::cut;

/// One way to an image.
#[derive(Debug, Clone)]
pub struct Way {
    /// How the client says what it wants.
    pub form: Form,
    /// What it calls the image, or why there is no such way.
    pub name: Result<ImageReference, Unmirrored>,
    /// What can be typed; nothing if there is no such way. Clients that do not name the mirror have to be configured first.
    pub commands: Vec<Command>,
}

/// A line for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program that it is about.
    pub tool: Tool,
    /// All of it.
    pub line: String,
}

impl Form {
    /// All of them: those that need nothing but the name first.
    pub const ALL: [Self; 4] = [Self::Prefix, Self::AliasHost, Self::Namespace, Self::Transparent];

    /// Its name in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::AliasHost => "alias-host",
            Self::Namespace => "namespace",
            Self::Transparent => "transparent",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Form {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let found = Self::ALL.into_iter().find(|form| form.as_str() == text);
        found.ok_or_else(|| Malformed {
            what: "mode",
            input: cut(text),
            reason: format!("there are {}", Self::ALL.map(Self::as_str).join(", ")),
        })
    }
}

/// Ways to an image as JSON, the same wherever it is shown.
pub fn described(image: &ImageReference, mirror: &PublicUrl, ways: &[Way]) -> Value {
    let command = |one: &Command| json!({"tool": one.tool.as_str(), "command": one.line});
    let mode = |way: &Way| {
        let commands: Vec<Value> = way.commands.iter().map(command).collect();
        match &way.name {
            Ok(name) => json!({"mode": way.form.as_str(), "name": name.to_string(), "commands": commands}),
            Err(error) => {
                json!({"mode": way.form.as_str(), "reason": error.to_string(), "commands": commands})
            }
        }
    };
    let modes: Vec<Value> = ways.iter().map(mode).collect();
    json!({"image": image.to_string(), "mirror": mirror.to_string(), "modes": modes})
}

impl Reached {
    /// All ways to an image.
    pub fn ways(&self, image: &ImageReference) -> [Way; 4] {
        Form::ALL.map(|form| self.way(image, form))
    }

    /// One way to an image.
    pub fn way(&self, image: &ImageReference, form: Form) -> Way {
        let name = self.name(image, form);
        let commands = name.as_ref().map(|name| self.commands(image, name, form)).unwrap_or_default();
        Way { form, name, commands }
    }

    fn commands(&self, image: &ImageReference, name: &ImageReference, form: Form) -> Vec<Command> {
        let (own_name, named) = (tagged(image), named(image));
        let tools: &[Tool] = match form {
            Form::Prefix | Form::AliasHost => &Tool::ALL,
            Form::Namespace => &[Tool::Ctr, Tool::Nerdctl, Tool::Crictl],
            // dockerd asks a mirror for nothing else.
            Form::Transparent if image.registry.is_docker_hub() => &[Tool::Docker],
            Form::Transparent => &[],
        };
        let line = |tool: Tool| match (form, tool) {
            (Form::Namespace | Form::Transparent, _) => own(tool, &own_name),
            (Form::Prefix | Form::AliasHost, _) => {
                // An image that is asked for by digest alone has no name to be given back.
                let names = named.tag.is_some().then(|| ImageReference { digest: None, ..named.clone() });
                let plain_http = !self.url.is_secure();
                Pull { from: &tagged(name), names: names.as_slice(), plain_http }.with(tool)
            }
        };
        tools.iter().map(|&tool| Command { tool, line: line(tool) }).collect()
    }
}

/// An image by its own name, for a client that is configured to ask the mirror.
fn own(tool: Tool, image: &ImageReference) -> String {
    let word = shell_word(&tool.shown(image));
    match tool {
        // Of all that speak to containerd it alone does not look there.
        Tool::Ctr => format!("ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d {word}"),
        Tool::Nerdctl => format!("nerdctl -n k8s.io pull {word}"),
        Tool::Docker | Tool::Crictl | Tool::Podman | Tool::Skopeo => format!("{tool} pull {word}"),
    }
}

/// The name that an image gets, with the tag that it has if none is written; none if it is asked for by digest alone.
fn named(image: &ImageReference) -> ImageReference {
    let tag = image.tag.clone().or_else(|| image.digest.is_none().then(Tag::latest));
    ImageReference { tag, ..image.clone() }
}

/// The image with the tag that it has if none is written. The digest goes before a tag, and not all tools take both.
fn tagged(image: &ImageReference) -> ImageReference {
    match (&image.tag, image.digest) {
        (None, None) => ImageReference { tag: Some(Tag::latest()), ..image.clone() },
        (Some(_), Some(_)) => ImageReference { tag: None, ..image.clone() },
        _ => image.clone(),
    }
}
