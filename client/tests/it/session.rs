//! Sessions in a text, and what a real shell prints when it runs them again. `HOLDFAST_BLESS=1` writes them anew.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;

/// Separates what the commands print.
const MARK: &str = "@@ next command @@";

/// How long what is printed may differ from what is written.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a session may take.
const LONGEST: Duration = Duration::from_secs(120);

/// A text with sessions: console blocks, in which a command follows a `$`, and what it prints follows the command.
pub struct Text {
    path: PathBuf,
    text: String,
    printed: Vec<(Range<usize>, String)>,
}

/// A command, and what is below it.
pub type Step = (String, String);

impl Text {
    /// The file at this path, from the folder of this package.
    pub fn read(path: &str) -> Text {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Text { path, text, printed: Vec::new() }
    }

    /// Where its sessions are, without their fences.
    pub fn sessions(&self) -> Vec<Range<usize>> {
        let fence = Regex::new(r"(?s)```console\n(.*?)```").expect("a good pattern");
        fence.captures_iter(&self.text).map(|block| block.get(1).expect("one group").range()).collect()
    }

    pub fn written(&self, session: &Range<usize>) -> &str {
        &self.text[session.clone()]
    }

    /// Runs a session's commands in the text's folder. What they print is what is written, but for digits and blanks and for
    /// commands of which `differs` says so.
    pub fn replay(&mut self, session: Range<usize>, endpoint: &str, differs: impl Fn(&str) -> bool) -> Vec<Step> {
        let written = steps(self.written(&session));
        let mut shell = Shell::start(endpoint, self.path.parent().expect("in a folder"));
        let printed: Vec<_> =
            written.iter().map(|step| (step.0.clone(), shell.repeat(step, differs(&step.0)))).collect();
        self.printed.push((session, printed.iter().map(|(command, text)| format!("$ {command}\n{text}")).collect()));
        if !blessing() {
            for ((command, written), (_, printed)) in written.iter().zip(&printed) {
                let (written, printed) = (normal(written), normal(printed));
                assert!(
                    differs(command) || written == printed,
                    "{}: `{command}` prints something else than what is written:\n{printed}instead of:\n{written}",
                    self.path.display()
                );
            }
        }
        printed
    }

    /// Writes what was printed, if that was asked for.
    pub fn bless(mut self) {
        if blessing() {
            // From the end: a replacement moves what is behind it.
            self.printed.into_iter().rev().for_each(|(session, printed)| self.text.replace_range(session, &printed));
            fs::write(&self.path, self.text).expect("the text can be written");
        }
    }
}

fn blessing() -> bool {
    std::env::var_os("HOLDFAST_BLESS").is_some()
}

/// A shell that is typed to.
struct Shell {
    bash: Child,
    stdin: Option<ChildStdin>,
    printed: BufReader<ChildStdout>,
}

impl Shell {
    fn start(endpoint: &str, folder: &Path) -> Shell {
        let binaries = Path::new(env!("CARGO_BIN_EXE_holdfast")).parent().expect("in a folder");
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
        // Ends it with all that it has started, whatever hangs.
        let mut bash = Command::new("timeout");
        bash.arg(LONGEST.as_secs().to_string()).arg("bash").current_dir(folder);
        bash.env("HOLDFAST_ENDPOINT", endpoint).env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut bash = bash.spawn().expect("bash runs");
        let (stdin, stdout) = (bash.stdin.take(), bash.stdout.take().expect("piped"));
        let mut shell = Shell { bash, stdin, printed: BufReader::new(stdout) };
        shell.run("exec 2>&1");
        // A session that fails in the middle leaves nothing behind.
        shell.run(r#"trap 'kill $(jobs -p); wait; [ -d "$CGROUP" ] && rmdir "$CGROUP"' EXIT"#);
        shell
    }

    /// What a command prints.
    fn run(&mut self, command: &str) -> String {
        let stdin = self.stdin.as_mut().expect("it is taken at the end");
        writeln!(stdin, "{command}\necho '{MARK}'").expect("bash reads");
        let mut output = String::new();
        while !output.ends_with(&format!("{MARK}\n")) {
            assert_ne!(self.printed.read_line(&mut output).expect("text"), 0, "bash has ended: {output}");
        }
        output.replace(&format!("{MARK}\n"), "")
    }

    /// The same; but a read is repeated until it prints what is written, or `PATIENCE` is over: an exit takes a moment to be seen.
    fn repeat(&mut self, (command, written): &Step, differs: bool) -> String {
        let reads = ["holdfast get", "holdfast list", "holdfast map show"].iter().any(|read| command.starts_with(read));
        let limit = Instant::now() + PATIENCE;
        loop {
            let printed = self.run(command);
            if !reads || differs || normal(&printed) == normal(written) || Instant::now() >= limit {
                return printed;
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.bash.wait();
    }
}

/// The commands with what is written below each.
fn steps(session: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in session.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), String::new())),
            (None, Some((_, written))) => *written += &format!("{line}\n"),
            (None, None) => panic!("a session begins with a command: {line}"),
        }
    }
    steps
}

/// Without what differs from run to run: pids, versions, and the widths of columns that hold them.
fn normal(printed: &str) -> String {
    let printed = Regex::new(r"\d{3,}").expect("a good pattern").replace_all(printed, "N");
    let printed = Regex::new(r" +").expect("a good pattern").replace_all(&printed, " ");
    printed.lines().map(|line| format!("{}\n", line.trim())).collect()
}
