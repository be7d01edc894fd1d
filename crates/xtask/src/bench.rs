//! The benchmarks, in a release build. No step of CI: a number that depends on the machine is no test.

use std::process::Command;

use anyhow::{Context, Result};

use crate::job::{Job, cargo, rustflags, target_dir};

pub fn run(job: &mut Job, what: &[String]) -> Result<()> {
    let mut bench = cargo("run --release --quiet --package bench --");
    bench.args(what);
    let hooks = what.first().is_some_and(|what| what == "hooks");
    if hooks && !what.iter().any(|argument| argument.starts_with('-')) {
        // Before the builds, which take minutes.
        let mut valgrind = Command::new("valgrind");
        valgrind.arg("--version");
        job.run(valgrind).context("`bench hooks` counts instructions with valgrind: `apt-get install valgrind`")?;
        // Other flags make other artifacts: in a folder of their own they do not push out the usual ones.
        let target = target_dir().join("no-hooks");
        let mut without = cargo("build --release --quiet --package bench");
        without.env("RUSTFLAGS", rustflags("--cfg holdfast_no_hooks")).env("CARGO_TARGET_DIR", &target);
        job.run(without)?;
        bench.arg("--without").arg(target.join("release/bench"));
    }
    if what.first().is_some_and(|what| what == "service") {
        // They are started beside it.
        job.run(cargo("build --release --quiet --package holdfastd --package bench"))?;
    }
    job.run(bench)
}
