//! `holdfast lab` in its own process, and against the real server.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::command_line::{holdfast, stderr, stdout, words};
use crate::server::Server;

/// How long something may take to be seen, on a busy machine.
const SEEN: Duration = Duration::from_secs(30);
const LAB: [&str; 4] = ["--allow-lab-steps", "--workers-per-cpu", "2", "--lock-timeout-ms"];

/// A server that allows all but `nodeadlock`.
fn server(lock_timeout_ms: &'static str) -> Server {
    Server::with(&[&LAB[..], &[lock_timeout_ms]].concat())
}

fn rows(text: &str) -> Vec<Json> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn key(row: &Json) -> (&str, &str, &str) {
    let word = |name: &str| row[name].as_str().unwrap_or_default();
    (word("case"), word("guard"), word("result"))
}

/// What a server must not have any more.
fn nothing_is_left(server: &Server) {
    for (line, left) in [("map list", "[]\n"), ("program list", "[]\n"), ("owner list", "[]\n")] {
        let output = holdfast(&server.unix, &words(&format!("{line} -o json")));
        assert_eq!(stdout(&output), left, "{line}");
    }
}

/// The endpoint of the environment is not taken: nobody is there.
#[test]
fn conformance_shows_both_guards_side_by_side_without_a_server() {
    let output = holdfast("http://127.0.0.1:1", &words("lab conformance abba recursion -o json"));
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{output:?}");
    let rows = rows(stdout(&output));
    let (ours, legacy) = ("rqspinlock", "percpu-counter");
    let expected =
        [("recursion", ours, "ok"), ("recursion", legacy, "ok"), ("abba", ours, "ok"), ("abba", legacy, "ok")];
    assert_eq!(rows.iter().map(key).collect::<Vec<_>>(), expected);
    assert_eq!(rows[0]["figures"], json!({ "A": 200, "B": 1, "delete errors": "none", "misses": 2 }));
    assert_eq!((&rows[1]["figures"]["A"], &rows[1]["why"]), (&json!(201), &Json::Null));

    let output = holdfast("", &words("lab conformance recursion --guard percpu-counter"));
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("CASE ") && lines[1].starts_with("recursion  percpu-counter  ok "), "{lines:?}");
    assert!(lines[1].ends_with("A 201, B 100, delete errors STORAGE_BUSY 1 and ELEMENT_NOT_FOUND 1, misses 0"));
}

#[test]
fn conformance_of_a_server_is_under_its_guard_and_leaves_nothing() {
    let server = server("250");
    let line =
        format!("lab conformance nodeadlock locked_aa bucket_aa timeout crud --endpoint {} -o json", server.unix);
    let output = holdfast("", &words(&line));
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{output:?}");
    let rows = rows(stdout(&output));
    let expected = ["skipped", "ok", "ok", "ok", "ok"];
    assert_eq!(rows.iter().map(|row| key(row).2).collect::<Vec<_>>(), expected, "{rows:#?}");
    assert!(rows.iter().all(|row| row["guard"] == "rqspinlock"), "{rows:#?}");
    assert!(rows[0]["why"].as_str().is_some_and(|why| why.contains("--workers-per-cpu 32")), "{rows:#?}");
    nothing_is_left(&server);
}

/// With a lock that loses its patience soon, neither command gets what it expects.
#[test]
fn what_does_not_come_out_as_it_must_is_exit_code_1() {
    let server = server("50");
    let output = holdfast("", &words(&format!("lab conformance timeout crud --endpoint {}", server.tcp)));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stderr(&output), "error: 1 of 2 cases failed\n");
    assert!(stdout(&output).contains("FAILED") && stdout(&output).contains("--lock-timeout-ms"), "{output:?}");
    nothing_is_left(&server);

    let output = holdfast("", &words(&format!("lab deadlock --rounds 2 --endpoint {} -o json", server.tcp)));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("expected no less than 250ms"), "{output:?}");
    let report: Json = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!(report["problems"].as_array().map(Vec::len), Some(2), "{report:#}");
    nothing_is_left(&server);
}

#[test]
fn deadlocks_are_told_in_tables_and_drawn() {
    let directory = TempDir::new().expect("a temporary directory");
    let svg = directory.path().join("deadlock.svg");
    let output = holdfast("http://127.0.0.1:1", &words(&format!("lab deadlock --rounds 2 --svg {}", svg.display())));
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{output:?}");
    let text = stdout(&output);
    for (kind, reason) in [
        ("AA", "LOCK_DEADLOCK_AA"),
        ("ABBA", "LOCK_DEADLOCK_ABBA"),
        ("ABBCCA", "LOCK_TIMEOUT"),
        ("timeout", "LOCK_TIMEOUT"),
    ] {
        let row = format!("{kind:7}  rqspinlock  {reason:18}  2 ");
        assert!(text.lines().any(|line| line.starts_with(&row)), "{row}: {text}");
        assert!(text.lines().any(|line| line.starts_with(kind) && line.ends_with('#')), "{text}");
    }
    for load in ["gets of the owners in it", "updates aside of it", "updates at its worker"] {
        assert!(text.lines().any(|line| line.starts_with(load)), "{load}: {text}");
    }
    let drawn = std::fs::read_to_string(&svg).expect("a picture");
    assert!(drawn.starts_with("<svg") && drawn.contains("ABBCCA"), "{drawn}");

    let output = holdfast("", &words("lab deadlock --rounds 1 --svg /nowhere/at/all.svg"));
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("cannot draw /nowhere/at/all.svg"), "{output:?}");
}

#[test]
fn a_server_without_the_flags_is_told_which() {
    let server = Server::start();
    let output = holdfast("", &words(&format!("lab deadlock --endpoint {}", server.tcp)));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stderr(&output), "error: the server was started without --allow-lab-steps\n");
    let output = holdfast("", &words(&format!("lab conformance abba --endpoint {}", server.tcp)));
    assert_eq!(output.status.code(), Some(0), "skipped is no failure: {output:?}");
    assert!(stdout(&output).contains("the server was started without --allow-lab-steps"), "{output:?}");
    for (line, code) in [
        ("lab conformance abba --guard rqspinlock --endpoint http://127.0.0.1:1", 2),
        ("lab conformance baab", 2),
        ("lab deadlock --rounds 0", 2),
        ("lab deadlock --endpoint ftp://host", 2),
        ("lab deadlock --endpoint unix:///nobody/there", 3),
    ] {
        let output = holdfast("", &words(line));
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        assert!(!stderr(&output).is_empty(), "{line}");
    }
}

/// The server keeps nothing of somebody who presses Ctrl-C in the middle of a case.
#[test]
fn who_interrupts_the_lab_leaves_nothing_at_the_server() {
    let server = server("250");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["lab", "conformance", "timeout", "propagated", "abba", "--endpoint", &server.unix]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let limit = Instant::now() + SEEN;
    while stdout(&holdfast(&server.unix, &words("program list"))).lines().count() < 3 {
        assert!(Instant::now() < limit, "no program was attached");
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).starts_with("error: interrupted: "), "{output:?}");
    assert!(stdout(&output).contains("interrupted"), "{output:?}");
    nothing_is_left(&server);
}
