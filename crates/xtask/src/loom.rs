//! The loom models: every interleaving, within loom's bounds, of the lock and of the hand-overs.

use anyhow::Result;

use crate::job::{Job, cargo, target_dir};

/// The crates whose `sync.rs` switches its atomics to loom's.
const MODELLED: [&str; 2] = ["rqspinlock", "cpu-executor"];

pub fn run(job: &mut Job) -> Result<()> {
    let flags = match std::env::var("RUSTFLAGS") {
        Ok(flags) => format!("{flags} --cfg loom"),
        Err(_) => "--cfg loom".to_owned(),
    };
    for package in MODELLED {
        // Other flags make other artifacts: in a folder of their own they do not push out the usual ones.
        // Optimized, because a model runs its body a hundred thousand times.
        let mut test = cargo("test --release --lib");
        test.args(["--package", package, "loom"])
            .env("RUSTFLAGS", &flags)
            .env("CARGO_TARGET_DIR", target_dir().join("loom"));
        job.run_tests(test)?;
    }
    Ok(())
}
