//! Many threads that do everything at random, in a release build and for as long as is asked for. No step of CI, which runs the
//! same tests for a second or a few.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::job::{Job, cargo};

#[derive(Args)]
pub struct Options {
    /// What to stress
    subject: Subject,

    /// For how long, each of its tests
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// What the threads choose, as an earlier run has printed it [default: something new]
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Subject {
    /// The lock, with 64 threads
    Lock,
    /// Maps that are freed while owners leave, without hooks and with them, and one owner that all change, with 4 threads and with 64
    Core,
}

impl Subject {
    fn package(self) -> &'static str {
        match self {
            Subject::Lock => "rqspinlock",
            Subject::Core => "local-storage",
        }
    }

    fn tests(self) -> &'static str {
        match self {
            Subject::Lock => "tests::random::stress_64_at_random",
            Subject::Core => {
                "tests::stress::stress_free_4 tests::stress::stress_free_64 \
                 tests::stress::stress_free_4_with_hooks tests::stress::stress_free_4_with_hooks_and_legacy_guard \
                 tests::stress::stress_change_4 tests::stress::stress_change_64"
            }
        }
    }
}

pub fn run(job: &mut Job, options: &Options) -> Result<()> {
    let (package, tests) = (options.subject.package(), options.subject.tests());
    // One test after the other: each is to have the machine to itself.
    let mut test = cargo(&format!("test --release --package {package} --lib -- --exact --test-threads 1 {tests}"));
    test.env("HOLDFAST_STRESS_SECONDS", options.seconds.to_string());
    if let Some(seed) = options.seed {
        test.env("HOLDFAST_STRESS_SEED", seed.to_string());
    }
    job.run_tests(test)
}
