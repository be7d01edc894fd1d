//! `cargo xtask` from the outside, without running what it runs.

use std::process::Command;

fn xtask(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("xtask starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("xtask prints UTF-8"))
}

/// The names of the steps that a `--list` prints; their command lines are indented.
fn steps(arguments: &[&str]) -> Vec<String> {
    let (success, text) = xtask(arguments);
    assert!(success, "{text}");
    text.lines().filter(|line| !line.starts_with(' ')).map(str::to_owned).collect()
}

#[test]
fn ci_runs_every_step_in_order() {
    assert_eq!(
        steps(&["ci", "--list"]),
        ["test", "fmt", "clippy", "doc", "deny", "loom", "oracle", "proto", "e2e", "ghz", "examples", "container"]
    );
}

#[test]
fn every_step_of_ci_is_a_task_of_its_own() {
    for step in steps(&["ci", "--list"]) {
        assert_eq!(steps(&[&step, "--list"]), [step.as_str()]);
    }
}

#[test]
fn only_selects_each_step_once_and_keeps_the_order() {
    assert_eq!(steps(&["ci", "--list", "--only", "clippy,fmt", "--only", "fmt"]), ["fmt", "clippy"]);
}

#[test]
fn an_unknown_step_is_refused_with_the_known_ones() {
    let (success, text) = xtask(&["ci", "--only", "clipy"]);
    assert!(!success && text.contains("clipy") && text.contains("e2e"), "{text}");
}

#[test]
fn help_teaches_by_example() {
    let (success, text) = xtask(&["--help"]);
    assert!(success && text.contains("cargo xtask ci --only fmt,clippy"), "{text}");
}

#[test]
fn bench_hooks_builds_the_core_twice_and_asks_for_valgrind_first() {
    let (success, text) = xtask(&["--list", "bench", "hooks"]);
    assert!(success, "{text}");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "valgrind --version");
    assert!(lines[1].contains("--cfg holdfast_no_hooks") && lines[1].contains("no-hooks"), "{text}");
    assert!(lines[2].ends_with("no-hooks/release/bench") && lines[2].contains("-- hooks --without"), "{text}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn stress_names_its_subject_and_passes_on_what_it_is_told() {
    for (subject, package, test) in [
        ("lock", "rqspinlock", "tests::random::stress_64_at_random"),
        ("core", "local-storage", "tests::stress::stress_free_64"),
    ] {
        let (success, text) = xtask(&["stress", subject, "--seconds", "7", "--seed", "9", "--list"]);
        assert!(success, "{text}");
        for part in ["HOLDFAST_STRESS_SECONDS=7", "HOLDFAST_STRESS_SEED=9", "--release", package, test] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let (success, text) = xtask(&["stress"]);
    assert!(!success && text.contains("<SUBJECT>"), "{text}");
}
