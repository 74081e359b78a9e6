//! `ferry user`: who can log in to `ferry serve`.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use anyhow::{Context, bail};
use ferry_serve::{Users, hash_password};

use crate::credentials::read_password;
use crate::exit::Exit;
use crate::settings::{Change, User};

/// Runs `ferry user`.
pub(crate) fn change(settings: &User) -> anyhow::Result<Exit> {
    let User { name, file, change } = settings;
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("cannot read {shown}")),
    };
    // What a server would not read is not made longer.
    Users::parse(&text, &shown.to_string())?;
    let is_theirs = |line: &&str| line.trim().split_once(':').is_some_and(|(theirs, _)| theirs == name);
    let known = text.lines().any(|line| is_theirs(&line));
    let mut lines: Vec<String> = text.lines().filter(|line| !is_theirs(line)).map(str::to_owned).collect();
    match change {
        Change::Remove if !known => bail!("{shown}: there is no user {name}"),
        Change::Remove => {}
        Change::Add => {
            let password = read_password(&format!("ferry user add {name}"))?;
            lines.push(format!("{name}:{}", hash_password(password.expose())?));
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    write(file, &text).with_context(|| format!("cannot write {shown}"))?;
    match (change, known) {
        (Change::Remove, _) => say!("{name} is removed from {shown}"),
        (Change::Add, false) => say!("{name} is added to {shown}"),
        (Change::Add, true) => say!("{name} has a new password in {shown}"),
    }
    Ok(Exit::Done)
}

/// Writes the file whole or not at all. A new one is for its owner alone; one that is there keeps its owner and permissions, so
/// that a server that runs as somebody else can still read what root has changed.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    // A link stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut temporary = path.clone().into_os_string();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = Path::new(&temporary);
    let written =
        File::options().write(true).create_new(true).mode(0o600).open(temporary).and_then(|mut file| {
            if let Ok(there) = fs::metadata(&path) {
                let made = file.metadata()?;
                if (made.uid(), made.gid()) != (there.uid(), there.gid()) {
                    fchown(&file, Some(there.uid()), Some(there.gid()))?;
                }
                file.set_permissions(there.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(temporary, &path)
        });
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn who_could_read_the_file_can_still() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        let seen = || {
            let there = fs::metadata(&file).unwrap();
            (there.uid(), there.gid(), there.permissions().mode() & 0o777)
        };
        write(&file, "").unwrap();
        assert_eq!(seen().2, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        // Only root can give a file away; for others it stays theirs.
        let _ = chown(&file, Some(65532), Some(65532));
        let before = seen();
        write(&file, "me:hash\n").unwrap();
        assert_eq!((seen(), fs::read_to_string(&file).unwrap()), (before, "me:hash\n".to_owned()));
    }
}
