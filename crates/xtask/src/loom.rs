//! The models: every interleaving, within loom's bounds, of the lock and of the hand-overs; and random ones of longer
//! lives of the lock, by shuttle.

use anyhow::Result;

use crate::job::{Job, cargo, rustflags, target_dir};

/// The crates whose `sync.rs` switches its atomics to loom's.
const MODELLED: [&str; 2] = ["rqspinlock", "cpu-executor"];

pub fn run(job: &mut Job) -> Result<()> {
    for package in MODELLED {
        models(job, package, "--cfg loom", "loom")?;
    }
    models(job, "rqspinlock", "--cfg loom --cfg shuttle", "shuttle")
}

fn models(job: &mut Job, package: &str, cfg: &str, checker: &str) -> Result<()> {
    // Other flags make other artifacts: in a folder of their own they do not push out the usual ones.
    // Optimized, because a model runs its body a hundred thousand times.
    let mut test = cargo("test --release --lib");
    test.args(["--package", package, checker])
        .env("RUSTFLAGS", rustflags(cfg))
        .env("CARGO_TARGET_DIR", target_dir().join(checker));
    job.run_tests(test)
}
