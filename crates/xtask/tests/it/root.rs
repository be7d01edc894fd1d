//! The root of the repository stays short.

use std::path::Path;

use crate::{assert_none, repository};

/// What may stand in the root beside dotfiles.
const ROOT: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "client",
    "crates",
    "deploy",
    "proto",
    "server",
];

fn strays<'a>(files: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    let mut strays: Vec<_> = files
        .into_iter()
        .filter_map(|file| file.iter().next()?.to_str())
        .filter(|name| !name.starts_with('.') && !ROOT.contains(name))
        .map(str::to_owned)
        .collect();
    strays.dedup();
    strays
}

#[test]
fn the_root_holds_only_what_is_listed() {
    let files = repository::files();
    assert_none(&strays(files.iter().map(AsRef::as_ref)), "these do not belong in the root:");
}

#[test]
fn a_stray_file_or_folder_is_seen() {
    let files =
        ["Cargo.toml", ".ci/run", ".clippy.toml", "notes.txt", "scripts/a.sh", "scripts/b.sh", "server/Cargo.toml"];
    assert_eq!(strays(files.map(Path::new)), ["notes.txt", "scripts"]);
}
