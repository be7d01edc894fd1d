//! The benchmarks, in a release build. No step of CI: a number that depends on the machine is no test.

use anyhow::Result;

use crate::job::{Job, cargo};

pub fn run(job: &mut Job, what: &[String]) -> Result<()> {
    let mut bench = cargo("run --release --quiet --package bench --");
    bench.args(what);
    job.run(bench)
}
