//! The heavy end-to-end suites of the server, against release builds: load, and what only shows under load.
//!
//! They are the tests marked `#[ignore = "run by cargo xtask e2e"]` (and `tests/it/ignored.rs` sees to
//! it that no test is ignored for any other reason).

use anyhow::Result;

use crate::job::{Job, cargo};

pub fn run(job: &mut Job) -> Result<()> {
    job.run(cargo("build --release --package holdfastd --package holdfast"))?;
    // One after the other: each loads the machine by itself and asserts how fast it answers.
    job.run_tests(cargo("test --release --package holdfastd --test it -- --ignored --test-threads=1"))
}
