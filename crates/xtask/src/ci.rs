//! The steps of CI: which there are, in which order, and what is said at the end.
//!
//! A failing step does not stop the others, so that one run tells everything.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::job::{Job, Tally};
use crate::{container, deny, e2e, examples, ghz, lint, loom, oracle, proto, test};

// One step, in the order in which `ci` runs them. The tests come first: they build what others
// reuse. The release build comes last: it takes longest. (Not a doc comment: clap would print it
// as the description of `cargo xtask`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Subcommand, ValueEnum)]
pub enum Step {
    /// Run the tests of the workspace, with the command that the README gives
    Test,
    /// Check the formatting
    Fmt,
    /// Run clippy over all targets; warnings are errors
    Clippy,
    /// Build the documentation; warnings (broken links) are errors
    Doc,
    /// Check licenses, bans, sources and, where the database can be reached, advisories (cargo-deny)
    Deny,
    /// Run the loom models of the lock and of the hand-overs
    Loom,
    /// Send 100,000 random operations to Holdfast and to the running kernel's own storage, and compare every answer
    Oracle,
    /// Lint the protobuf files (buf)
    Proto,
    /// Run the heavy end-to-end suites against release builds
    E2e,
    /// Load a release build through every unary storage call and FreeMap; any failed call is an error (ghz)
    Ghz,
    /// Run the example clients in Python and Go against a release build
    Examples,
    /// Build the container image and use it from outside, under every setting that deploy/ tells of (podman)
    Container,
}

impl Step {
    fn run(self, job: &mut Job) -> Result<()> {
        match self {
            Self::Test => test::run(job),
            Self::Fmt => lint::fmt(job),
            Self::Clippy => lint::clippy(job),
            Self::Doc => lint::doc(job),
            Self::Deny => deny::run(job),
            Self::Loom => loom::run(job),
            Self::Oracle => oracle::run(job),
            Self::Proto => proto::run(job),
            Self::E2e => e2e::run(job),
            Self::Ghz => ghz::step(job),
            Self::Examples => examples::run(job),
            Self::Container => container::run(job),
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value().expect("no step is hidden from the command line");
        value.get_name().to_owned()
    }

    fn counts_tests(self) -> bool {
        matches!(self, Self::Test | Self::Loom | Self::Oracle | Self::E2e)
    }
}

/// The steps asked for, each once and in the order of CI; all of them if none is named.
pub fn select(only: &[Step]) -> Vec<Step> {
    Step::value_variants().iter().copied().filter(|step| only.is_empty() || only.contains(step)).collect()
}

/// Prints what [`run`] would do.
pub fn list(steps: &[Step]) -> Result<bool> {
    for &step in steps {
        println!("{}", step.name());
        step.run(&mut Job::listing())?;
    }
    Ok(true)
}

/// Runs the steps and says how each ended; true if none failed.
pub fn run(steps: &[Step]) -> bool {
    let started = Instant::now();
    let mut done = Vec::new();
    for (index, &step) in steps.iter().enumerate() {
        println!("\n==> {} ({} of {})", step.name(), index + 1, steps.len());
        let began = Instant::now();
        let mut job = Job::new();
        let failure = step.run(&mut job).err();
        let ended = Ended { step, job, failure, took: began.elapsed() };
        println!("==> {}", ended.line());
        done.push(ended);
    }
    summarize(&done, started.elapsed())
}

struct Ended {
    step: Step,
    job: Job,
    failure: Option<anyhow::Error>,
    took: Duration,
}

impl Ended {
    fn line(&self) -> String {
        let result = if self.failure.is_some() { "FAILED" } else { "ok" };
        let mut line = format!("{:<7} {result:<7} {:>8}", self.step.name(), time(self.took));
        if self.step.counts_tests() {
            let Tally { passed, failed, ignored } = self.job.tests();
            line.push_str(&format!("   {passed} passed, {failed} failed, {ignored} ignored"));
        }
        for skipped in self.job.skipped() {
            line.push_str(&format!("\n        SKIPPED {skipped}"));
        }
        if let Some(failure) = &self.failure {
            line.push_str(&format!("\n        {failure:#}"));
        }
        line
    }
}

/// The table, the verdict and, last and alone on its line, the count of tests.
fn summarize(done: &[Ended], took: Duration) -> bool {
    println!("\n==> summary");
    for ended in done {
        println!("{}", ended.line());
    }
    let failed: Vec<_> = done.iter().filter(|ended| ended.failure.is_some()).map(|ended| ended.step.name()).collect();
    if failed.is_empty() {
        let skipped: usize = done.iter().map(|ended| ended.job.skipped().len()).sum();
        println!("all steps ok in {}, parts skipped: {skipped}", time(took));
    } else {
        println!("FAILED after {}: {}", time(took), failed.join(", "));
    }
    if done.iter().any(|ended| ended.step.counts_tests()) {
        let sum = done.iter().fold(Tally::default(), |sum, ended| sum + ended.job.tests());
        println!("{} passed, {} failed", sum.passed, sum.failed);
    }
    failed.is_empty()
}

fn time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 60.. => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{:.1}s", duration.as_secs_f64()),
    }
}
