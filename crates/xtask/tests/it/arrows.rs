//! Which crate may depend on which: the arrows of `crates/README.md`.

use std::collections::BTreeMap;

use cargo_metadata::{Dependency, DependencyKind};

use crate::{assert_none, repository};

/// What a crate may have an arrow to within the workspace.
struct Arrows {
    from: &'static str,
    /// As a normal or a build dependency.
    to: &'static [&'static str],
    /// In its tests as well. Cargo allows a cycle here: the client's tests need a server. The engine's are held against the kernel.
    in_tests: &'static [&'static str],
}

const ARROWS: &[Arrows] = &[
    Arrows { from: "rqspinlock", to: &[], in_tests: &[] },
    Arrows { from: "local-storage", to: &["rqspinlock"], in_tests: &["history"] },
    Arrows { from: "cpu-executor", to: &[], in_tests: &[] },
    Arrows { from: "owners", to: &[], in_tests: &[] },
    Arrows { from: "kernel-maps", to: &[], in_tests: &[] },
    Arrows { from: "allocator", to: &[], in_tests: &[] },
    Arrows {
        from: "engine",
        to: &["cpu-executor", "local-storage", "owners", "rqspinlock"],
        in_tests: &["history", "kernel-maps"],
    },
    Arrows { from: "holdfast-proto", to: &[], in_tests: &[] },
    Arrows { from: "holdfastd", to: &["allocator", "engine", "holdfast-proto"], in_tests: &["history", "holdfast"] },
    // The laboratory is for the command line alone: the library is built without it.
    Arrows { from: "holdfast", to: &["holdfast-proto", "lab"], in_tests: &["holdfastd"] },
    // It starts servers of its own, and speaks to them as to any other.
    Arrows { from: "lab", to: &["holdfast-proto", "holdfastd", "local-storage", "rqspinlock"], in_tests: &[] },
    // For tests alone: nothing ships it.
    Arrows { from: "history", to: &[], in_tests: &[] },
    // It measures the server as a process. What it links of it is the transport, to measure that without the rest.
    Arrows {
        from: "bench",
        to: &["engine", "holdfast-proto", "holdfastd", "kernel-maps", "local-storage", "owners", "rqspinlock"],
        in_tests: &[],
    },
    Arrows { from: "xtask", to: &[], in_tests: &[] },
];

/// Outside crates that only some of ours may name, in any kind of dependency. What comes in behind
/// another dependency (tokio behind tonic) is not meant.
struct Fenced {
    /// These crates, and every crate whose name begins with one of them and a dash.
    crates: &'static [&'static str],
    only_in: &'static [&'static str],
    why: &'static str,
}

const FENCED: &[Fenced] = &[
    Fenced {
        crates: &["tonic", "prost", "protox"],
        only_in: &["holdfast-proto", "holdfastd", "holdfast", "lab", "bench", "xtask"],
        why: "the domain does not know gRPC",
    },
    Fenced {
        crates: &["http", "hyper", "h2", "tower"],
        only_in: &["holdfastd", "holdfast", "bench"],
        why: "the transport is the business of the two ends of the wire, and of who loads it",
    },
    Fenced {
        crates: &["tokio"],
        only_in: &["cpu-executor", "owners", "engine", "holdfastd", "holdfast", "lab", "bench", "xtask"],
        why: "what takes locks must not run on, or wait for, an async runtime",
    },
    Fenced {
        crates: &["log", "tracing"],
        only_in: &["cpu-executor", "owners", "engine", "holdfastd", "holdfast"],
        why: "nothing is logged in a critical section",
    },
];

/// Every arrow that the tables do not allow.
fn broken(packages: &BTreeMap<String, Vec<Arrow>>) -> Vec<String> {
    let mut broken = Vec::new();
    for (from, arrows) in packages {
        let Some(allowed) = ARROWS.iter().find(|allowed| allowed.from == from) else {
            broken.push(format!("{from} is not in the table: add it to ARROWS and to crates/README.md"));
            continue;
        };
        for Arrow { to, kind } in arrows {
            let in_tests = *kind == DependencyKind::Development;
            // A crate may name itself in its tests, to switch a feature on.
            let inside = packages.contains_key(to) && to != from;
            let is_allowed = allowed.to.contains(&to.as_str()) || in_tests && allowed.in_tests.contains(&to.as_str());
            if inside && !is_allowed {
                broken.push(format!("{from} -> {to} ({kind})"));
            }
            for fence in FENCED.iter().filter(|fence| fence.holds(to) && !fence.only_in.contains(&from.as_str())) {
                broken.push(format!("{from} -> {to} ({kind}): {}", fence.why));
            }
        }
    }
    for stale in ARROWS.iter().filter(|arrows| !packages.contains_key(arrows.from)) {
        broken.push(format!("{} is in the table, but not in the workspace", stale.from));
    }
    broken
}

impl Fenced {
    fn holds(&self, name: &str) -> bool {
        self.crates
            .iter()
            .any(|fenced| name.strip_prefix(fenced).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
    }
}

struct Arrow {
    to: String,
    kind: DependencyKind,
}

impl From<&Dependency> for Arrow {
    fn from(dependency: &Dependency) -> Self {
        // `name` is the package's own name, also where the manifest renames it.
        Self { to: dependency.name.clone(), kind: dependency.kind }
    }
}

fn workspace() -> BTreeMap<String, Vec<Arrow>> {
    let packages = repository::packages();
    packages
        .iter()
        .map(|package| (package.name.to_string(), package.dependencies.iter().map(Arrow::from).collect()))
        .collect()
}

#[test]
fn crates_depend_only_where_an_arrow_allows_it() {
    assert_none(&broken(&workspace()), "the arrows between crates (crates/README.md):");
}

/// The real workspace with one more arrow in it.
#[track_caller]
fn with_arrow(from: &str, to: &str, kind: DependencyKind) -> Vec<String> {
    let mut workspace = workspace();
    let arrows = workspace.get_mut(from).expect("a member of the workspace");
    arrows.push(Arrow { to: to.to_owned(), kind });
    broken(&workspace)
}

#[test]
fn a_forbidden_arrow_is_seen() {
    for (from, to, kind) in [
        ("rqspinlock", "local-storage", DependencyKind::Normal),
        ("local-storage", "cpu-executor", DependencyKind::Development),
        ("cpu-executor", "local-storage", DependencyKind::Normal),
        ("engine", "holdfast-proto", DependencyKind::Build),
        ("holdfast", "engine", DependencyKind::Normal),
        // Allowed in tests only:
        ("holdfast", "holdfastd", DependencyKind::Normal),
        ("engine", "kernel-maps", DependencyKind::Normal),
        // What it makes of a server goes through the API.
        ("lab", "engine", DependencyKind::Normal),
        ("lab", "hyper-util", DependencyKind::Normal),
        ("engine", "tonic-types", DependencyKind::Normal),
        ("engine", "history", DependencyKind::Normal),
        ("engine", "prost", DependencyKind::Development),
        ("owners", "hyper-util", DependencyKind::Normal),
        ("local-storage", "tokio", DependencyKind::Development),
        ("rqspinlock", "tokio-util", DependencyKind::Normal),
        ("local-storage", "tracing", DependencyKind::Normal),
    ] {
        let broken = with_arrow(from, to, kind);
        assert!(broken.iter().any(|line| line.starts_with(&format!("{from} -> {to}"))), "{from} -> {to}: {broken:?}");
    }
}

#[test]
fn an_allowed_arrow_is_not_complained_about() {
    for (from, to, kind) in [
        ("holdfast", "holdfastd", DependencyKind::Development),
        ("holdfastd", "tonic-health", DependencyKind::Normal),
        ("engine", "tokio", DependencyKind::Normal),
        ("engine", "history", DependencyKind::Development),
        // Neither is what its prefix says.
        ("local-storage", "httparse", DependencyKind::Normal),
        ("local-storage", "towering", DependencyKind::Normal),
    ] {
        let broken = with_arrow(from, to, kind);
        assert!(!broken.iter().any(|line| line.starts_with(&format!("{from} -> {to}"))), "{from} -> {to}: {broken:?}");
    }
}

#[test]
fn a_crate_without_a_row_is_seen_and_so_is_a_row_without_a_crate() {
    let mut workspace = workspace();
    workspace.remove("owners");
    workspace.insert("stray".to_owned(), Vec::new());
    let broken = broken(&workspace);
    assert!(broken.iter().any(|line| line.starts_with("stray is not in the table")), "{broken:?}");
    assert!(broken.iter().any(|line| line.starts_with("owners is in the table")), "{broken:?}");
}
