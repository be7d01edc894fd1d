//! The live oracle: many random operations to Holdfast's engine and to the running kernel, in a release build.
//!
//! `cargo test` does the same with a tenth of them. Where the kernel does not let us use bpf(2), the test says that it was skipped.

use anyhow::Result;

use crate::job::{Job, cargo};

/// With so many the test wants every pair of answers at least a hundred times.
const OPERATIONS: &str = "100000";

pub fn run(job: &mut Job) -> Result<()> {
    let mut test =
        cargo("test --release --package engine --test it -- --exact oracle::holdfast_answers_as_the_kernel_does");
    test.env("HOLDFAST_ORACLE_OPERATIONS", OPERATIONS);
    job.run_tests(test)
}
