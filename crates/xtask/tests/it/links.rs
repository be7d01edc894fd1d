//! What the documents link to exists.
//!
//! The invariants of `crates/README.md` name what keeps them as a link, ``[`name`](file)``: the file
//! must be there, and the name must stand in it.

use std::path::{Component, Path, PathBuf};

use crate::{assert_none, repository};

struct Link<'a> {
    label: &'a str,
    target: &'a str,
}

fn links(markdown: &str) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    for (middle, _) in markdown.match_indices("](") {
        let label = markdown[..middle].rsplit_once('[').map_or("", |(_, label)| label);
        let target = markdown[middle + 2..].split_once(')').map_or("", |(target, _)| target);
        links.push(Link { label, target });
    }
    links
}

/// The last part of a label that is code: `lock` of `` `RqSpinLock::lock` ``. None for prose.
fn item(label: &str) -> Option<&str> {
    let code = label.strip_prefix('`')?.strip_suffix('`')?;
    let path = code.trim_end_matches("()");
    let name = path.rsplit("::").next()?;
    name.chars().all(|c| c.is_alphanumeric() || c == '_').then_some(name)
}

/// `a/b/../c` as `a/c`.
fn normalized(path: &Path) -> PathBuf {
    let mut normalized = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => _ = normalized.pop(),
            other => normalized.push(other),
        }
    }
    normalized
}

fn broken(document: &Path, markdown: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let folder = document.parent().unwrap_or(Path::new(""));
    let mut broken = Vec::new();
    for Link { label, target } in links(markdown) {
        let file = target.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") {
            continue;
        }
        let at = || format!("{}: [{label}]({target})", document.display());
        match (read(&normalized(&folder.join(file))), item(label)) {
            (None, _) => broken.push(format!("{}: no such file", at())),
            (Some(text), Some(item)) if !text.is_empty() && !text.contains(item) => {
                broken.push(format!("{}: {item} does not occur in it", at()));
            }
            (Some(_), _) => {}
        }
    }
    broken
}

#[test]
fn documents_link_to_what_exists() {
    // A folder may be linked to as well; it has no text.
    let read = |path: &Path| {
        let path = repository::root().join(path);
        if path.is_dir() { Some(String::new()) } else { std::fs::read_to_string(path).ok() }
    };
    let mut documents = repository::files();
    documents.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    assert!(documents.contains(&PathBuf::from("crates/README.md")), "crates/README.md is missing");
    let broken: Vec<_> =
        documents.iter().flat_map(|document| broken(document, &repository::read(document), read)).collect();
    assert_none(&broken, "broken links:");
}

#[test]
fn a_link_to_nothing_is_seen() {
    let read = |path: &Path| match path.to_str() {
        Some("lock/src/lib.rs") => Some("pub struct Cpu;".to_owned()),
        Some("lock") => Some(String::new()),
        _ => None,
    };
    let markdown = "[`Cpu`](../lock/src/lib.rs#L1) [`lock::Gone`](../lock/src/lib.rs) [`lock`](../lock) [prose](../lock/src/lib.rs)
        [x](gone.md) [y](https://example.org/) [z](#here)";
    let broken = broken(Path::new("crates/README.md"), markdown, read);
    assert_eq!(
        broken,
        [
            "crates/README.md: [`lock::Gone`](../lock/src/lib.rs): Gone does not occur in it",
            "crates/README.md: [x](gone.md): no such file",
        ]
    );
}
