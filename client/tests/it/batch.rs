//! `holdfast batch` against the real server.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use crate::command_line::{holdfast, stderr, stdout};
use crate::server::Server;

/// Runs `holdfast batch` with these lines on stdin.
fn batch(server: &Server, arguments: &[&str], lines: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.arg("batch").args(arguments).env("HOLDFAST_ENDPOINT", &server.tcp);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command line runs");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that refuses its arguments does not read.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn with_owners(count: u64) -> Server {
    let server = Server::start();
    let count = count.to_string();
    for arguments in [
        &["map", "create", "m", "--kind", "task", "--type", "u64"][..],
        &["owner", "create-simulated", "--kind", "task", "--first", "1", "--count", &count],
    ] {
        assert_eq!(holdfast(&server.tcp, arguments).status.code(), Some(0));
    }
    server
}

fn elements(server: &Server) -> u64 {
    let shown = holdfast(&server.tcp, &["map", "show", "m", "-o", "json"]);
    serde_json::from_str::<Json>(stdout(&shown)).expect("JSON")["elements"].as_u64().expect("a number")
}

#[test]
fn items_come_by_lines_and_each_is_told() {
    let server = with_owners(3);
    let written = batch(&server, &["update", "m"], "# two of three\nsimulated:1 7\n\nsimulated:2 0x10\n");
    assert_eq!((written.status.code(), stderr(&written)), (Some(0), ""), "{written:?}");
    let rows: Vec<Vec<_>> = stdout(&written).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["OWNER", "VERSION", "STATUS"]);
    assert_eq!((rows[1][0], rows[1][2], rows[2][0], rows[2][2]), ("simulated:1", "ok", "simulated:2", "ok"));

    let got = batch(&server, &["get", "m", "-", "-o", "json"], "simulated:2\nsimulated:3\nsimulated:1\n");
    assert_eq!(got.status.code(), Some(1), "{got:?}");
    assert!(stderr(&got).starts_with("error: 1 of 3 items were refused\nhint: "), "{got:?}");
    let items: Vec<Json> = serde_json::from_str(stdout(&got)).expect("JSON");
    let told = |item: &Json| (item["owner"].clone(), item["value"].clone(), item["reason"].clone());
    assert_eq!(told(&items[0]), (json!("simulated:2"), json!(16), Json::Null));
    assert_eq!(told(&items[1]), (json!("simulated:3"), Json::Null, json!("ELEMENT_NOT_FOUND")));
    assert_eq!((&items[1]["version"], &items[2]["hex"]), (&Json::Null, &json!("0700000000000000")));

    let ids = format!("{}\nid:{}\n", items[0]["owner_id"], items[2]["owner_id"]);
    let new = batch(&server, &["update", "m", "--mode", "noexist"], &ids.replace('\n', " 9\n"));
    assert_eq!(stdout(&new).matches("ELEMENT_EXISTS").count(), 2, "{new:?}");
    let deleted = batch(&server, &["delete", "m"], &ids);
    assert_eq!((deleted.status.code(), elements(&server)), (Some(0), 0), "{deleted:?}");
}

#[test]
fn a_file_of_many_takes_several_calls() {
    let server = with_owners(5_000);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("text");
    let lines: String = (1..=5_001).map(|id| format!("simulated:{id} {id}\n")).collect();
    std::fs::write(path, lines).expect("it is written");
    let written = batch(&server, &["update", "m", path, "--size", "700", "--failed"], "");
    assert_eq!(written.status.code(), Some(1), "{written:?}");
    // All but one are done, and that one alone is told.
    let rows: Vec<_> = stdout(&written).lines().collect();
    assert!(
        rows.len() == 2 && rows[1].starts_with("simulated:5001") && rows[1].ends_with("OWNER_NOT_FOUND"),
        "{rows:?}"
    );
    assert!(stderr(&written).starts_with("error: 1 of 5001 items were refused"), "{written:?}");
    assert_eq!(elements(&server), 5_000);
}

#[test]
fn nothing_is_sent_if_a_line_is_wrong() {
    let server = with_owners(2);
    for (arguments, lines, told) in [
        (&["update", "m"][..], "simulated:1 7\nsimulated:2\n", "stdin: line 2: expected a value"),
        (&["update", "m"], "simulated:1 7\npid:2 7\n", "line 2: \"pid:2\" is no owner"),
        (&["get", "m"], "# nothing\n", "there is no item in it"),
        (&["get", "m", "/does/not/exist"], "", "/does/not/exist: "),
        (&["get", "m", "--size", "0"], "1\n", "--size"),
    ] {
        let output = batch(&server, arguments, lines);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{output:?}");
        assert!(stderr(&output).contains(told), "{told}: {output:?}");
    }
    assert_eq!(elements(&server), 0);
    let absent = batch(&server, &["get", "absent"], "1\n");
    assert_eq!(absent.status.code(), Some(1), "{absent:?}");
    assert!(stderr(&absent).starts_with("error: MAP_NOT_FOUND"), "{absent:?}");
}
