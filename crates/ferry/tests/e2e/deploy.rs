//! The templates in `deploy/ci` do what they say: their scripts are taken out of the YAML and run.

mod copying;
mod peers_install;
mod release;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::Ran;

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    assert!(text.is_ok(), "{path} is missing");
    text.unwrap()
}

/// A file that tells a CI system what to do.
struct Template {
    path: &'static str,
    text: String,
    document: Value,
}

impl Template {
    fn read(path: &'static str) -> Self {
        let text = read(path);
        let document = serde_saphyr::from_str(&text);
        assert!(document.is_ok(), "{path}: {document:?}");
        Self { path, text, document: document.unwrap() }
    }

    /// The templates that users copy.
    fn all() -> Vec<Self> {
        ["azure-pipelines", "github-actions", "gitlab-ci", "travis"]
            .map(|name| format!("deploy/ci/{name}.yml"))
            .map(|path| Self::read(path.leak()))
            .into()
    }

    /// What is run by a shell.
    fn scripts(&self) -> Vec<String> {
        let mut found = Vec::new();
        scripts(&self.document, false, &mut found);
        found
    }

    /// The script that holds the lines of `part`.
    fn script(&self, part: &str) -> String {
        let begin = begin(part);
        let mut found: Vec<String> =
            self.scripts().into_iter().filter(|script| script.contains(&begin)).collect();
        assert_eq!(found.len(), 1, "{}: {part}", self.path);
        found.remove(0)
    }
}

fn scripts(value: &Value, runs: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            scripts(value, matches!(key.as_str(), "run" | "bash" | "script" | "install"), found);
        }),
        Value::Array(items) => items.iter().for_each(|item| scripts(item, runs, found)),
        Value::String(text) if runs => found.push(text.clone()),
        _ => {}
    }
}

fn begin(part: &str) -> String {
    format!("# ferry: {part} (these lines are the same in every template)\n")
}

/// The lines of a script that all templates share.
fn shared(script: &str, part: &str) -> String {
    let (_, rest) = script.split_once(&begin(part)).unwrap();
    rest.split_once("# ferry: end\n").unwrap().0.to_owned()
}

/// The directory that a job runs in.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes an executable file.
    fn program(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs a script as CI systems do.
    async fn run(&self, script: &str, variables: &[(&str, &str)]) -> Ran {
        self.run_by(&["bash", "-euo", "pipefail", "-c", script], variables).await
    }

    async fn run_by(&self, command: &[&str], variables: &[(&str, &str)]) -> Ran {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("programs").display());
        let mut run = Command::new(command[0]);
        run.args(&command[1..]).env_clear().env("PATH", path).env("HOME", self.0.path());
        run.envs(variables.iter().copied()).current_dir(self.0.path());
        run.stdin(Stdio::null()).kill_on_drop(true);
        let output = run.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

#[test]
fn templates_share_their_lines() {
    let templates = Template::all();
    for part in ["install", "copy"] {
        let first = shared(&templates[0].script(part), part);
        assert!(first.lines().count() > 8, "{first}");
        for template in &templates {
            assert_eq!(shared(&template.script(part), part), first, "{}: {part}", template.path);
        }
    }
    let own = shared(&read("scripts/install.sh"), "install");
    assert_eq!(own, shared(&templates[0].script("install"), "install"), "scripts/install.sh");
}

#[test]
fn what_is_installed_is_this_version() {
    let templates = Template::all();
    let texts = templates.iter().map(|template| (template.path, template.text.clone()));
    for (path, text) in texts.chain([("scripts/install.sh", read("scripts/install.sh"))]) {
        let version = text.lines().find_map(|line| {
            let line = line.trim().trim_start_matches("- ");
            line.strip_prefix("FERRY_VERSION")?.strip_prefix([':', '='])
        });
        let version = version.unwrap_or_else(|| panic!("{path} names no version"));
        let version = version.trim().trim_start_matches("${FERRY_VERSION:-").trim_matches(['"', '}']);
        assert_eq!(version, env!("CARGO_PKG_VERSION"), "{path}");
    }
}

/// What a template pastes into a script before a shell reads it: `${{ … }}`, and `$(name)` on Azure.
fn pasted(script: &str) -> Option<String> {
    let name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c));
    let macros = script.split("$(").skip(1).filter_map(|rest| rest.split_once(')')).map(|(inside, _)| inside);
    macros.filter(|inside| name(inside)).map(str::to_owned).next().or_else(|| {
        script.split_once("${{").map(|(_, rest)| rest.lines().next().unwrap_or_default().to_owned())
    })
}

#[test]
fn nothing_is_pasted_into_scripts() {
    assert_eq!(pasted("echo $(Build.BuildId)").as_deref(), Some("Build.BuildId"));
    assert_eq!(pasted("echo ${{ inputs.image }}").as_deref(), Some(" inputs.image }}"));
    let workflows = [".github/workflows/ci.yml", ".github/workflows/release.yml"].map(Template::read);
    for template in Template::all().into_iter().chain(workflows) {
        let scripts = template.scripts();
        assert!(!scripts.is_empty(), "{} runs nothing", template.path);
        for script in scripts {
            assert_eq!(pasted(&script), None, "{}: {script}", template.path);
        }
    }
}

#[test]
fn documents_name_every_template() {
    for language in ["en", "zh"] {
        let text = read(&format!("docs/{language}/ci.md"));
        for template in Template::all() {
            assert!(text.contains(&format!("../../{}", template.path)), "{language}: {}", template.path);
        }
    }
}
