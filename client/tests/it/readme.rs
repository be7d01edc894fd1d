//! The README's session is what a real shell, a real server and real owners print. `HOLDFAST_BLESS=1` writes it anew.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;

use crate::server::Server;
use crate::skipped;

/// Separates what the commands print.
const MARK: &str = "@@ next command @@";

/// How long what is printed may differ from what is written.
const PATIENCE: Duration = Duration::from_secs(5);

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// The console blocks: where each is in the text, without its fences.
fn sessions(text: &str) -> Vec<std::ops::Range<usize>> {
    let fence = Regex::new(r"(?s)```console\n(.*?)```").expect("a good pattern");
    fence.captures_iter(text).map(|block| block.get(1).expect("one group").range()).collect()
}

/// A shell that is typed to.
struct Shell {
    bash: Child,
    printed: BufReader<ChildStdout>,
}

impl Shell {
    fn start(endpoint: &str) -> Shell {
        let binaries = Path::new(env!("CARGO_BIN_EXE_holdfast")).parent().expect("in a folder");
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        bash.env("HOLDFAST_ENDPOINT", endpoint).env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut bash = bash.spawn().expect("bash runs");
        let printed = BufReader::new(bash.stdout.take().expect("piped"));
        let mut shell = Shell { bash, printed };
        shell.run("exec 2>&1");
        shell
    }

    /// What a command prints.
    fn run(&mut self, command: &str) -> String {
        let stdin = self.bash.stdin.as_mut().expect("piped");
        writeln!(stdin, "{command}\necho '{MARK}'").expect("bash reads");
        let mut output = String::new();
        while !output.ends_with(&format!("{MARK}\n")) {
            assert_ne!(self.printed.read_line(&mut output).expect("text"), 0, "bash has ended: {output}");
        }
        output.replace(&format!("{MARK}\n"), "")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}

/// Runs a session's commands again. A read is repeated until it prints what is written, or `PATIENCE` is over: an exit
/// takes a moment to be seen.
fn replay(session: &str, endpoint: &str) -> String {
    let mut shell = Shell::start(endpoint);
    let mut replayed = String::new();
    for (command, written) in steps(session) {
        let reads = ["holdfast get", "holdfast list", "holdfast map show"].iter().any(|read| command.starts_with(read));
        let limit = Instant::now() + PATIENCE;
        let mut printed = shell.run(command);
        while reads && normal(&printed) != normal(&written) && Instant::now() < limit {
            printed = shell.run(command);
        }
        replayed += &format!("$ {command}\n{printed}");
    }
    replayed
}

/// The commands with what is written below each.
fn steps(session: &str) -> Vec<(&str, String)> {
    let mut steps: Vec<(&str, String)> = Vec::new();
    for line in session.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command, String::new())),
            (None, Some((_, written))) => *written += &format!("{line}\n"),
            (None, None) => panic!("a session begins with a command: {line}"),
        }
    }
    steps
}

/// Without what differs from run to run: pids, versions, and the widths of columns that hold them.
fn normal(session: &str) -> String {
    let session = Regex::new(r"\d{3,}").expect("a good pattern").replace_all(session, "N");
    let session = Regex::new(r" +").expect("a good pattern").replace_all(&session, " ");
    session.lines().map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn readme_session_is_what_is_printed() {
    let text = fs::read_to_string(readme()).expect("the README");
    let sessions = sessions(&text);
    assert_eq!(sessions.len(), 2, "one session for tasks, one for cgroups");
    let server = Server::start();
    let mut blessed = Vec::new();
    for session in sessions {
        let written = &text[session.clone()];
        if written.contains("CGROUP") && !cgroups_can_be_made() {
            skipped("the README's cgroup session", "no cgroup v2 directory can be made here");
            continue;
        }
        let printed = replay(written, &server.tcp);
        match std::env::var_os("HOLDFAST_BLESS") {
            Some(_) => blessed.push((session, printed)),
            None => {
                assert_eq!(normal(written), normal(&printed), "the README shows something else than what is printed")
            }
        }
    }
    if !blessed.is_empty() {
        let mut text = text;
        // From the end: a replacement moves what is behind it.
        blessed.into_iter().rev().for_each(|(session, printed)| text.replace_range(session, &printed));
        fs::write(readme(), text).expect("the README can be written");
    }
}

fn cgroups_can_be_made() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[2] == "cgroup2");
    let Some(probe) = mount.map(|fields| Path::new(fields[1]).join(format!("holdfast-probe-{}", std::process::id())))
    else {
        return false;
    };
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
}
