//! One step while it runs: it echoes and runs command lines, counts tests, and remembers what was skipped.

use std::io::{BufRead, BufReader};
use std::ops::Add;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// How many tests a step ran, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

impl Tally {
    /// Reads libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; none for any other line.
    fn parse(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        let count = |what: &str| -> Option<u64> {
            let before = &counts[..counts.find(what)?];
            before.trim_end().rsplit(' ').next()?.parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }
}

/// A step under way.
pub struct Job {
    listing: bool,
    tests: Tally,
    skipped: Vec<String>,
}

impl Job {
    pub fn new() -> Self {
        Self { listing: false, tests: Tally::default(), skipped: Vec::new() }
    }

    /// A job that prints its command lines and runs none of them; each counts as having succeeded.
    pub fn listing() -> Self {
        Self { listing: true, ..Self::new() }
    }

    pub fn is_listing(&self) -> bool {
        self.listing
    }

    pub fn tests(&self) -> Tally {
        self.tests
    }

    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Says loudly, here and again in the summary, that a part of the step did not happen.
    pub fn skip(&mut self, what: &str, why: &anyhow::Error) {
        let skipped = format!("{what}: {why:#}");
        println!("\n!!! SKIPPED {skipped}\n");
        self.skipped.push(skipped);
    }

    /// Runs a command; an exit code other than 0 is an error.
    pub fn run(&mut self, mut command: Command) -> Result<()> {
        let line = self.echo(&command);
        if self.listing {
            return Ok(());
        }
        let status = command.stdin(Stdio::null()).status().with_context(|| cannot_start(&command))?;
        ensure!(status.success(), "`{line}` ended with {status}");
        Ok(())
    }

    /// Runs a `cargo test`, adds up the results that it prints, and remembers what its tests say that they skipped.
    ///
    /// A command that fails without a failed test (it did not build, a test binary crashed) counts
    /// as one failed test, and a command that ran no test at all is an error: a filter that
    /// matches nothing any more would pass for ever.
    pub fn run_tests(&mut self, mut command: Command) -> Result<()> {
        let line = self.echo(&command);
        if self.listing {
            return Ok(());
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| cannot_start(&command))
            .inspect_err(|_| self.tests.failed += 1)?;
        let output = child.stdout.take().expect("stdout was set to a pipe just above");
        let errors = child.stderr.take().expect("likewise");
        let (tally, skipped) = std::thread::scope(|scope| {
            let skipped = scope.spawn(|| tee_skipped(BufReader::new(errors)));
            (tee(BufReader::new(output)), skipped.join().expect("reading lines does not panic"))
        });
        let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
        let mut tally = tally.with_context(|| format!("cannot read the output of `{line}`"))?;
        self.skipped.extend(skipped.with_context(|| format!("cannot read the errors of `{line}`"))?);
        if !status.success() {
            tally.failed = tally.failed.max(1);
        }
        self.tests = self.tests + tally;
        ensure!(status.success(), "`{line}` ended with {status}");
        if tally.passed == 0 {
            self.tests.failed += 1;
            bail!("`{line}` ran no test: is its filter or its target out of date?");
        }
        Ok(())
    }

    /// Prints the command line, and gives it back for messages.
    pub fn echo(&self, command: &Command) -> String {
        let line = command_line(command);
        println!("{}{line}", if self.listing { "    " } else { "$ " });
        line
    }
}

/// Copies the lines to stdout as they come and adds up the test results among them.
///
/// Through `print!`, which libtest captures: the made-up results of this file's own tests must not
/// show up in the output of the `cargo test` that CI counts.
fn tee(mut output: impl BufRead) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        if let Some(result) = Tally::parse(&text) {
            tally = tally + result;
        }
        line.clear();
    }
    Ok(tally)
}

/// Copies the lines to stderr as they come and gives back what the tests say that they skipped (`SKIPPED what: why`, past the test
/// harness, which would keep it to itself).
fn tee_skipped(mut errors: impl BufRead) -> std::io::Result<Vec<String>> {
    let mut skipped = Vec::new();
    let mut line = Vec::new();
    while errors.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        eprint!("{text}");
        skipped.extend(text.strip_prefix("SKIPPED ").map(|skipped| skipped.trim_end().to_owned()));
        line.clear();
    }
    Ok(skipped)
}

fn cannot_start(command: &Command) -> String {
    let program = command.get_program().display();
    format!("cannot start `{program}` (is it installed, and in PATH?)")
}

/// The command as one would type it: `RUSTFLAGS="--cfg loom" cargo test ...`.
fn command_line(command: &Command) -> String {
    let quoted = |text: &std::ffi::OsStr| match text.to_string_lossy() {
        text if text.contains(' ') => format!("\"{text}\""),
        text => text.into_owned(),
    };
    let set =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    set.chain(words).collect::<Vec<_>>().join(" ")
}

/// `cargo` with the words of `arguments`.
pub fn cargo(arguments: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments.split_whitespace());
    command
}

/// The caller's RUSTFLAGS and `more`.
pub fn rustflags(more: &str) -> String {
    match std::env::var("RUSTFLAGS") {
        Ok(flags) => format!("{flags} {more}"),
        Err(_) => more.to_owned(),
    }
}

/// The same command under coreutils' `timeout`, for what waits on the network.
pub fn bounded(seconds: u32, command: &Command) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.arg("--kill-after=5").arg(seconds.to_string()).arg(command.get_program()).args(command.get_args());
    bounded
}

/// Where cargo builds to; relative to the root unless CARGO_TARGET_DIR says something else.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn results_of_all_binaries_are_added_up() {
        let mut job = Job::new();
        let script = "echo 'test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 3 filtered out'
                      echo 'test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";
        job.run_tests(sh(script)).expect("two good results");
        assert_eq!(job.tests(), Tally { passed: 42, failed: 0, ignored: 2 });
    }

    #[test]
    fn a_failed_test_fails_the_step_and_is_counted_once() {
        let mut job = Job::new();
        let script = "echo 'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured'; exit 101";
        job.run_tests(sh(script)).expect_err("exit code 101");
        assert_eq!(job.tests(), Tally { passed: 3, failed: 2, ignored: 0 });
    }

    #[test]
    fn what_a_test_says_that_it_skipped_is_remembered() {
        let mut job = Job::new();
        let script = "echo 'SKIPPED the half: no such device' >&2; echo 'warning: SKIPPED nothing' >&2
                      echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";
        job.run_tests(sh(script)).expect("a good result");
        assert_eq!(job.skipped(), ["the half: no such device"]);
    }

    #[test]
    fn a_crash_without_a_result_counts_as_a_failure() {
        let mut job = Job::new();
        let script = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured'; kill -SEGV $$";
        job.run_tests(sh(script)).expect_err("killed by a signal");
        assert_eq!(job.tests(), Tally { passed: 3, failed: 1, ignored: 0 });
    }

    #[test]
    fn a_command_that_runs_no_test_is_an_error() {
        let mut job = Job::new();
        let script = "echo 'test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out'";
        job.run_tests(sh(script)).expect_err("nothing ran");
        assert_eq!(job.tests().failed, 1);
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = Job::new().run(Command::new("no-such-program-here")).expect_err("it does not exist");
        assert!(format!("{error:#}").contains("no-such-program-here"), "{error:#}");
    }

    #[test]
    fn a_bounded_command_ends() {
        let mut forever = Command::new("tail");
        forever.args(["-f", "/dev/null"]);
        let error = Job::new().run(bounded(1, &forever)).expect_err("tail never ends by itself");
        assert!(format!("{error:#}").contains("124"), "timeout(1) ends with 124: {error:#}");
    }

    #[test]
    fn the_echoed_line_can_be_pasted() {
        let mut command = cargo("test -p x");
        command.env("RUSTFLAGS", "--cfg loom");
        assert_eq!(command_line(&command), "RUSTFLAGS=\"--cfg loom\" cargo test -p x");
    }
}
