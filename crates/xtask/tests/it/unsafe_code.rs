//! `unsafe` stays in the crates that need it; every other crate forbids it to itself.

use crate::{assert_none, repository};

/// The crates that may use `unsafe`, and what for.
const MAY: &[(&str, &str)] = &[
    ("rqspinlock", "the lock's data behind a guard; queue nodes that other threads link to"),
    ("cpu-executor", "a job's answer, which one thread writes and another takes"),
    ("local-storage", "elements and indexes that readers reach without a lock, under an epoch"),
    ("owners", "system calls that rustix does not wrap"),
    ("allocator", "mimalloc's options and its collecting, which are C"),
    ("kernel-maps", "bpf(2), which takes addresses"),
];

const FORBID: &str = "#![forbid(unsafe_code)]";

fn forbids_unsafe(source: &str) -> bool {
    source.lines().any(|line| line.trim_end() == FORBID)
}

/// `[lints] workspace = true` in a manifest: without it the workspace's lints are not those of the crate.
fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]");
    lines.next().is_some() && lines.next() == Some("workspace = true")
}

/// What is wrong with a crate root: it lacks the attribute, or has it without need of its place in the list.
fn complaint(package: &str, source: &str) -> Option<&'static str> {
    let may = MAY.iter().any(|(name, _)| *name == package);
    match (may, forbids_unsafe(source)) {
        (false, false) => Some("must forbid unsafe code"),
        (true, true) => Some("forbids unsafe code, so it has no need to be in MAY"),
        _ => None,
    }
}

#[test]
fn only_the_listed_crates_use_unsafe() {
    let mut broken = Vec::new();
    for package in repository::packages() {
        // What ships. A test may have to fork, or to call what a hostile caller would.
        for target in package.targets.iter().filter(|target| target.is_lib() || target.is_bin()) {
            let file = target.src_path.strip_prefix(repository::root()).unwrap_or(&target.src_path);
            let complaint = complaint(&package.name, &repository::read(file.as_std_path()));
            broken.extend(complaint.map(|complaint| format!("{file}: {complaint}")));
        }
    }
    assert_none(&broken, &format!("crate roots and `{FORBID}`:"));
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let manifests = repository::packages().into_iter().map(|package| package.manifest_path);
    let broken: Vec<_> = manifests
        .filter(|manifest| !inherits_lints(&repository::read(manifest.as_std_path())))
        .map(String::from)
        .collect();
    assert_none(&broken, "these manifests must have `[lints]` with `workspace = true`:");
}

#[test]
fn a_missing_attribute_or_lint_table_is_seen() {
    assert!(forbids_unsafe("//! Docs.\n#![forbid(unsafe_code)]\n"));
    assert!(!forbids_unsafe("//! Docs.\n// #![forbid(unsafe_code)]\n"));
    assert!(!forbids_unsafe("#![deny(unsafe_code)]\n"));
    assert!(complaint("engine", "//! Docs.\n").is_some());
    assert!(complaint("rqspinlock", "//! Docs.\n").is_none());
    assert!(complaint("rqspinlock", "#![forbid(unsafe_code)]\n").is_some());
    assert!(inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
    assert!(!inherits_lints("[package]\nworkspace = true\n"));
    assert!(!inherits_lints("[lints]\nrust.unused = \"allow\"\n"));
}
