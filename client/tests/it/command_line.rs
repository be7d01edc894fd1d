//! The command line: exit codes and what it says, against servers that say what the test wants.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tonic::{Code, Status};

use crate::fake::{Fake, Say, refusal};

/// Runs `holdfast` with these arguments against the endpoint.
pub fn holdfast(endpoint: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(arguments).env("HOLDFAST_ENDPOINT", endpoint).stdin(Stdio::null());
    command.output().expect("the command line runs")
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

fn endpoint(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// What `holdfast update` says when the server answers so.
async fn update(answers: Vec<Say>, options: &'static [&str]) -> Output {
    let directory = TempDir::new().expect("a temporary directory");
    let socket = directory.path().join("socket");
    let _fake = Fake::start(&socket, answers);
    let endpoint = endpoint(&socket);
    let run = move || holdfast(&endpoint, &[&["update", "m", "--task", "1", "--u64", "5"], options].concat());
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

#[tokio::test]
async fn success_is_0_and_one_line() {
    let output = update(vec![], &[]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((stdout(&output), stderr(&output)), ("version 12 owner_id 7\n", ""));

    let output = update(vec![], &["-o", "json"]).await;
    assert_eq!(stdout(&output), "{\"version\":12,\"owner_id\":7}\n");
}

#[tokio::test]
async fn a_refusal_is_1_with_its_reason_and_what_to_do() {
    let output = update(vec![refusal(Code::NotFound, "OWNER_EXITED", None)], &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stdout(&output), "");
    let lines: Vec<_> = stderr(&output).lines().collect();
    assert_eq!(lines[0], "error: OWNER_EXITED: so says the test");
    assert!(lines[1].starts_with("hint: "), "{lines:?}");
}

#[tokio::test]
async fn no_retry_tries_once() {
    let busy = || vec![refusal(Code::Unavailable, "LOCK_TIMEOUT", Some(Duration::from_millis(1)))];
    assert_eq!(update(busy(), &[]).await.status.code(), Some(0));
    assert_eq!(update(busy(), &["--no-retry"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn an_unknown_outcome_is_4() {
    let output = update(vec![Say::Refuse(Status::unavailable("upstream"))], &[]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("nobody knows"), "{output:?}");

    let directory = TempDir::new().expect("a temporary directory");
    let socket = directory.path().join("silence");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let output = holdfast(&endpoint(&socket), &["map", "list", "--timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("no answer within 300ms"), "{output:?}");
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [
        &[][..],
        &["fly"],
        &["get", "m"],
        &["map", "create", "m", "--kind", "task", "--type", "u64", "--value-size", "4"],
        &["map", "create", "m", "--kind", "task", "--type", "mine"],
        &["update", "m", "--task", "1", "--file", "/does/not/exist"],
        &["owner", "show", "--simulated", "1"],
        &["map", "list", "--endpoint", "ftp://host"],
    ] {
        let output = holdfast("http://127.0.0.1:1", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(stdout(&output), "");
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn no_connection_is_3_and_says_where_and_how_to_start_a_server() {
    let directory = TempDir::new().expect("a temporary directory");
    let endpoint = endpoint(&directory.path().join("nobody"));
    let output = holdfast(&endpoint, &["map", "list"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains(&endpoint) && text.contains("`holdfastd`") && text.contains("HOLDFAST_ENDPOINT"), "{text}");
}
