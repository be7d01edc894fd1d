//! The command line: exit codes and what it says, against servers that say what the test wants.

use std::os::unix::ffi::OsStrExt;
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

/// The arguments that a shell makes of a line: words, or whole texts in single quotes.
pub fn words(line: &str) -> Vec<&str> {
    let part = |(index, part)| match index % 2 {
        0 => str::split_whitespace(part).collect(),
        _ => vec![part],
    };
    line.split('\'').enumerate().flat_map(part).collect()
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
fn an_argument_that_is_not_utf_8_is_shown() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let wrong = std::ffi::OsStr::from_bytes(b"a\xff");
    let output = command.args(["get", "m", "--cgroup"]).arg(wrong).output().expect("the command line runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).starts_with("error: \"a\\xFF\" is not UTF-8"), "{output:?}");
}

#[test]
fn a_wrong_endpoint_of_the_environment_is_told_from_a_typed_one() {
    let output = holdfast("ftp://host", &["map", "list"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).starts_with("error: HOLDFAST_ENDPOINT: endpoint \"ftp://host\""), "{output:?}");
    // What is typed goes first, and nothing set is the default.
    let output = holdfast("ftp://host", &["map", "list", "--endpoint", "unix:///nobody/there"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let output = holdfast("", &["map", "list", "--endpoint", "ftp://typed"]);
    assert!(stderr(&output).starts_with("error: endpoint \"ftp://typed\""), "{output:?}");
    let output = holdfast("", &["map", "list", "--timeout", "100ms"]);
    assert_ne!(output.status.code(), Some(2), "{output:?}");
}

/// A usage error shows what was typed: the environment is not.
#[test]
fn the_environment_is_not_in_the_usage() {
    let output = holdfast("http://127.0.0.1:1", &["list"]);
    assert!(stderr(&output).contains("Usage: holdfast list <MAP>"), "{output:?}");
    let output = holdfast("http://127.0.0.1:1", &["map"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("Create a map"), "the help: {output:?}");
}

#[test]
fn the_lab_needs_no_server_and_tells_both_guards_apart() {
    let directory = TempDir::new().expect("a temporary directory");
    let svg = directory.path().join("spurious.svg");
    let arguments = [
        "lab",
        "spurious",
        "--tasks",
        "1,3",
        "--operations",
        "20000",
        "-o",
        "json",
        "--svg",
        svg.to_str().expect("UTF-8"),
    ];
    let output = holdfast("http://127.0.0.1:1", &arguments);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{output:?}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(stdout(&output)).expect("JSON");
    let kinds: Vec<_> = rows.iter().map(|row| (row["tasks_per_processor"].as_u64(), row["guard"].as_str())).collect();
    let (legacy, ours) = (Some("percpu-counter"), Some("rqspinlock"));
    assert_eq!(kinds, [(Some(1), legacy), (Some(1), ours), (Some(3), legacy), (Some(3), ours)]);
    for row in &rows {
        assert_eq!((row["operations"].as_u64(), row["deadlocks"].as_u64()), (Some(20_000), Some(0)), "{row}");
        assert!(row["guard"] != "rqspinlock" || row["busy"] == 0, "nobody recurs: {row}");
        assert!(row["served_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
    }
    let drawn = std::fs::read_to_string(&svg).expect("a picture");
    assert!(drawn.starts_with("<svg") && drawn.contains("percpu-counter") && drawn.contains("3 tasks"), "{drawn}");

    let output =
        holdfast("http://127.0.0.1:1", &["lab", "spurious", "--operations", "1000", "--svg", "/nowhere/at/all.svg"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("cannot draw /nowhere/at/all.svg"), "{output:?}");
    let output = holdfast("http://127.0.0.1:1", &["lab", "spurious", "--tasks", "257"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn bash_completes_commands_options_and_choices() {
    // As bash does at a tab: the words so far, then what could be the last.
    let script = r#"
        source <("$HOLDFAST" completion bash) || exit 1
        complete -p holdfast >&2 || exit 1
        for line in "ma" "map cr" "owner create-" "get m --owner" "map create m --kind " "completion z" "program l" \
            "program attach p --hook storage"; do
            COMP_LINE="holdfast $line"
            COMP_WORDS=(holdfast $line)
            [[ $line == *' ' ]] && COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            COMPREPLY=()
            _holdfast holdfast "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[@]}"
        done"#;
    let mut command = Command::new("bash");
    let output = command.args(["-c", script]).env("HOLDFAST", env!("CARGO_BIN_EXE_holdfast")).output();
    let output = output.expect("bash runs");
    let completed: Vec<_> = stdout(&output).lines().collect();
    let expected =
        ["map man", "create", "create-simulated", "--owner-id", "task cgroup", "zsh", "list", "storage_locked"];
    assert_eq!(completed, expected, "{output:?}");
}

#[test]
fn manual_pages_need_no_server_and_no_endpoint() {
    let directory = TempDir::new().expect("a temporary directory");
    let pages = directory.path().join("man1");
    let output = holdfast("ftp://nonsense", &["man", "--dir", pages.to_str().expect("text")]);
    assert_eq!((output.status.code(), stdout(&output), stderr(&output)), (Some(0), "", ""));
    let main = std::fs::read(pages.join("holdfast.1")).expect("the main page");
    assert!(pages.join("holdfast-map-create.1").is_file());
    assert_eq!(holdfast("ftp://nonsense", &["man"]).stdout, main);
    // A file is in the way.
    let output = holdfast("ftp://nonsense", &["man", "--dir", pages.join("holdfast.1").to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("holdfast.1: "), "{output:?}");
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
