//! No test is ignored but for the heavy ones that a step of CI runs.

use std::path::{Path, PathBuf};

use crate::{assert_none, repository};

const HEAVY: &str = r#"#[ignore = "run by cargo xtask e2e"]"#;
/// `cargo xtask e2e` runs the ignored tests of this binary.
const HEAVY_IN: &str = "server/tests/it";

fn broken(files: &[(PathBuf, String)]) -> Vec<String> {
    let mut broken = Vec::new();
    for (file, text) in files {
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            let is_run = line == HEAVY && file.starts_with(Path::new(HEAVY_IN));
            if line.starts_with("#[ignore") && !is_run {
                broken.push(format!("{}:{number}: {line}", file.display()));
            }
        }
    }
    broken
}

#[test]
fn ignored_tests_are_run_by_a_step_of_ci() {
    let broken = broken(&repository::rust_files());
    assert_none(&broken, &format!("a test may be ignored only as `{HEAVY}` in {HEAVY_IN}/:"));
}

#[test]
fn an_ignored_test_that_nobody_runs_is_seen() {
    let file = |name: &str, line: &str| (name.into(), format!("#[test]\n    {line}\nfn f() {{}}\n"));
    let files = [
        file("server/tests/it/load.rs", HEAVY),
        file("server/tests/it/flaky.rs", "#[ignore]"),
        file("client/tests/it/load.rs", HEAVY),
    ];
    let broken = broken(&files);
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(broken[0].starts_with("server/tests/it/flaky.rs:2"), "{broken:?}");
    assert!(broken[1].starts_with("client/tests/it/load.rs:2"), "{broken:?}");
}
