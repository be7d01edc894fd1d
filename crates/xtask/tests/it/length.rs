//! A Rust file of more than 600 lines wants a reason.

use std::path::PathBuf;

use crate::{assert_none, repository};

const LINES: usize = 600;

/// The files that are longer, each with its reason.
const REASONS: &[(&str, &str)] = &[];

fn broken(files: &[(PathBuf, String)], reasons: &[(&str, &str)]) -> Vec<String> {
    let long: Vec<_> = files
        .iter()
        .map(|(file, text)| (file.to_str().expect("file names are UTF-8"), text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .collect();
    let without_reason = long
        .iter()
        .filter(|(file, _)| !reasons.iter().any(|(listed, _)| listed == file))
        .map(|(file, lines)| format!("{file}: {lines} lines"));
    let stale = reasons
        .iter()
        .filter(|(listed, _)| !long.iter().any(|(file, _)| file == listed))
        .map(|(listed, _)| format!("{listed}: is in REASONS, but is not longer than {LINES} lines"));
    without_reason.chain(stale).collect()
}

#[test]
fn long_files_have_a_reason() {
    let broken = broken(&repository::rust_files(), REASONS);
    assert_none(&broken, &format!("split these, or give the reason in {}:", file!()));
}

#[test]
fn a_long_file_is_seen_and_so_is_a_stale_reason() {
    let files = [("short.rs", 600), ("long.rs", 601), ("lock.rs", 900)]
        .map(|(name, lines)| (name.into(), "//\n".repeat(lines)));
    let reasons = [("lock.rs", "one state machine"), ("short.rs", "was longer once")];
    assert_eq!(
        broken(&files, &reasons),
        ["long.rs: 601 lines", "short.rs: is in REASONS, but is not longer than 600 lines"]
    );
}
