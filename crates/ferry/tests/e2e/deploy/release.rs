//! What the release workflow relies on.

use std::fs;

use serde_json::Value;

use super::{Template, Workspace, read, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[tokio::test(flavor = "multi_thread")]
async fn the_same_program_makes_the_same_archive() {
    let workspace = Workspace::new();
    let program = workspace.program("ferry", "#!/bin/sh\necho a program\n");
    let script = root().join("scripts/release-build");
    let mut archives = Vec::new();
    for out in ["one", "two"] {
        let arguments = [script.to_str().unwrap(), "some-target", out, program.to_str().unwrap()];
        let ran = workspace.run_by(&arguments, &[("SOURCE_DATE_EPOCH", "1700000000")]).await.ok();
        let name = format!("ferry-{VERSION}-some-target");
        assert!(ran.out.ends_with(&format!("  {name}.tar.gz\n")), "{ran:?}");
        let archive = workspace.path(&format!("{out}/{name}.tar.gz"));
        let listed = workspace.run_by(&["tar", "-tf", archive.to_str().unwrap()], &[]).await.ok();
        for file in ["ferry", "LICENSE", "README.md", "README.zh-CN.md", "CHANGELOG.md"] {
            assert!(listed.out.contains(&format!("{name}/{file}\n")), "{}", listed.out);
        }
        let sums = ["sh", "-c", "cd \"$0\" && sha256sum -c SHA256SUMS", out];
        workspace.run_by(&sums, &[]).await.ok();
        archives.push(fs::read(archive).unwrap());
    }
    assert_eq!(archives[0], archives[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_of_the_version() {
    let workspace = Workspace::new();
    let script = root().join("scripts/release-notes");
    let (script, changes) = (script.to_str().unwrap(), workspace.path("changes.md"));
    let changes = changes.to_str().unwrap();
    let later = format!("{VERSION}1");
    let text = format!(
        "# Changes\n\n## {later}\n\n- later\n\n## {VERSION} (2026-01-02)\n\n- this\n\n## 0.0.1\n\n- old\n"
    );
    fs::write(changes, text).unwrap();
    let ran = workspace.run_by(&[script, VERSION, changes], &[]).await.ok();
    assert_eq!(ran.out.trim(), "- this");
    let ran = workspace.run_by(&[script, &later, changes], &[]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains(&format!("the source is version {VERSION}")), "{ran:?}");
    fs::write(changes, "# Changes\n\n## Unreleased\n\n- not yet\n").unwrap();
    let ran = workspace.run_by(&[script, VERSION, changes], &[]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("has nothing below"), "{ran:?}");
}

fn find<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|value| find(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| find(item, key, found)),
        _ => {}
    }
}

#[test]
fn workflows_name_versions_and_what_they_may_do() {
    for path in [".github/workflows/ci.yml", ".github/workflows/release.yml", "deploy/ci/github-actions.yml"]
    {
        let workflow = Template::read(path);
        let mut actions = Vec::new();
        find(&workflow.document, "uses", &mut actions);
        assert!(!actions.is_empty(), "{path}");
        for action in actions {
            let (_, version) = action.as_str().unwrap().split_once("@v").unwrap();
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{path}: {action}");
        }
        assert!(workflow.document["permissions"].is_object(), "{path} has the rights of its repository");
    }
}

#[test]
fn templates_download_what_the_workflow_builds() {
    let release = Template::read(".github/workflows/release.yml");
    let targets = release.document["jobs"]["binaries"]["strategy"]["matrix"]["include"].as_array().unwrap();
    let install = read("scripts/install.sh");
    assert_eq!(install.matches(") target=").count(), targets.len());
    for target in targets {
        let target = target["target"].as_str().unwrap();
        assert!(install.contains(&format!("target={target} ;;")), "{target}");
    }
}
