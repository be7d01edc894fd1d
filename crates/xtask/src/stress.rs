//! The lock under 64 threads that do everything at random, in a release build and for as long as is asked for. No step of CI,
//! which runs the same test for a few seconds.

use anyhow::Result;
use clap::Args;

use crate::job::{Job, cargo};

#[derive(Args)]
pub struct Options {
    /// For how long
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// What the threads choose, as an earlier run has printed it [default: something new]
    #[arg(long)]
    seed: Option<u64>,
}

pub fn run(job: &mut Job, options: &Options) -> Result<()> {
    let mut test = cargo("test --release --package rqspinlock --lib -- --exact tests::random::stress_64_at_random");
    test.env("HOLDFAST_STRESS_SECONDS", options.seconds.to_string());
    if let Some(seed) = options.seed {
        test.env("HOLDFAST_STRESS_SEED", seed.to_string());
    }
    job.run_tests(test)
}
